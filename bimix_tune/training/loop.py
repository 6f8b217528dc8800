"""The training loop that all PyTorch proxies share: mixing, schedule, evaluation, guards.

A trainer brings a model; this module brings everything else, so that two kinds of proxy differ
in the model alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

from bimix_tune.corpus import Corpus
from bimix_tune.curves import BITS_PER_BYTE
from bimix_tune.errors import DivergedError
from bimix_tune.mixture import Mixture
from bimix_tune.training.average import Average
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.device_text import hold
from bimix_tune.training.evaluate import Evaluator, affordable_tokens
from bimix_tune.training.feed import Batch, ahead_for, batches
from bimix_tune.training.mixing import MixedReader
from bimix_tune.training.parallel import agreed, place
from bimix_tune.training.schedule import Steps
from bimix_tune.training.state import State, StateFile, restore, tensors_of
from bimix_tune.training.step import Proxy, Stepper

SIGN_OF_LIFE = 1.0
"""Seconds between checkpoints without losses."""


@dataclass(frozen=True)
class Recipe:
    """How to train, whatever the model.

    Args:
        steps: Budget, sequence length and batch.
        learning_rate: Peak, of a matrix 128 wide.
        checkpoints: Evaluations wanted.
        evaluation_tokens: Validation tokens wanted per target.
        targets: Names of validation domains.
        unit: Unit of the losses.
        unique_tokens: Training tokens to read of a domain at most; all of one not named.
    """

    steps: Steps
    learning_rate: float
    checkpoints: int
    evaluation_tokens: int
    targets: tuple[str, ...]
    unit: str
    unique_tokens: Mapping[str, int] = field(default_factory=dict)


class Training:
    """One run of a proxy on a mixture.

    Args:
        proxy: The model; it is changed in place.
        corpus: Where the text is.
        mixture: Shares of the training tokens.
        seed: Order of the text.
        recipe: Everything else.
        file: Where its state is kept, and where it may go on from; None: nowhere.
        hold_text: Whether the device shall hold the text of the mixture's domains.

    Raises:
        CorpusError: A text is shorter than a sequence.
        MixtureError: The mixture names a domain that the corpus has not.
    """

    def __init__(
        self,
        proxy: Proxy,
        corpus: Corpus,
        mixture: Mixture,
        seed: int,
        recipe: Recipe,
        file: StateFile | None = None,
        hold_text: bool = False,
    ) -> None:
        self._proxy, self._mixture, self._recipe, self._file = proxy, mixture, recipe, file
        steps = recipe.steps
        corpus.require(steps.sequence_length)
        self._reader = MixedReader(
            {name: corpus.tokens(name, "train") for name in corpus.names},
            mixture,
            steps.sequence_length,
            seed,
            recipe.unique_tokens,
        )
        self._text = hold(corpus, mixture, proxy.device) if hold_text else None
        self._position: Mapping[str, int] = self._reader.position()
        self._evaluations = steps.evaluations(recipe.checkpoints)
        self._stepper = Stepper(proxy, steps, recipe.learning_rate)
        self._early, self._last = (
            Evaluator(
                {name: corpus.tokens(name, "valid") for name in recipe.targets},
                steps.sequence_length,
                tokens,
                {name: unit_factor(corpus, name, recipe.unit) for name in recipe.targets},
                proxy.device,
                proxy.micro_batch,
            )
            for tokens in affordable_tokens(
                recipe.evaluation_tokens, steps.tokens, len(recipe.targets), len(self._evaluations)
            )
        )
        self._average: Average | None = Average(proxy.module.parameters())
        self._done, self._curve = 0, list[Checkpoint]()
        self._seconds = {"evaluation": 0.0, "saving": 0.0}
        self._began = time.monotonic()

    def run(self) -> Generator[Checkpoint, None, None]:
        """Train to the end of the budget, yielding checkpoints.

        A run whose state is found first yields the checkpoints with losses that it had.

        Raises:
            DivergedError: The training loss or a validation loss is not finite.
        """
        yield Checkpoint(0, notes=self._proxy.notes)
        self._resume()
        yield from tuple(self._curve)
        try:
            with closing(self._batches()) as self._coming:
                yield from self._train()
        except GeneratorExit:  # stopped: it may be wanted again
            self._keep()
            raise
        self._keep()

    def _train(self) -> Iterator[Checkpoint]:
        steps = self._recipe.steps
        alive = time.monotonic()
        for step in range(self._done, steps.count):
            loss = self._step(step)
            self._done = step + 1
            self._average_weights()
            if self._done in self._evaluations:
                self._curve.append(self._evaluate(self._done))
                yield self._curve[-1]
                alive = time.monotonic()
            elif time.monotonic() - alive >= SIGN_OF_LIFE:
                self._check(float(loss), self._done, "training loss")
                yield Checkpoint(steps.seen(self._done), seconds=self._elapsed)
                alive = time.monotonic()
            if self._file is not None and not place()[0] and self._file.due():
                self._save(self._file)

    def _batches(self) -> Generator[Batch, None, None]:
        """The batches of the steps that are left."""
        steps, device = self._recipe.steps, self._proxy.device
        left = range(self._done, steps.count)
        tokens = (steps.seen(step + 1) - steps.seen(step) for step in left)
        counts = (-(-count // steps.sequence_length) for count in tokens)
        return batches(self._reader, counts, device, self._text, ahead_for(device))

    def _step(self, step: int) -> torch.Tensor:
        """One optimiser step; returns the mean loss, still on the device."""
        batch = next(self._coming)
        self._position = batch.position
        return self._stepper(step, batch.rows)

    def _average_weights(self) -> None:
        """Keep the average up to the last evaluation of the constant part, its last use."""
        if self._done > self._last_early:
            self._average = None
        elif self._average is not None:
            self._average.update(self._done)

    def _evaluate(self, step: int) -> Checkpoint:
        last = step == self._recipe.steps.count
        evaluator = self._last if last else self._early
        with self._timed("evaluation"), self._average.applied() if self._average else nullcontext():
            losses = evaluator.losses(self._proxy.loss)
        for name, loss in losses.items():
            self._check(loss, step, f"validation loss of {name!r}")
        seen, elapsed = self._recipe.steps.seen(step), self._elapsed
        return Checkpoint(seen, losses, last, elapsed, self._notes(elapsed) if last else {})

    def _notes(self, elapsed: float) -> dict[str, str | float | int]:
        """What is worth recording at the end of a run."""
        shares = {f"{k}_share": round(v / elapsed, 4) for k, v in self._seconds.items()}
        epochs = {
            f"epochs.{name}": round(n, 4) for name, n in self._reader.epochs(self._position).items()
        }
        return {**self._proxy.notes, **shares, **epochs}

    @property
    def _last_early(self) -> int:
        """The step of the last evaluation in the constant part; 0 if there is none."""
        return max(self._evaluations[:-1], default=0)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._seconds[what] += time.monotonic() - began

    def _keep(self) -> None:
        """Save what may go on; what is complete needs no state any more."""
        if place()[0]:  # the first process of several does it for all
            return
        if self._file is not None and self._done == self._recipe.steps.count:
            self._file.delete()
        elif self._file is not None and self._done:
            self._save(self._file)

    def _save(self, file: StateFile) -> None:
        with self._timed("saving"):
            average = self._average.values if self._average else None
            tensors = tensors_of(self._proxy.module, self._stepper.optimiser, average)
            seconds = {"all": self._elapsed, **self._seconds}
            curve = tuple(self._curve)
            file.write(State(self._done, self._position, curve, seconds, tensors))

    def _resume(self) -> None:
        """Go on from the state on file, if there is one of this very run."""
        state = self._file.read() if self._file else None
        everywhere = agreed(state.step if state else 0)
        if self._file is None or state is None:
            return
        if not everywhere:
            self._file.ignore("not every process of the run can read it")
            return
        average = self._average if state.step <= self._last_early else None
        values = average.values if average else None
        try:
            restore(state.tensors, self._proxy.module, self._stepper.optimiser, values)
        except ValueError as error:
            self._file.ignore(error)
            return
        self._average = average
        self._reader.seek(state.position)
        self._position = state.position
        self._done, self._curve = state.step, list(state.curve)
        self._seconds = {what: state.seconds[what] for what in self._seconds}
        self._began = time.monotonic() - state.seconds["all"]

    def _check(self, loss: float, step: int, what: str) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"{what} became {loss} after {self._recipe.steps.seen(step)} tokens on "
                f"{self._mixture!r}: lower learning_rate (now {self._recipe.learning_rate:.3g})"
            )


def unit_factor(corpus: Corpus, name: str, unit: str) -> float:
    """What turns nats per token of a domain into the unit, ``1 / (ln 2 * bytes per token)``."""
    if unit == BITS_PER_BYTE:
        return 1.0 / (math.log(2.0) * corpus.bytes_per_token(name))
    return 1.0
