"""The contract between a training and everything that runs or judges it.

A `Trainer` is a small frozen value (paths and numbers, no tensors), so that it travels to
another process cheaply; calling `Trainer.run` starts a training as a generator of
`Checkpoint`s. Closing the generator stops the training. A trainer knows nothing of Optuna,
Ray or the search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bimix_tune.mixture import Mixture

INCIDENTAL = (
    "device", "processes", "members", "save_to", "states", "corpus", "runs", "sleep", "grace",
)  # fmt: skip
"""Options of trainers that do not change losses, or that paths cannot identify (a corpus has a
key for that); a search or a run may be continued with others."""


@dataclass(frozen=True)
class Checkpoint:
    """A moment of a training.

    Args:
        tokens: Training tokens seen.
        losses: Validation loss by target; empty between evaluations, where a checkpoint is
            only a sign of life.
        decayed: Whether the learning rate had decayed to its end.
        seconds: Wall time since the training began.
        notes: Anything worth recording once per run (device, parameters, paths of weights).
    """

    tokens: int
    losses: Mapping[str, float] = field(default_factory=dict)
    decayed: bool = False
    seconds: float = 0.0
    notes: Mapping[str, str | float | int] = field(default_factory=dict)


class ReadsCorpus(Protocol):
    """What a trainer adds that reads a tokenised corpus, so that it can be taken elsewhere.

    An executor on several machines copies the folder to each one that does not have it.
    """

    @property
    def corpus(self) -> str | Path:
        """The folder, or a URL that every machine fetches for itself."""

    def with_corpus(self, folder: Path) -> Trainer:
        """The same trainer, reading the same corpus from another folder."""


class KeepsStates(Protocol):
    """What a trainer adds whose runs, cut short, can go on where they were."""

    def resumes(self, mixture: Mixture, seed: int) -> bool:
        """Whether a run would go on, as far as this machine sees, instead of beginning again."""


class SharesProcess(Protocol):
    """What a trainer adds whose runs gain from each other's company in a process.

    An executor that can starts so many at once, each in a thread of its own.
    """

    def at_once(self) -> int:
        """How many runs one process should have under way, on this machine."""


class Trainer(Protocol):
    """A recipe for proxy trainings. Implementations are frozen dataclasses that pickle."""

    @property
    def tokens(self) -> int:
        """Training tokens of a complete run."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the validation sets, in order."""

    @property
    def unit(self) -> str:
        """Unit of the losses: ``"nats/token"`` or ``"bits/byte"``."""

    def run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """Train from scratch.

        Args:
            mixture: Shares of the training tokens.
            seed: Decides initial weights and data order, nothing else: two runs of one seed
                see the same documents of a domain in the same order.

        Yields:
            Signs of life at least every few seconds, and a checkpoint with losses at
            geometrically spaced token counts; the last one is at `tokens`.

        Raises:
            DivergedError: A loss is NaN or infinite.
            OutOfMemoryError: The proxy does not fit.
            TrainingError: Anything else that a retry or another mixture may avoid.
        """


def described(trainer: Trainer) -> dict[str, Any]:
    """What a trainer's losses depend on, as far as a value says so: its kind and its options."""
    known: dict[str, Any] = {"type": type(trainer).__name__}
    if dataclasses.is_dataclass(trainer):
        names = [field.name for field in dataclasses.fields(trainer)]
        known |= {name: getattr(trainer, name) for name in names if name not in INCIDENTAL}
    return known
