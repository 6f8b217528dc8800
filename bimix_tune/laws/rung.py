"""One rung of the ladder: a law with its coordinates, alone or as the mean of a process.

The run-level model of target v, with the law's coordinates theta about their prior,

    log L = law(theta) + g(r) + e,   theta ~ N(m, S),   g ~ GP(0, k),   e ~ N(0, noise / weight),

is fitted in two steps: `fitting.estimate` gives theta and the pooled prior; if there is a kernel,
its hyperparameters follow by evidence, with the law linearised there, and theta again by least
squares weighted by the inverse covariance of g + e. Without a kernel g = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bimix_tune.laws import least_squares
from bimix_tune.laws.base import Law, log_loss
from bimix_tune.laws.fitting import Estimate, rows
from bimix_tune.laws.kernel import JITTER, Kernel, fit_kernel
from bimix_tune.laws.observations import Observations
from bimix_tune.laws.surface import Process, Shape, Waves
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

LEAST_WEIGHT = 1e-6
"""In place of zero for a missing loss."""
REFIT_STEPS = 30
"""Levenberg-Marquardt steps of a fit that starts near its end."""
DRAW_STEPS = 8
WAVES = 128
"""Random features of a draw of the process."""


@dataclass(frozen=True, eq=False)
class Rung:
    """A fitted law, and a process about it or none.

    Args:
        law: The law.
        space: Domains and targets.
        seen: The runs.
        estimate: The coordinates with their prior, and the noise.
        kernel: Of the process, or None.
    """

    law: Law
    space: SearchSpace
    seen: Observations
    estimate: Estimate
    kernel: Kernel | None

    @property
    def name(self) -> str:
        """Of the law, marked if a process stands on it."""
        return self.law.name + ("" if self.kernel is None else " + process")

    @cached_property
    def noise(self) -> Array:
        """Variance of one run's log losses, (V,)."""
        return self.estimate.noise if self.kernel is None else np.exp(2.0 * self.kernel.noise)

    @cached_property
    def shape(self) -> Shape:
        """The most probable surface."""
        theta = self.estimate.theta
        return Shape(self.law, self.space, theta, self._process(self.seen.log_loss, theta))

    @cached_property
    def _spread(self) -> Array:
        """Variance of each run's noise, (V, R)."""
        weight = self.estimate.weight[:, : len(self.seen.r)]
        factor = self.noise_factor(self.seen.r)
        return np.asarray(self.noise[:, None] * factor / np.maximum(weight, LEAST_WEIGHT))

    def noise_factor(self, r: Array) -> Array:
        """Variance of a run's noise at mixtures over `noise`, (M, K) -> (M,)."""
        return np.ones(len(r)) if self.kernel is None else self.kernel.noise_factor(r)

    @cached_property
    def _covariance(self) -> Array:
        """Of g + e at the runs, (V, R, R)."""
        v, n = self._spread.shape
        q = np.zeros((v, n, n)) if self.kernel is None else self.kernel(self.seen.r, self.seen.r)
        at = np.arange(n)
        q[:, at, at] += self._spread + JITTER * q[:, at, at]
        return q

    @cached_property
    def _at_runs(self) -> tuple[Array, Array]:
        """The law's log losses (V, R) and their derivatives by the coordinates (V, R, P)."""
        return self._law_at(self.estimate.theta)

    def _law_at(self, theta: Array) -> tuple[Array, Array]:
        seen = self.seen
        t = seen.tokens / seen.reference
        return log_loss(self.law, theta, self.space, seen.r, t, seen.decayed)

    def _process(self, y: Array, theta: Array) -> Process | None:
        """The process that meets log losses (V, R) together with a law."""
        if self.kernel is None:
            return None
        left = (y - self._law_at(theta)[0])[..., None]
        weights = np.linalg.solve(self._covariance, left)[..., 0]
        return Process(self.kernel, self.seen.r, np.asarray(weights))

    @cached_property
    def _inverse(self) -> Array:
        """Of the covariance of all that is uncertain at the runs, the law linearised, (V, R, R)."""
        tangent = _tangent(self._at_runs[1], self.estimate.prior.sd)
        return np.asarray(np.linalg.inv(tangent + self._covariance))

    def left_out(self) -> Array:
        """Log losses of the runs as predicted without their mixture, linearised, (V, R).

        ``y_g - (C^-1_gg)^-1 (C^-1 z)_g`` for the runs g of one mixture (Rasmussen and Williams
        2006, eq. 5.12, for groups), hyperparameters kept.
        """
        value, jacobian = self._at_runs
        offset = self.estimate.theta - self.estimate.prior.mean
        z = self.seen.log_loss - value + (jacobian @ offset[..., None])[..., 0]
        solved = (self._inverse @ z[..., None])[..., 0]
        out = np.empty_like(z)
        for group in range(self.seen.mixtures):
            runs = np.flatnonzero(self.seen.group == group)
            block = self._inverse[:, runs][:, :, runs]
            out[:, runs] = np.linalg.solve(block, solved[:, runs, None])[..., 0]
        return np.asarray(self.seen.log_loss - out)

    def variance(self, r: Array, t: Array, decayed: Array) -> Array:
        """Of the surface at mixtures (M, K), without the noise of a run, (V, M)."""
        sd = self.estimate.prior.sd
        _, jacobian = log_loss(self.law, self.estimate.theta, self.space, r, t, decayed)
        cross = (jacobian * sd[:, None, :] ** 2) @ np.swapaxes(self._at_runs[1], -1, -2)
        total = ((jacobian * sd[:, None, :]) ** 2).sum(-1)
        if self.kernel is not None:
            cross = cross + self.kernel(r, self.seen.r)
            total = total + np.exp(2.0 * self.kernel.size)[:, None]
        return np.asarray(np.maximum(total - ((cross @ self._inverse) * cross).sum(-1), 0.0))

    def draw(self, rng: np.random.Generator, noise: Array) -> Shape:
        """A surface from the posterior: a fit to perturbed data about a perturbed prior.

        "Randomise then optimise" (Bardsley et al. 2014); with a process, a draw from its prior
        is taken off the data first (Matheron's rule; Wilson et al. 2020, arXiv 2002.09309).

        Args:
            rng: Source of randomness.
            noise: Covariance of the targets' log losses of one run, (V, V).
        """
        seen, prior = self.seen, self.estimate.prior
        scale = np.sqrt(self._spread / np.diagonal(noise)[:, None])
        errors = np.linalg.cholesky(noise) @ rng.standard_normal(self._spread.shape)
        y = seen.log_loss + errors * scale
        waves = None if self.kernel is None else _waves(self.kernel, rng)
        if waves is not None:
            y = y - waves(seen.r)
        centre = prior.mean + prior.sd * rng.standard_normal(prior.mean.shape)
        centre = np.where(prior.squares, np.abs(centre), centre)
        theta = self._refit(y, centre, self.law.start(self.estimate.theta, self.space), DRAW_STEPS)
        return Shape(self.law, self.space, theta, self._process(y, theta), waves)

    def _refit(self, y: Array, centre: Array, start: Array, steps: int) -> Array:
        """Coordinates by least squares weighted by the inverse covariance of g + e.

        Args:
            y: Log losses of the runs, (V, R).
            centre: Of the prior, (V, P).
            start: First coordinates.
            steps: Levenberg-Marquardt steps.
        """
        problem = rows(self.law, self.space, self.seen)
        n = len(self.seen.r)
        whiten = np.linalg.inv(np.linalg.cholesky(self._covariance))
        falls = np.sqrt(problem.weight[:, n:] / self.noise[:, None])

        def white(value: Array) -> Array:
            return np.concatenate([whiten @ value[:, :n], falls[..., None] * value[:, n:]], axis=1)

        def predict(theta: Array) -> tuple[Array, Array]:
            value, jacobian = problem.predict(theta)
            return white(value[..., None])[..., 0], white(jacobian)

        whole = np.concatenate([y, problem.y[:, n:]], axis=1)
        solution = least_squares.solve(
            predict,
            white(whole[..., None])[..., 0],
            np.ones_like(whole),
            centre,
            1.0 / self.estimate.prior.sd**2,
            start,
            self.estimate.prior.squares,
            steps,
            tolerance=1e-4,
        )
        return solution.theta


