"""CLIMB (Diao et al., arXiv 2504.13161): rounds of runs among what boosted trees think good.

The first round is a swarm about the natural mixture. Each later one fits trees to the objective of
all runs so far, predicts it for many random mixtures (or all candidates left), and runs some of
the best. What is recommended is the best predicted by all runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from bimix_tune.errors import missing_extra
from bimix_tune.simplex import Array
from bimix_tune.strategies.base import Setting, Strategy
from bimix_tune.strategies.random_search import REGMIX_SWARM

ROUNDS = (4, 2, 1)
"""Parts of the budget: the paper's 64, 32 and 16 runs."""
DRAWS = 10_000
"""Random mixtures that a round chooses from."""
TOP = 0.01
"""Part of them, the best predicted, among which the next run is drawn at random."""
FEWEST_TOP = 5
"""At least, as candidates may be few."""
SETTINGS = {
    "objective": "regression",
    "learning_rate": 0.05,
    "max_depth": 4,
    "min_data_in_leaf": 5,
    "lambda_l1": 0.01,
    "lambda_l2": 0.1,
    "min_data_in_bin": 1,
    "verbosity": -1,
    "num_threads": 1,
    "seed": 0,
}
"""Depth and leaves are the paper's, which also penalises but does not print by how much."""
TREES = 200
"""The paper stops early by held-out runs; so few runs have none to spare."""

Predictor = Callable[[Array], Array]
"""The objective in units of its spread, (M, K) -> (M,)."""


class Climb(Strategy):
    """Three rounds."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._library = _library()
        self._predictor = lru_cache(maxsize=2)(self._fit)
        parts = itertools.accumulate(ROUNDS[:-1])
        self._ends = [round(setting.runs * part / sum(ROUNDS)) for part in parts]

    def propose(self) -> Array:
        if not self._seen:
            space = self.setting.space
            return REGMIX_SWARM.draw(self.rng, space, space.matrix(c.mixture for c in self.curves))
        drawn = self._draws(self.rng)
        return np.asarray(drawn[self._one_of_the_best(drawn)])

    def choose(self, points: Array) -> int:
        if not self._seen:
            return int(self.rng.integers(len(points)))
        return self._one_of_the_best(points)

    def recommend(self) -> Array:
        points = self.setting.candidates
        if points is None:
            points = self._draws(np.random.default_rng(self.setting.seed))
        return np.asarray(points[self._predictor(len(self.curves))(points).argmin()])

    @property
    def _seen(self) -> int:
        """Runs that the predictor of this round knows: those of the rounds before."""
        return max((end for end in self._ends if end <= len(self.curves)), default=0)

    def _draws(self, rng: np.random.Generator) -> Array:
        return REGMIX_SWARM.many(rng, self.setting.space, DRAWS)

    def _one_of_the_best(self, points: Array) -> int:
        count = min(max(FEWEST_TOP, round(TOP * len(points))), len(points))
        # Trees predict many points alike: in random order no place in the list is favoured.
        order = self.rng.permutation(len(points))
        best = np.argsort(self._predictor(self._seen)(points[order]), kind="stable")[:count]
        return int(order[self.rng.choice(best)])

    def _fit(self, count: int) -> Predictor:
        """Trees for the objective of the first runs."""
        setting = self.setting
        curves = self.curves[:count]
        y = np.array([setting.values(c)[-1] for c in curves])
        y = (y - y.mean()) / (y.std() or 1.0)
        data = self._library.Dataset(setting.space.matrix(c.mixture for c in curves), label=y)
        booster = self._library.train(SETTINGS, data, TREES)
        return lambda points: np.asarray(booster.predict(points, num_threads=1))


def _library() -> Any:
    if importlib.util.find_spec("lightgbm") is None:
        raise missing_extra("lightgbm", "benchmark", "strategy 'climb'")
    return importlib.import_module("lightgbm")
