"""What all PyTorch trainers have in common: their options and the frame around a run."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from bimix_tune.corpus import Corpus
from bimix_tune.corpus.copy import is_url
from bimix_tune.curves import BITS_PER_BYTE, NATS_PER_TOKEN
from bimix_tune.errors import ConfigError, did_you_mean, missing_extra
from bimix_tune.mixture import Mixture
from bimix_tune.options import names
from bimix_tune.training.base import Checkpoint, described
from bimix_tune.training.memory import Footprint, micro_batch
from bimix_tune.training.schedule import Steps
from bimix_tune.training.sizes import Defaults

if TYPE_CHECKING:
    import torch

    from bimix_tune.training.loop import Recipe
    from bimix_tune.training.state import StateFile
    from bimix_tune.training.step import Proxy


@dataclass(frozen=True, kw_only=True)
class TorchTrainer(ABC):
    """Options of a PyTorch trainer; a subclass adds the model and nothing else.

    Args:
        corpus: Folder of a tokenised corpus, or a URL of one, see `Corpus.open`.
        tokens: Training tokens of a complete run.
        targets: Validation domains; empty means all domains of the corpus.
        unit: Unit of the losses, ``"bits/byte"`` or ``"nats/token"``.
        checkpoints: Evaluations in a run, the last one at its end.
        evaluation_tokens: Validation tokens per target; fewer are read where evaluation would
            take more than its share of the time (`bimix_tune.training.evaluate`).
        sequence_length: Tokens of a sequence; None follows the size.
        batch_tokens: Tokens of an optimiser step; None follows the budget.
        learning_rate: Peak, one number for all sizes, from which every kind of weight gets its own
            (see `bimix_tune.training.parametrisation`); None follows the budget.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or any name PyTorch knows.
        processes: Processes that share a run, on a GPU each; see `bimix_tune.training.group`.
        members: Runs that share a process, and compute together where that is measured to be
            faster: proxies below about 0.2M parameters and 1k tokens a step on a CPU. See
            `bimix_tune.training.ensemble`; `LlamaTrainer` only, with the executor ``ray``.
        unique_tokens: Training tokens that a run may read of a domain, so that its text repeats
            as often as in the training that the search is for; a domain that is not named is
            read whole. See `bimix_tune.training.mixing.matched_repetition`.
        save_to: Folder for the final weights, a subfolder for each run; None keeps none.
        states: Folder for the states of runs that were cut short, which a run of the same
            mixture and seed then continues; None keeps none. A worker that does not reach it
            trains from scratch. It may be deleted at any time.

    Raises:
        ConfigError: An option is out of its range, or a target is no domain of the corpus.
        CorpusError: The folder holds no corpus.
        MissingExtraError: PyTorch is not installed.
    """

    libraries: ClassVar[tuple[str, ...]] = ()
    stacks: ClassVar[bool] = False
    """Whether several runs can share a process."""

    corpus: str | Path
    tokens: int
    targets: tuple[str, ...] = ()
    unit: str = BITS_PER_BYTE
    checkpoints: int = 6
    evaluation_tokens: int = 16_384
    sequence_length: int | None = None
    batch_tokens: int | None = None
    learning_rate: float | None = None
    device: str = "auto"
    processes: int = 1
    members: int = 1
    unique_tokens: Mapping[str, int] | None = field(default=None, hash=False)
    save_to: str | Path | None = None
    states: str | Path | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_members()
        if self.unit not in (BITS_PER_BYTE, NATS_PER_TOKEN):
            raise ConfigError(
                f"unit must be {BITS_PER_BYTE!r} or {NATS_PER_TOKEN!r}, but got {self.unit!r}"
            )
        for library in ("torch", *self.libraries):
            if importlib.util.find_spec(library) is None:
                raise missing_extra(library, "train", f"{type(self).__name__}")
        known, targets = Corpus.open(self.corpus).names, names("targets", self.targets)
        for target in targets:
            if target not in known:
                raise ConfigError(
                    f"target {target!r} is no domain of {self.corpus}" + did_you_mean(target, known)
                )
        object.__setattr__(self, "targets", targets or known)
        # A worker may start in another folder.
        if not is_url(self.corpus):
            object.__setattr__(self, "corpus", Path(self.corpus).absolute())
        for name in ("save_to", "states"):
            if (folder := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(folder).absolute())
        self._check_unique_tokens(known)

    def _check_numbers(self) -> None:
        for option in dataclasses.fields(TorchTrainer):
            value = getattr(self, option.name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if option.type.startswith(("int", "float")) and value is not None:
                kind = "a whole number" if option.type.startswith("int") else "a number"
                whole = option.type.startswith("float") or isinstance(value, int)
                if not (number and whole and value > 0):
                    raise ConfigError(f"{option.name} must be {kind} > 0, but got {value!r}")

    def _check_members(self) -> None:
        if self.members > 1 and not self.stacks:
            raise ConfigError(
                f"{type(self).__name__} cannot train several proxies at once: members must be 1, "
                f"but got {self.members}; the trainer `llama` can"
            )
        if self.members > 1 and self.processes > 1:
            raise ConfigError(
                "runs share a process (members) or have several each (processes), not both, "
                f"but got members={self.members} and processes={self.processes}"
            )

    def _check_unique_tokens(self, known: tuple[str, ...]) -> None:
        for name, count in (self.unique_tokens or {}).items():
            if name not in known:
                raise ConfigError(
                    f"unique_tokens names a domain {name!r} that the corpus has not"
                    + did_you_mean(name, known)
                )
            if not isinstance(count, int) or count < 1:
                raise ConfigError(
                    f"unique_tokens of {name!r} must be a whole number > 0, but got {count!r}"
                )

    @abstractmethod
    def defaults(self) -> Defaults:
        """Sequence length, batch and learning rate that suit the model and the budget."""

    @abstractmethod
    def footprint(self) -> Footprint:
        """What decides how much memory a run takes, known before anything is built."""

    @abstractmethod
    def build(self, corpus: Corpus, seed: int, device: torch.device) -> Proxy:
        """A fresh model whose weights are decided by the seed."""

    @abstractmethod
    def save(self, proxy: Proxy, corpus: Corpus, folder: Path) -> None:
        """Write weights and configuration for ``from_pretrained``."""

    def with_corpus(self, folder: Path) -> Self:
        """The same trainer, reading the same corpus from another folder."""
        return dataclasses.replace(self, corpus=folder)

    def steps(self) -> Steps:
        """How the budget is cut into optimiser steps."""
        length = self.sequence_length or self.defaults().sequence_length
        batch = (self.batch_tokens or self.defaults().batch_tokens) / length
        return Steps(self.tokens, length, max(1, round(batch)))

    def micro_batch(self, device: torch.device) -> int:
        """Sequences to push through the model at once, in each of the processes that share a run.

        Args:
            device: Where the model is.
        """
        from bimix_tune.training.parallel import place

        return micro_batch(self.steps(), self.footprint().pass_bytes, device.type, place()[1])

    def run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """Train; see `bimix_tune.training.base.Trainer.run`.

        Where ``states`` holds the state of this very run, its checkpoints with losses come again,
        and it goes on from there: on a CPU to the last bit as if it had never stopped, unless only
        one of the two went on with a compiled step.
        """
        if self.processes > 1:
            from bimix_tune.training.group import run_group

            yield from run_group(self, mixture, seed)
        else:
            yield from self._run(mixture, seed)

    def resumes(self, mixture: Mixture, seed: int) -> bool:
        """See `bimix_tune.training.base.KeepsStates`; a file that is damaged still counts."""
        return self.states is not None and self._state_path(self.states, mixture, seed).exists()

    def _run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """Train in this process, alone or as one of several."""
        from bimix_tune.training.device import (
            check_memory,
            choose_device,
            memory_errors,
            one_thread,
        )
        from bimix_tune.training.device_text import let_go, text_bytes
        from bimix_tune.training.loop import Training

        device = choose_device(self.device)
        corpus, steps, recipe = Corpus.open(self.corpus), self.steps(), self._recipe()
        proxy_in_words = (
            f"a proxy with {steps.batch} sequences of {steps.sequence_length} tokens "
            f"in a step ({self!r})"
        )
        hold_text = check_memory(self, device, proxy_in_words, text_bytes(corpus, mixture))
        if not hold_text:
            let_go()
        with one_thread(device), memory_errors(proxy_in_words):
            proxy = self.build(corpus, seed, device)
            file = self._state_file(corpus, mixture, seed)
            training = Training(proxy, corpus, mixture, seed, recipe, file, hold_text)
            with closing(training.run()) as checkpoints:
                for checkpoint in proxy.under_way(checkpoints):
                    yield self._with_weights(checkpoint, proxy, corpus, run_name(mixture, seed))

    def _recipe(self) -> Recipe:
        from bimix_tune.training.loop import Recipe

        return Recipe(
            self.steps(),
            self.learning_rate or self.defaults().learning_rate,
            self.checkpoints,
            self.evaluation_tokens,
            self.targets,
            self.unit,
            self.unique_tokens or {},
        )

    def _state_file(self, corpus: Corpus, mixture: Mixture, seed: int) -> StateFile | None:
        from bimix_tune.training.state import StateFile

        if self.states is None:
            return None
        run = {
            "trainer": described(self),
            "recipe": dataclasses.asdict(self._recipe()),
            "corpus": corpus.key,
            "mixture": sorted(mixture.items()),
            "seed": seed,
        }
        return StateFile(self._state_path(self.states, mixture, seed), run)

    @staticmethod
    def _state_path(folder: str | Path, mixture: Mixture, seed: int) -> Path:
        return Path(folder) / f"{run_name(mixture, seed)}.safetensors"

    def _with_weights(
        self, checkpoint: Checkpoint, proxy: Proxy, corpus: Corpus, name: str
    ) -> Checkpoint:
        """Save the weights at the end of a run, if that is wanted, and note where."""
        from bimix_tune.training.parallel import place

        if not checkpoint.decayed or self.save_to is None or place()[0]:
            return checkpoint
        folder = Path(self.save_to) / name
        self.save(proxy, corpus, folder)
        return dataclasses.replace(checkpoint, notes={**checkpoint.notes, "weights": str(folder)})


def run_name(mixture: Mixture, seed: int) -> str:
    """A folder name that tells runs apart: a hash of the mixture, and the seed."""
    text = json.dumps(sorted(mixture.items()))
    return f"{hashlib.sha256(text.encode()).hexdigest()[:12]}-seed{seed}"
