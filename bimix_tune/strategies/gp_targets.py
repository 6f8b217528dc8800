"""A Gaussian process for each target on log proportions: the strongest general surrogate measured.

A process that knows the loss of every target ranks mixtures far better than one that knows their
mean only, and ``log(r + eps)`` is the right scale for shares near zero. The objective at a mixture
has the mean and deviation of its values at draws of all losses, whose errors are correlated;
expected improvement follows from the two (Jones et al., 1998, eq. 15). It is judged at all
candidates, or at many random mixtures, closing in on the best.

Matern 5/2 with a length for each domain plus noise, by scikit-learn, as in
`bimix_tune.benchmark.peers`.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import log_ndtr
from scipy.stats import norm

from bimix_tune.simplex import Array
from bimix_tune.strategies.base import Setting, Strategy
from bimix_tune.strategies.designs import design, trial_points

EPS = 1e-3
"""Added to proportions before the logarithm."""
LENGTH = 3.0
"""Where the lengths start, in units of the logarithm."""
CORRELATION = 0.25
"""Of the errors of two targets: a mixture that surprises in one often does in others."""
PAIRS = 16
"""Draws of the losses and as many mirrored ones, the same for all mixtures."""
ROUNDS = 3
"""How often random mixtures are drawn about the best so far."""
CENTRES = 2
"""Mixtures of a round about which the next one draws."""
SMALLEST = 1e-12
"""Deviation below which a value counts as certain, in units of the objective."""


class GpTargets(Strategy):
    """Expected improvement of the objective by processes for its targets."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._design = design(setting.space, setting.runs, setting.seed)
        self._model = lru_cache(maxsize=1)(self._fit)
        targets = len(setting.space.target_names)
        own = self.rng.standard_normal((PAIRS, 1, targets))
        common = self.rng.standard_normal((PAIRS, 1, 1))
        draws = np.sqrt(1.0 - CORRELATION) * own + np.sqrt(CORRELATION) * common
        self._draws = np.concatenate([draws, -draws])

    def propose(self) -> Array:
        count = len(self.curves)
        if count < len(self._design):
            return np.asarray(self._design[count])
        run, best = self._best_run()
        pool, gain, centres = np.empty((0, len(run))), np.empty(0), run[None]
        for _ in range(ROUNDS):
            new = trial_points(self.rng, self.setting.space, centres)
            pool = np.concatenate([pool, new])
            gain = np.concatenate([gain, self._log_gain(new, best)])
            centres = pool[np.argsort(-gain, kind="stable")[:CENTRES]]
        return np.asarray(centres[0])

    def choose(self, points: Array) -> int | None:
        if len(self.curves) < len(self._design):
            return super().choose(points)
        return int(self._log_gain(points, self._best_run()[1]).argmax())

    def recommend(self) -> Array:
        """The run with the best posterior mean."""
        if len(self.curves) < 2:
            return super().recommend()
        return self._best_run()[0]

    def _fit(self, count: int) -> list[Any]:
        """A process for each target, by marginal likelihood."""
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        space, curves = self.setting.space, self.curves[:count]
        x = np.log(space.matrix(c.mixture for c in curves) + EPS)
        ends = [c.final() for c in curves]
        lengths = np.full(x.shape[1], LENGTH)
        kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(lengths, (0.3, 1e3), nu=2.5)
        kernel += WhiteKernel(1e-2, (1e-6, 1.0))
        with warnings.catch_warnings():
            # A length at its bound, an irrelevant domain, is warned about and wanted.
            warnings.simplefilter("ignore")
            return [
                GaussianProcessRegressor(kernel, normalize_y=True).fit(x, [e[name] for e in ends])
                for name in space.target_names
            ]

    def _moments(self, points: Array) -> tuple[Array, Array]:
        """Mean and deviation of the objective, (M, K) -> (M,), (M,)."""
        x = np.log(points + EPS)
        with warnings.catch_warnings():  # a variance that rounding made negative is set to zero
            warnings.simplefilter("ignore")
            found = [p.predict(x, return_std=True) for p in self._model(len(self.curves))]
        mean, deviation = np.stack(found, axis=-1)
        values = self.setting.value(mean + deviation * self._draws)
        return values.mean(axis=0), np.maximum(values.std(axis=0), SMALLEST)

    def _best_run(self) -> tuple[Array, float]:
        """The run with the least posterior mean, (K,), and that mean."""
        r = self.setting.space.matrix(c.mixture for c in self.curves)
        mean = self._moments(r)[0]
        return np.asarray(r[mean.argmin()]), float(mean.min())

    def _log_gain(self, points: Array, best: float) -> Array:
        """``log E max(best - f, 0)``, (M,)."""
        mean, deviation = self._moments(points)
        return np.log(deviation) + _log_h((best - mean) / deviation)


def _log_h(z: Array) -> Array:
    """``log(phi(z) + z Phi(z))``; far below zero by its expansion ``phi(z) / z^2``."""
    low = z < -5.0
    near = np.where(low, 0.0, z)
    exact = np.log(norm.pdf(near) + near * np.exp(log_ndtr(near)))
    far = np.where(low, z, -5.0)
    return np.where(low, norm.logpdf(far) - 2.0 * np.log(-far), exact)
