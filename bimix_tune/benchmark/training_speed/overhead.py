"""What a run does beside training: evaluation and saving, as a share of its time."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from bimix_tune.benchmark.training_speed.cases import Case
from bimix_tune.benchmark.training_speed.lean import MIXTURE, SEED, case_trainer
from bimix_tune.training import loop
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.device import now

STEPS = 60
"""Of the run: few, so that what comes once in a run weighs more than in a longer one."""


def overhead(
    case: Case, corpus: Path, device: torch.device, precision: str, batch_tokens: int,
    steps: int = STEPS,
) -> float:  # fmt: skip
    """Share of the time of a whole run that is no training.

    With the evaluations of a search, and weights saved at the end. The trainer tells its progress
    after every step, so what a median step does not explain is evaluation and saving.
    """
    with tempfile.TemporaryDirectory(prefix="bimix-tune-") as folder:
        trainer = case_trainer(
            case, corpus, str(device), precision, batch_tokens, steps, save_to=folder
        )
        return _share(trainer.run(MIXTURE, SEED), device)


def _share(run: Iterator[Checkpoint], device: torch.device) -> float:
    plain: list[float] = []
    other: list[float] = []
    before = loop.SIGN_OF_LIFE
    loop.SIGN_OF_LIFE = 0.0
    try:
        next(run)
        began = now(device)
        for checkpoint in run:
            ended = now(device)
            (other if checkpoint.losses else plain).append(ended - began)
            began = now(device)
    finally:
        loop.SIGN_OF_LIFE = before
    total = sum(plain) + sum(other)
    return (sum(other) - len(other) * statistics.median(plain)) / total
