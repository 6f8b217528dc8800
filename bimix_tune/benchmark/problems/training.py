"""Real proxies as a search problem: each run is a training, and so is each judgement.

The truth is not known in advance. A mixture is judged by fresh trainings with seeds that no
search uses, which are kept on disk; the scale of the regret comes from a recorded swarm of the
same proxies: 0 is its best mixture, which a search may well beat, and 1 its median one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from bimix_tune.atomic import write_atomic
from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.benchmark.problems.pool import Pool
from bimix_tune.errors import ConfigError, TrainingError
from bimix_tune.laws.optimum.objectives import Objective
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace
from bimix_tune.training.base import Checkpoint, Trainer

JUDGES = (1_000_003, 1_000_033)
"""Seeds of the trainings that judge a mixture; searches use small ones."""
DIGITS = 6
"""Mixtures that agree to so many decimals are trained and judged as one."""


@dataclass(frozen=True, eq=False)
class Training(Problem):
    """Trains proxies; made by `Training.of`.

    Args:
        trainer: The recipe of one run.
        pool: A recorded swarm of the same proxies, for the scale of the regret.
        folder: Where judgements are kept, a file each.
    """

    kind: ClassVar[str] = "training"

    name: str
    space: SearchSpace
    tokens: int
    runs: int
    unit: str
    objective: Objective
    known: Mapping[str, Mixture] = field(repr=False)
    trainer: Trainer
    pool: Pool = field(repr=False)
    folder: Path

    @classmethod
    def of(cls, pool: Pool, trainer: Trainer, folder: str | Path, name: str = "") -> Training:
        """The problem that a pool was recorded from.

        Args:
            pool: The recorded swarm, with the space and the objective.
            trainer: The recipe that it was recorded with.
            folder: Where judgements are kept.
            name: Tells it from all others; empty: the pool's name and ``-training``.

        Raises:
            ConfigError: The trainer is another than that of the pool.
        """
        recorded = (pool.tokens, pool.unit, set(pool.space.target_names))
        offered = (trainer.tokens, trainer.unit, set(trainer.targets))
        if recorded != offered:
            raise ConfigError(
                f"{pool.name} was recorded with tokens, unit and targets {recorded}, but the "
                f"trainer has {offered}: use the run file that it was recorded with"
            )
        label = name or f"{pool.name}-training"
        told = (pool.space, pool.tokens, pool.runs, pool.unit, pool.objective, pool.known)
        return cls(label, *told, trainer, pool, Path(folder))

    def train(self, r: Array, seed: int) -> Iterator[Checkpoint]:
        """A training; only moments with losses are passed on."""
        with contextlib.closing(self._checkpoints(r, seed)) as running:
            for checkpoint in running:
                if checkpoint.losses:
                    yield checkpoint

    def _checkpoints(self, r: Array, seed: int) -> Generator[Checkpoint, None, None]:
        yield from self.trainer.run(self.space.fit_in(np.round(r, DIGITS)), seed)

    def truth(self, points: Array) -> Array:
        """The objective of the losses averaged over trainings with the seeds `JUDGES`.

        Raises:
            TrainingError: A training fails or ends early.
        """
        losses = np.array([self._judge(r) for r in points])
        return self.objective.value(losses, self.space.weights)

    def _judge(self, r: Array) -> Array:
        """Mean final losses of a mixture, (V,), trained if that was not done before."""
        key = hashlib.sha256(f"{self.digest} {np.round(r, DIGITS).tolist()}".encode())
        path = self.folder / f"{key.hexdigest()[:16]}.json"
        if not path.is_file():
            ends = [self._final(r, seed) for seed in JUDGES]
            mean = {t: float(np.mean([end[t] for end in ends])) for t in self.space.target_names}
            about = {"mixture": dict(self.space.mixture(r)), "seeds": JUDGES, "losses": mean}
            write_atomic(path, json.dumps(about, indent=1) + "\n")
        losses = json.loads(path.read_text(encoding="utf-8"))["losses"]
        return np.array([losses[t] for t in self.space.target_names])

    def _final(self, r: Array, seed: int) -> Mapping[str, float]:
        seen = list(self.train(r, seed))
        if not seen or seen[-1].tokens < self.tokens:
            raise TrainingError(f"{self.name}: a training ended before {self.tokens} tokens")
        return seen[-1].losses

    @cached_property
    def optimum(self) -> Array:
        """The best recorded mixture, (K,)."""
        return self.pool.optimum

    @cached_property
    def best(self) -> float:
        """The objective of the best recorded mixture."""
        return self.pool.best

    @cached_property
    def typical(self) -> float:
        """The median objective of the recorded mixtures."""
        return self.pool.typical

    @property
    def digest(self) -> str:
        return self.fingerprint(self.trainer, self.pool.digest, JUDGES)
