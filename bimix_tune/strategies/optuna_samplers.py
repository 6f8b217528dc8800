"""Optuna's own samplers, each in coordinates in which a mixture is a box of free parameters.

Optuna has no parameters that sum to one. Isometric log-ratios are the best stock coordinates
measured for TPE and CMA-ES, shares over their sum the best for its Gaussian process with few
domains, and ``-log(u)`` normalised is the recipe of Optuna's FAQ.

A run may differ from what was asked for: it is moved into the bounds, or to a candidate. TPE and
the process are then told of the mixture that was really run, as a finished trial of its own, and
the trial asked for counts as failed. CMA-ES learns from trials of its own only, so the value is
told to those; a Sobol sequence learns nothing.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, TPESampler
from optuna.trial import Trial, TrialState

from bimix_tune import simplex
from bimix_tune.curves import LossCurve
from bimix_tune.simplex import Array
from bimix_tune.strategies.base import Setting, Strategy

TINY = 1e-9
"""Keeps logarithms finite and sums positive at the edges of a box."""
SAME = 1e-9
"""Proportions that differ less are what was asked for."""


@dataclass(frozen=True)
class Coordinates:
    """A box and its map to mixtures.

    Args:
        low: Of every coordinate.
        high: Of every coordinate.
        spare: Coordinates less than domains.
        mixture: From coordinates (D,) to proportions (K,).
        inverse: From proportions (K,) to the coordinates (D,) nearest to those asked for (D,);
            where several mean the same mixture, at the scale of those.
    """

    low: float
    high: float
    spare: int
    mixture: Callable[[Array], Array]
    inverse: Callable[[Array, Array], Array]


def _normalised(u: Array) -> Array:
    return np.asarray((u + TINY) / (u + TINY).sum())


def _shares_of(r: Array, asked: Array) -> Array:
    u = r * asked.sum()
    return np.asarray(u / max(1.0, float(u.max())))


def _faq_scale(asked: Array) -> float:
    return float(-np.log(np.clip(asked, TINY, 1.0)).sum())


ILR = Coordinates(-4.0, 4.0, 1, simplex.ilr_inverse, lambda r, asked: simplex.ilr(r))
"""Isometric log-ratios: K-1 coordinates, no share exactly zero."""
SHARE = Coordinates(0.0, 1.0, 0, _normalised, _shares_of)
"""``u / sum(u)``."""
FAQ = Coordinates(
    0.0,
    1.0,
    0,
    lambda u: _normalised(-np.log(np.clip(u, TINY, 1.0))),
    lambda r, asked: np.exp(-r * _faq_scale(asked)),
)
"""``x / sum(x)``, ``x = -log(u)``: Optuna's FAQ, "variables which represent the proportion"."""


class OptunaSearch(Strategy):
    """A study in memory, asked and told."""

    coordinates: ClassVar[Coordinates] = ILR
    own_trials: ClassVar[bool] = False
    """Whether the sampler learns only from trials that it asked for."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        with warnings.catch_warnings():  # some samplers call themselves experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = self.sampler(setting.seed)
        self._study = optuna.create_study(sampler=sampler)
        box = self.coordinates
        count = len(setting.space.names) - box.spare
        self._box: dict[str, BaseDistribution] = {
            f"u{i}": FloatDistribution(box.low, box.high) for i in range(count)
        }
        self._trial: Trial | None = None

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler."""

    def propose(self) -> Array:
        self._trial = self._study.ask(self._box)
        return self.setting.space.fit_in(self._asked(self._trial)).proportions

    def learn(self, curve: LossCurve, complete: bool) -> None:
        trial, space = self._trial, self.setting.space
        assert trial is not None, "a run is asked for before it is told"
        value, run = float(self.setting.values(curve)[-1]), space.array(curve.mixture)
        if self.own_trials or np.abs(run - self._asked(trial)).max() < SAME:
            self._study.tell(trial, value)
            return
        self._study.tell(trial, state=TrialState.FAIL)
        box = self.coordinates
        u = np.clip(box.inverse(run, self._point(trial)), box.low, box.high)
        params = dict(zip(self._box, u.tolist(), strict=True))
        self._study.add_trial(
            optuna.create_trial(params=params, distributions=self._box, value=value)
        )

    def _point(self, trial: Trial) -> Array:
        return np.array([trial.params[name] for name in self._box])

    def _asked(self, trial: Trial) -> Array:
        return self.coordinates.mixture(self._point(trial))


class TpeIlr(OptunaSearch):
    """Optuna's default sampler."""

    def sampler(self, seed: int) -> BaseSampler:
        return TPESampler(seed=seed)


class TpeFaq(TpeIlr):
    """The same by the recipe of the FAQ."""

    coordinates = FAQ


class GpIlr(OptunaSearch):
    """Optuna's Gaussian process."""

    def sampler(self, seed: int) -> BaseSampler:
        return GPSampler(seed=seed)


class GpShare(GpIlr):
    """The same on shares over their sum."""

    coordinates = SHARE


class GpFaq(GpIlr):
    """The same by the recipe of the FAQ."""

    coordinates = FAQ


class CmaEsIlr(OptunaSearch):
    """CMA-ES (Hansen, arXiv 1604.00772)."""

    own_trials = True

    def sampler(self, seed: int) -> BaseSampler:
        return CmaEsSampler(seed=seed, warn_independent_sampling=False)


class QmcIlr(OptunaSearch):
    """A scrambled Sobol sequence: random search, evenly spread."""

    own_trials = True

    def sampler(self, seed: int) -> BaseSampler:
        return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
