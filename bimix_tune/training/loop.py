"""The training loop that all PyTorch proxies share: mixing, schedule, evaluation, guards.

A trainer brings a model; this module brings everything else, so that two kinds of proxy differ
in the model alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bimix_tune.corpus import Corpus
from bimix_tune.curves import BITS_PER_BYTE
from bimix_tune.errors import DivergedError
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.cross_entropy import IGNORED
from bimix_tune.training.evaluate import Evaluator, Loss, affordable_tokens
from bimix_tune.training.memory import micro_batch
from bimix_tune.training.mixing import MixedReader
from bimix_tune.training.schedule import Steps

SIGN_OF_LIFE = 1.0
"""Seconds between checkpoints without losses."""
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP = 1.0
"""AdamW's moments and decay, and the largest gradient norm: GPT-3 (Brown et al. 2020, app. B)."""


@dataclass(frozen=True)
class Recipe:
    """How to train, whatever the model.

    Args:
        steps: Budget, sequence length and batch.
        learning_rate: Peak.
        checkpoints: Evaluations wanted.
        evaluation_tokens: Validation tokens wanted per target.
        targets: Names of validation domains.
        unit: Unit of the losses.
    """

    steps: Steps
    learning_rate: float
    checkpoints: int
    evaluation_tokens: int
    targets: tuple[str, ...]
    unit: str


@dataclass(frozen=True)
class Proxy:
    """A model ready to train.

    Args:
        module: Holds the parameters, float32, on the device.
        loss: From inputs and labels, (B, S) each, to the cross-entropy summed over all tokens.
        device: Where it is.
        token_bytes: About how much memory the activations of one token take in training.
        notes: What to record about the model.
    """

    module: nn.Module
    loss: Loss
    device: torch.device
    token_bytes: int
    notes: Mapping[str, str | float | int]


class Training:
    """One run of a proxy on a mixture.

    Args:
        proxy: The model; it is changed in place.
        corpus: Where the text is.
        mixture: Shares of the training tokens.
        seed: Order of the text.
        recipe: Everything else.

    Raises:
        CorpusError: A text is shorter than a sequence.
        MixtureError: The mixture names a domain that the corpus has not.
    """

    def __init__(
        self, proxy: Proxy, corpus: Corpus, mixture: Mixture, seed: int, recipe: Recipe
    ) -> None:
        self._proxy, self._mixture, self._recipe = proxy, mixture, recipe
        steps = recipe.steps
        corpus.require(steps.sequence_length)
        self._reader = MixedReader(
            {name: corpus.tokens(name, "train") for name in corpus.names},
            mixture,
            steps.sequence_length,
            seed,
        )
        self._evaluations = steps.evaluations(recipe.checkpoints)
        self._micro_batch = micro_batch(steps, proxy.token_bytes, proxy.device.type)
        self._early, self._last = (
            Evaluator(
                {name: corpus.tokens(name, "valid") for name in recipe.targets},
                steps.sequence_length,
                tokens,
                {name: unit_factor(corpus, name, recipe.unit) for name in recipe.targets},
                proxy.device,
                self._micro_batch,
            )
            for tokens in affordable_tokens(
                recipe.evaluation_tokens, steps.tokens, len(recipe.targets), len(self._evaluations)
            )
        )
        self._optimiser = optimiser(proxy, recipe.learning_rate)
        self._began = time.monotonic()

    def run(self) -> Iterator[Checkpoint]:
        """Train to the end of the budget, yielding checkpoints.

        Raises:
            DivergedError: The training loss or a validation loss is not finite.
        """
        steps = self._recipe.steps
        alive = time.monotonic()
        yield Checkpoint(0, notes=self._proxy.notes)
        for step in range(steps.count):
            loss = self._step(step)
            if step + 1 in self._evaluations:
                yield self._evaluate(step + 1)
                alive = time.monotonic()
            elif time.monotonic() - alive >= SIGN_OF_LIFE:
                self._check(float(loss), step + 1, "training loss")
                yield Checkpoint(steps.seen(step + 1), seconds=time.monotonic() - self._began)
                alive = time.monotonic()

    def _step(self, step: int) -> torch.Tensor:
        """One optimiser step; returns the mean loss, still on the device."""
        steps, device = self._recipe.steps, self._proxy.device
        tokens = steps.seen(step + 1) - steps.seen(step)
        batch = self._reader.batch(-(-tokens // steps.sequence_length))
        inputs, labels = batch[:, :-1], batch[:, 1:].copy()
        labels.reshape(-1)[tokens:] = IGNORED
        for group in self._optimiser.param_groups:
            group["lr"] = self._recipe.learning_rate * steps.factor(step)
        self._optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for at in range(0, len(batch), self._micro_batch):
            part = slice(at, at + self._micro_batch)
            x, y = (as_tensor(a[part], device) for a in (inputs, labels))
            loss = self._proxy.loss(x, y) / tokens
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self._proxy.module.parameters(), CLIP)
        self._optimiser.step()
        return total

    def _evaluate(self, step: int) -> Checkpoint:
        last = step == self._recipe.steps.count
        losses = (self._last if last else self._early).losses(self._proxy.loss)
        for name, loss in losses.items():
            self._check(loss, step, f"validation loss of {name!r}")
        epochs = {f"epochs.{name}": round(n, 4) for name, n in self._reader.epochs().items()}
        return Checkpoint(
            self._recipe.steps.seen(step),
            losses,
            decayed=last,
            seconds=time.monotonic() - self._began,
            notes=epochs if last else {},
        )

    def _check(self, loss: float, step: int, what: str) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"{what} became {loss} after {self._recipe.steps.seen(step)} tokens on "
                f"{self._mixture!r}: lower learning_rate (now {self._recipe.learning_rate:.3g})"
            )


def as_tensor(rows: np.ndarray[Any, np.dtype[np.int64]], device: torch.device) -> torch.Tensor:
    """Rows of tokens on the device; the copy to a GPU overlaps with computing."""
    tensor = torch.from_numpy(np.ascontiguousarray(rows))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def optimiser(proxy: Proxy, learning_rate: float) -> torch.optim.Optimizer:
    """Fused AdamW that decays matrices and leaves vectors (norms, biases) alone."""
    parameters = [p for p in proxy.module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=learning_rate, betas=BETAS, fused=True
    )


def unit_factor(corpus: Corpus, name: str, unit: str) -> float:
    """What turns nats per token of a domain into the unit, ``1 / (ln 2 * bytes per token)``."""
    if unit == BITS_PER_BYTE:
        return 1.0 / (math.log(2.0) * corpus.bytes_per_token(name))
    return 1.0
