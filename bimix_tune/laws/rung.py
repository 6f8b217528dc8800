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
from scipy.linalg.lapack import dtrtri

from bimix_tune.laws import least_squares
from bimix_tune.laws.base import Law, log_loss
from bimix_tune.laws.fitting import Estimate, Rows, rows
from bimix_tune.laws.kernel import JITTER, Kernel, fit_kernel
from bimix_tune.laws.observations import Observations
from bimix_tune.laws.surface import Process, Shape, Waves
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

LEAST_WEIGHT = 1e-6
"""In place of zero for a missing loss."""
REFIT_STEPS = 30
"""Levenberg-Marquardt steps of a fit that starts near its end."""
DRAW_STEPS = 12
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

    def noise_factor(self, r: Array) -> Array:
        """Variance of a run's noise at mixtures over `noise`, (M, K) -> (M,)."""
        return np.ones(len(r)) if self.kernel is None else self.kernel.noise_factor(r)

    @cached_property
    def _spread(self) -> Array:
        """Variance of the noise of runs and, below them, falls, (V, N)."""
        spread = self.noise[:, None] / np.maximum(self.estimate.weight, LEAST_WEIGHT)
        spread[:, : self._runs] *= self.noise_factor(self.seen.r)
        return np.asarray(spread)

    @property
    def _runs(self) -> int:
        return len(self.seen.r)

    @cached_property
    def _rows(self) -> Rows:
        return rows(self.law, self.space, self.seen)

    @cached_property
    def _whiten(self) -> Array:
        """W with ``W^T W`` the inverse of the covariance of g + e at runs and falls, (V, N, N)."""
        v, n = self._spread.shape
        q, some, at = np.zeros((v, n, n)), self._runs, np.arange(n)
        if self.kernel is None:
            q[:, at, at] = 1.0 / np.sqrt(self._spread)
            return q
        q[:, :some, :some] = self.kernel(self.seen.r, self.seen.r)
        q[:, at, at] += self._spread + JITTER * q[:, at, at]
        return np.stack([dtrtri(root, lower=1)[0] for root in np.linalg.cholesky(q)])

    @cached_property
    def _at_rows(self) -> tuple[Array, Array]:
        """The law at runs and falls (V, N), and its derivatives by the coordinates (V, N, P)."""
        return self._rows.predict(self.estimate.theta)

    def _process(self, y: Array, theta: Array) -> Process | None:
        """The process that meets log losses (V, R) together with a law."""
        if self.kernel is None:
            return None
        left = y - self._rows.predict(theta)[0][:, : self._runs]
        whiten = self._whiten[:, : self._runs, : self._runs]
        weights = whiten.mT @ (whiten @ left[..., None])
        return Process(self.kernel, self.seen.r, np.asarray(weights[..., 0]))

    def left_out(self) -> Array:
        """Log losses of the runs as predicted without their mixture, linearised, (V, R).

        ``y_g - (C^-1_gg)^-1 (C^-1 z)_g`` for the runs g of one mixture (Rasmussen and Williams
        2006, eq. 5.12, for groups), hyperparameters kept; C is the covariance of all that is
        uncertain, the law linearised.
        """
        value, jacobian = self._at_rows
        offset = self.estimate.theta - self.estimate.prior.mean
        z = self._rows.y - value + (jacobian @ offset[..., None])[..., 0]
        a = (self._whiten @ jacobian) * self.estimate.prior.sd[:, None, :]
        inner = _shrunk(a, self._whiten)  # C^-1 is whiten^T inner
        solved = (self._whiten.mT @ (inner @ z[..., None]))[..., 0][:, : self._runs]
        out = solved / (self._whiten * inner).sum(axis=1)[:, : self._runs]
        for group in np.flatnonzero(np.bincount(self.seen.group) > 1):
            runs = np.flatnonzero(self.seen.group == group)
            block = self._whiten[:, :, runs].mT @ inner[:, :, runs]
            out[:, runs] = np.linalg.solve(block, solved[:, runs, None])[..., 0]
        return np.asarray(self.seen.log_loss - out)

    def variance(self, r: Array, t: Array, decayed: Array) -> Array:
        """Of the surface at mixtures (M, K), without the noise of a run, (V, M).

        That of the process at known coordinates, and what their uncertainty adds (Rasmussen and
        Williams 2006, eq. 2.42), with the law linearised.
        """
        _, c = log_loss(self.law, self.estimate.theta, self.space, r, t, decayed)
        a = self._whiten @ self._at_rows[1]
        total = np.zeros(c.shape[:2])
        if self.kernel is not None:
            whiten = self._whiten[:, :, : self._runs]
            cross = self.kernel(r, self.seen.r) @ whiten.mT  # (V, M, N)
            total = np.exp(2.0 * self.kernel.size)[:, None] - (cross**2).sum(-1)
            c = c - cross @ a
        total = total + least_squares.quadratic(a, 1.0 / self.estimate.prior.sd**2, c)
        return np.asarray(np.maximum(total, 0.0))

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
        y = self._rows.y + errors * scale
        waves = None if self.kernel is None else _waves(self.kernel, rng)
        if waves is not None:
            y[:, : self._runs] -= waves(seen.r)
        centre = prior.mean + prior.sd * rng.standard_normal(prior.mean.shape)
        centre = np.where(prior.squares, np.abs(centre), centre)
        theta = self._refit(y, centre, self.law.start(self.estimate.theta, self.space), DRAW_STEPS)
        process = self._process(y[:, : self._runs], theta)
        return Shape(self.law, self.space, theta, process, waves)

    def _refit(self, y: Array, centre: Array, start: Array, steps: int) -> Array:
        """Coordinates by least squares weighted by the inverse covariance of g + e.

        Args:
            y: Log losses of the runs and their falls, (V, N).
            centre: Of the prior, (V, P).
            start: First coordinates.
            steps: Levenberg-Marquardt steps.
        """

        def predict(theta: Array) -> tuple[Array, Array]:
            value, jacobian = self._rows.predict(theta)
            return (self._whiten @ value[..., None])[..., 0], self._whiten @ jacobian

        solution = least_squares.solve(
            predict,
            (self._whiten @ y[..., None])[..., 0],
            np.ones_like(y),
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
    theta = rung._refit(rung._rows.y, alone.prior.mean, alone.theta, REFIT_STEPS)
    moved = Estimate(theta, alone.prior, alone.noise, alone.weight, alone.converged)
    found = Rung(law, space, seen, moved, kernel)
    vars(found)["_whiten"] = rung._whiten  # of kernel and weights, not of the coordinates
    return found


def _shrunk(a: Array, b: Array) -> Array:
    """``(I + A A^T)^-1 B``, (..., N, P) and (..., N, M) -> (..., N, M).

    With fewer columns than rows, from ``A = U S V^T``: what lies along U is divided by 1 + S^2.
    """
    n, p = a.shape[-2:]
    if p >= n:
        return np.asarray(np.linalg.solve(np.eye(n) + a @ a.mT, b))
    u, size, _ = np.linalg.svd(a, full_matrices=False)
    along = u.mT @ b
    return np.asarray(b - u @ along + u @ (along / (1.0 + size**2)[..., None]))


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
