"""What all PyTorch trainers have in common: their options and the frame around a run."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from bimix_tune.corpus import Corpus
from bimix_tune.corpus.copy import is_url
from bimix_tune.curves import BITS_PER_BYTE, NATS_PER_TOKEN
from bimix_tune.errors import ConfigError, did_you_mean, missing_extra
from bimix_tune.mixture import Mixture
from bimix_tune.options import names
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.schedule import Steps
from bimix_tune.training.sizes import Defaults

if TYPE_CHECKING:
    import torch

    from bimix_tune.training.loop import Proxy


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
            take more than a tenth of the time.
        sequence_length: Tokens of a sequence; None follows the size.
        batch_tokens: Tokens of an optimiser step; None follows the budget.
        learning_rate: Peak; None follows size and budget.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or any name PyTorch knows.
        save_to: Folder for the final weights, a subfolder for each run; None keeps none.

    Raises:
        ConfigError: An option is out of its range, or a target is no domain of the corpus.
        CorpusError: The folder holds no corpus.
        MissingExtraError: PyTorch is not installed.
    """

    libraries: ClassVar[tuple[str, ...]] = ()

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
    save_to: str | Path | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
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
        if self.save_to is not None:
            object.__setattr__(self, "save_to", Path(self.save_to).absolute())

    def _check_numbers(self) -> None:
        for field in dataclasses.fields(TorchTrainer):
            value = getattr(self, field.name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if field.type.startswith(("int", "float")) and value is not None:
                kind = "a whole number" if field.type.startswith("int") else "a number"
                whole = field.type.startswith("float") or isinstance(value, int)
                if not (number and whole and value > 0):
                    raise ConfigError(f"{field.name} must be {kind} > 0, but got {value!r}")

    @abstractmethod
    def defaults(self) -> Defaults:
        """Sequence length, batch and learning rate that suit the model and the budget."""

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

    def run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """Train from scratch; see `bimix_tune.training.base.Trainer.run`."""
        from bimix_tune.training.device import choose_device, memory_errors, one_thread
        from bimix_tune.training.loop import Recipe, Training

        device = choose_device(self.device)
        corpus, steps = Corpus.open(self.corpus), self.steps()
        recipe = Recipe(
            steps,
            self.learning_rate or self.defaults().learning_rate,
            self.checkpoints,
            self.evaluation_tokens,
            self.targets,
            self.unit,
        )
        proxy_in_words = (
            f"a proxy with {steps.batch} sequences of {steps.sequence_length} tokens "
            f"in a step ({self!r})"
        )
        with one_thread(device), memory_errors(proxy_in_words):
            proxy = self.build(corpus, seed, device)
            for checkpoint in Training(proxy, corpus, mixture, seed, recipe).run():
                if checkpoint.decayed and self.save_to is not None:
                    folder = Path(self.save_to) / run_name(mixture, seed)
                    self.save(proxy, corpus, folder)
                    notes = {**checkpoint.notes, "weights": str(folder)}
                    checkpoint = dataclasses.replace(checkpoint, notes=notes)
                yield checkpoint


def run_name(mixture: Mixture, seed: int) -> str:
    """A folder name that tells runs apart: a hash of the mixture, and the seed."""
    text = json.dumps(sorted(mixture.items()))
    return f"{hashlib.sha256(text.encode()).hexdigest()[:12]}-seed{seed}"
