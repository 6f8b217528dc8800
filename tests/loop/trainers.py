"""Trainings without a network: exact losses of a known law, and faults on request."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from bimix_tune.errors import DivergedError
from bimix_tune.training.base import Checkpoint

NAMES = ("web", "code", "books", "law")
ALPHA = np.array([0.05, 0.3, 0.15, 0.1])


@dataclass(frozen=True)
class LawTrainer:
    """``(0.02 + r)^-alpha (level + 20 tokens^-0.5)``, with seeded run noise.

    Args:
        diverges_above: Share of ``web`` above which the loss is NaN.
        ends_early: Leave out the last checkpoint.
        not_finite_above: Share of ``web`` above which the loss of ``code`` is infinite.
        sleep: Seconds between checkpoints.
        log: File to which every start of a run is appended.
    """

    tokens: int = 1000
    targets: tuple[str, ...] = NAMES
    unit: str = "nats/token"
    noise: float = 0.003
    diverges_above: float = 2.0
    ends_early: bool = False
    not_finite_above: float = 2.0
    sleep: float = 0.0
    log: str = ""

    def run(self, mixture, seed):
        if self.log:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{seed} {dict(mixture)}\n")
        r = np.array([mixture[n] for n in NAMES])
        rng = np.random.default_rng([seed, int(1e9 * r[0])])
        shift = np.exp(rng.normal(0, self.noise, 4))
        steps = [self.tokens // 4, self.tokens // 2, self.tokens]
        for s in steps[:-1] if self.ends_early else steps:
            time.sleep(self.sleep)
            if mixture["web"] > self.diverges_above:
                raise DivergedError(f"the loss became NaN after {s} tokens")
            losses = (0.02 + r) ** -ALPHA * (2.0 + 20 * s**-0.5) * shift
            losses[1] = np.inf if mixture["web"] > self.not_finite_above else losses[1]
            yield Checkpoint(s, dict(zip(NAMES, losses.tolist(), strict=True)), s == self.tokens)
