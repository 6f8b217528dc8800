"""Static methods: a swarm of random mixtures, one fit of a published law, one optimum.

They spend all runs of the budget but one on the swarm, whatever it finds, and the last one on the
mixture that they recommend. Candidates are the swarm of somebody who has drawn them already, so
static methods take them in random order; their optimum is the candidate with the best prediction,
run or not.

What is recommended before the swarm is complete is what the method would find in the part so far.
"""

from __future__ import annotations

import logging
from typing import ClassVar

import numpy as np

from bimix_tune import laws, simplex
from bimix_tune.errors import FitError
from bimix_tune.laws import LawFit
from bimix_tune.simplex import Array
from bimix_tune.strategies.base import Setting, Strategy
from bimix_tune.strategies.random_search import OLMIX_SWARM, REGMIX_SWARM, Swarm

_log = logging.getLogger(__name__)

FEWEST = 1e-12
"""Proportions below it count as it in a divergence."""


class Static(Strategy):
    """The scheme; a subclass names the law and how the swarm is drawn."""

    law: ClassVar[str]
    swarm: ClassVar[Swarm] = REGMIX_SWARM
    kl: ClassVar[float] = 0.0
    """Pull to the natural mixture, ``kl * KL(r || prior)``."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._optima: dict[int, Array] = {}
        self._fits: dict[int, LawFit | None] = {}

    def propose(self) -> Array | None:
        space = self.setting.space
        if len(self.curves) < self._swarm_size:
            return self.swarm.draw(self.rng, space, space.matrix(c.mixture for c in self.curves))
        return self.recommend() if len(self.curves) < self.setting.runs else None

    def choose(self, points: Array) -> int | None:
        if len(self.curves) < self._swarm_size:
            return int(self.rng.integers(len(points)))
        if len(self.curves) >= self.setting.runs:
            return None
        fit = self._fit()
        return super().choose(points) if fit is None else self._best(fit, points)

    def recommend(self) -> Array:
        """The optimum by the swarm."""
        fit, count = self._fit(), self._count
        if fit is None:
            return super().recommend()
        if count not in self._optima:
            points = self.setting.candidates
            self._optima[count] = (
                self.optimum(fit) if points is None else points[self._best(fit, points)]
            )
        return self._optima[count]

    def optimum(self, fit: LawFit) -> Array:
        """The best mixture of the space by a law, (K,)."""
        space, setting = self.setting.space, self.setting
        found = laws.optimise(fit, space, setting.tokens, objective=setting.objective, kl=self.kl)
        return space.array(found)

    def predict(self, fit: LawFit, points: Array) -> Array:
        """What is to be small, (M, K) -> (M,)."""
        value = self.setting.value(fit.predict(points, self.setting.tokens))
        return value + self.kl * _divergence(points, self.setting.space.prior)

    def _best(self, fit: LawFit, points: Array) -> int:
        """Of the best predicted points the nearest to the prior: trees predict many alike."""
        far = _divergence(points, self.setting.space.prior)
        return int(np.lexsort((far, self.predict(fit, points)))[0])

    @property
    def _swarm_size(self) -> int:
        return self.setting.runs - 1

    @property
    def _count(self) -> int:
        """Runs of the swarm so far; the last run of the budget is none of them."""
        return min(len(self.curves), self._swarm_size)

    def _fit(self) -> LawFit | None:
        count = self._count
        if count not in self._fits:
            self._fits[count] = self._fitted(count)
        return self._fits[count]

    def _fitted(self, count: int) -> LawFit | None:
        try:
            return laws.fit(self.curves[:count], self.setting.space, self.law, judge=False)
        except FitError as error:
            _log.warning("law %r cannot be fitted, the best run stands in: %s", self.law, error)
            return None


class RegMix(Static):
    """RegMix (Liu et al., arXiv 2407.01492): boosted trees and a simulation.

    The simulation draws 100 000 mixtures from ``Dir(prior)`` and takes the mean of the best.
    """

    law = "lightgbm"

    draws: ClassVar[int] = 100_000
    best: ClassVar[int] = 128
    """Averaged: `k` of the authors' notebook."""

    def optimum(self, fit: LawFit) -> Array:
        space, rng = self.setting.space, np.random.default_rng(self.setting.seed)
        drawn = simplex.dirichlet(rng, space.prior, 1.0, space.low, space.high, self.draws)
        order = np.argsort(self.predict(fit, drawn), kind="stable")
        return simplex.settle(drawn[order[: self.best]].mean(axis=0), space.low, space.high)


class MixingLaw(Static):
    """Data mixing laws (Ye et al., arXiv 2403.16952), ``L_i = c_i + k_i exp(sum_j t_ij r_j)``.

    The authors' own design is a grid of halved proportions; here it is RegMix's swarm.
    """

    law = "exponential"


class Olmix(Static):
    """OLMix (Chen et al., arXiv 2602.12237): the log-linear law and a pull to the prior."""

    law = "log-linear"
    swarm = OLMIX_SWARM
    kl = 0.05
    """The paper's coefficient, in units of the objective per nat."""


def _divergence(points: Array, prior: Array) -> Array:
    """KL(r || prior) in nats, (M, K) -> (M,)."""
    ratio = np.log(np.maximum(points, FEWEST)) - np.log(np.maximum(prior, FEWEST))
    return np.asarray((points * ratio).sum(axis=1))