def with_process(
    law: Law, space: SearchSpace, seen: Observations, alone: Estimate, before: Kernel | None = None
) -> Rung:
    """A process on a law that was fitted alone.

    Args:
        law: The law.
        space: Domains and targets.
        seen: The runs.
        alone: The law's own estimate.
        before: A kernel fitted to nearly the same runs, to begin with.
    """
    t = seen.tokens / seen.reference
    value, jacobian = log_loss(law, alone.theta, space, seen.r, t, seen.decayed)
    offset = alone.theta - alone.prior.mean
    z = seen.log_loss - value + (jacobian @ offset[..., None])[..., 0]
    weight = np.maximum(alone.weight[:, : len(seen.r)], LEAST_WEIGHT)
    kernel = fit_kernel(seen.r, z, _tangent(jacobian, alone.prior.sd), weight, before)
    rung = Rung(law, space, seen, alone, kernel)
    theta = rung._refit(seen.log_loss, alone.prior.mean, alone.theta, REFIT_STEPS)
    moved = Estimate(theta, alone.prior, alone.noise, alone.weight, alone.converged)
    return Rung(law, space, seen, moved, kernel)


def _tangent(jacobian: Array, sd: Array) -> Array:
    """Covariance that the prior of the coordinates gives log losses, (V, R, R)."""
    scaled = jacobian * sd[:, None, :]
    return np.asarray(scaled @ np.swapaxes(scaled, -1, -2))


def _waves(kernel: Kernel, rng: np.random.Generator) -> Waves:
    v, k = kernel.scale.shape
    # A Matern 5/2 kernel has Student's t with five degrees of freedom as spectral density.
    tail = np.sqrt(5.0 / rng.chisquare(5.0, (v, WAVES, 1)))
    frequency = rng.standard_normal((v, WAVES, k)) * tail * np.exp(0.5 * kernel.scale)[:, None, :]
    height = np.exp(kernel.size)[:, None] * np.sqrt(2.0 / WAVES) * rng.standard_normal((v, WAVES))
    return Waves(kernel, frequency, rng.uniform(0.0, 2.0 * np.pi, (v, WAVES)), height)
