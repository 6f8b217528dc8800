"""The contract between a way to propose mixtures and whatever runs and judges them.

A strategy sees what a user has: the space, the budget, and the curves of the runs it asked for. It
never sees a problem's truth. With candidates (a table of finished runs) it may ask for each
once; without, for any mixture of the space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bimix_tune.curves import LossCurve
from bimix_tune.laws.optimum.objectives import Mean, Objective
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace


@dataclass(frozen=True, eq=False)
class Setting:
    """What a strategy knows before its search begins.

    Args:
        space: Domains with their bounds; targets with their weights.
        tokens: Training tokens of a complete run.
        runs: Runs that the search may ask for.
        objective: What is minimised, bound to the targets of the space.
        seed: Of all that is random in the strategy.
        candidates: The only mixtures that can be run, (N, K); None: all of the space.
        known: Training-free mixtures by label.
    """

    space: SearchSpace
    tokens: int
    runs: int
    objective: Objective = field(default_factory=Mean)
    seed: int = 0
    candidates: Array | None = None
    known: Mapping[str, Mixture] = field(default_factory=dict)

    def value(self, losses: Array) -> Array:
        """The objective of losses in the order of the space's targets, (..., V) -> (...)."""
        return self.objective.value(losses, self.space.weights)

    def values(self, curve: LossCurve) -> Array:
        """The objective at each checkpoint of a curve, (S,)."""
        columns = [curve.targets.index(t) for t in self.space.target_names]
        return self.value(curve.losses[:, columns])


class Strategy(ABC):
    """Proposes one mixture after the other. A subclass says how: `propose`, and more if it can.

    Args:
        setting: The search.

    Attributes:
        curves: Of all runs told so far, stopped ones too.
        complete: Whether each of them ran to its end.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.rng = np.random.default_rng(setting.seed)
        self.curves: list[LossCurve] = []
        self.complete: list[bool] = []
        count = 0 if setting.candidates is None else len(setting.candidates)
        self._left = np.ones(count, dtype=bool)

    @abstractmethod
    def propose(self) -> Array | None:
        """The next mixture to run, (K,), anywhere in the space; None: no more is needed."""

    def choose(self, points: Array) -> int | None:
        """Which of the remaining candidates (M, K) to run next; None: no more is needed.

        Here the one nearest to `propose` in square-root geometry (Hellinger distance). Strategies
        with a model of the objective score the candidates instead.
        """
        wish = self.propose()
        if wish is None:
            return None
        return int(np.linalg.norm(np.sqrt(points) - np.sqrt(wish), axis=1).argmin())

    def stop(self, curve: LossCurve) -> bool:
        """Whether to stop a run, from its curve so far. Here never."""
        return False

    def learn(self, curve: LossCurve, complete: bool) -> None:  # noqa: B027 - optional
        """Take in a run that has ended; `curves` and `complete` hold it already."""

    def recommend(self) -> Array:
        """What to use in the end, (K,). Here the best complete run seen."""
        ends = [
            (float(self.setting.values(c)[-1]), i)
            for i, (c, whole) in enumerate(zip(self.curves, self.complete, strict=True))
            if whole
        ]
        return self.setting.space.array(self.curves[min(ends)[1]].mixture)

    def ask(self) -> Array | None:
        """The next mixture to run, (K,), one of the candidates if there are any; None: the end."""
        candidates = self.setting.candidates
        if candidates is None:
            return self.propose()
        left = np.flatnonzero(self._left)
        if not len(left):
            return None
        chosen = self.choose(candidates[left])
        if chosen is None:
            return None
        self._left[left[chosen]] = False
        return np.asarray(candidates[left[chosen]])

    def tell(self, curve: LossCurve, complete: bool) -> None:
        """How the run last asked for went.

        Args:
            curve: Its checkpoints, up to where it was stopped.
            complete: Whether it ran to its end.
        """
        self.curves.append(curve)
        self.complete.append(complete)
        self.learn(curve, complete)
