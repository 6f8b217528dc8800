"""The contract of a search problem: runs to ask for, and a truth to judge by."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np

from bimix_tune.benchmark.problems.lowest import lowest
from bimix_tune.laws.optimum.objectives import Objective
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array, dirichlet
from bimix_tune.space import SearchSpace
from bimix_tune.strategies.base import Setting
from bimix_tune.training.base import Checkpoint

TYPICAL_DRAWS = 2001
"""Random mixtures whose median objective is a regret of one."""


class Problem(ABC):
    """A search whose answer is known. Frozen dataclasses that pickle; one file each.

    Attributes:
        kind: ``"pool"`` (recorded runs, each to be asked for once), ``"surrogate"`` (a model of
            recorded runs), ``"synthetic"`` (a formula) or ``"training"`` (real proxies).
        name: Tells it from all others.
        space: Domains with bounds, targets with weights.
        tokens: Training tokens of a complete run.
        runs: Runs of a search unless another number is asked for.
        unit: Unit of the losses.
        objective: What is minimised.
        candidates: The only mixtures that can be run, (N, K); None: all of the space.
        known: Training-free mixtures by label.
    """

    kind: ClassVar[str]
    name: str
    space: SearchSpace
    tokens: int
    runs: int
    unit: str
    objective: Objective
    candidates: Array | None = None
    known: Mapping[str, Mixture]

    @abstractmethod
    def train(self, r: Array, seed: int) -> Iterator[Checkpoint]:
        """The checkpoints of a run of a mixture (K,); closing the iterator stops it.

        Args:
            r: Proportions, one of the candidates if there are any.
            seed: Decides the noise of the run.
        """

    @abstractmethod
    def truth(self, points: Array) -> Array:
        """The objective of complete runs without their noise, (M, K) -> (M,)."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Changes with all that the results depend on; see `fingerprint`."""

    @cached_property
    def optimum(self) -> Array:
        """The best mixture, (K,)."""
        if self.candidates is None:
            return lowest(self.truth, self.space)
        return np.asarray(self.candidates[self.truth(self.candidates).argmin()])

    @cached_property
    def best(self) -> float:
        """The least truth there is."""
        return float(self.truth(self.optimum[None])[0])

    @cached_property
    def typical(self) -> float:
        """The median truth: of the candidates, or else of flat random mixtures."""
        points = self.candidates
        if points is None:
            k, low, high = len(self.space.names), self.space.low, self.space.high
            rng = np.random.default_rng(0)
            points = dirichlet(rng, np.full(k, 1 / k), k, low, high, TYPICAL_DRAWS)
        return float(np.median(self.truth(points)))

    def regret(self, points: Array) -> Array:
        """Normalised regret of mixtures, (M, K) -> (M,): 0 is the best, 1 a typical mixture."""
        return (self.truth(points) - self.best) / (self.typical - self.best)

    def setting(self, seed: int, runs: int | None = None) -> Setting:
        """What a strategy is told."""
        return Setting(
            self.space,
            self.tokens,
            runs or self.runs,
            self.objective,
            seed,
            self.candidates,
            self.known,
        )

    def fingerprint(self, *parts: object) -> str:
        """A digest of what a strategy is told and of all else that makes the losses.

        Args:
            parts: Arrays by their bytes, other values by their `repr`.
        """
        known = {label: dict(mixture) for label, mixture in self.known.items()}
        told = (self.kind, self.name, self.space.to_dict(), self.tokens, self.unit, self.objective)
        digest = hashlib.sha256(repr((told, known)).encode())
        for part in parts:
            array = isinstance(part, np.ndarray)
            digest.update(np.ascontiguousarray(part).tobytes() if array else repr(part).encode())
        return digest.hexdigest()[:12]
