"""Fitting a law to all checkpoints of all runs: empirical Bayes around least squares.

The most probable coordinates under normal priors and noise are a penalised least-squares
problem per target. Around it a few rounds estimate what it needs: the noise of each target,
weights that tame an outlying run (Student's t, as in Lange et al. 1989), and the pooled
priors (MacKay 1992's evidence framework: a pool's mean and spread from its members). Priors
weigh noise^2 / spread^2, so they vanish as the noise does.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from bimix_tune.laws import least_squares
from bimix_tune.laws.base import DELTA, LEVEL, Law, Prior
from bimix_tune.laws.least_squares import Model
from bimix_tune.laws.observations import Observations
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

ROUNDS = 12
NU = 5.0
"""Degrees of freedom of Student's t: a run five sigma off keeps a fifth of its weight."""
TYPICAL_NOISE = 0.01
"""Relative noise of a run's loss, used where too few runs are there to estimate it."""
LEAST_NOISE = 1e-7
POOL_STRENGTH = 3.0
"""Targets that a pool's prior spread counts for."""
POOL_MEAN_SD = 1.0


@dataclass(frozen=True, eq=False)
class Estimate:
    """The most probable coordinates and what they were found with.

    Args:
        theta: Coordinates, (V, P).
        prior: The prior after pooling.
        noise: Variance of one run's log loss, (V,).
        weight: Weights of checkpoints with the robust factor, (V, N).
        converged: Whether the last least-squares problem converged.
    """

    theta: Array
    prior: Prior
    noise: Array
    weight: Array
    converged: bool

    @property
    def precision(self) -> Array:
        """Penalty factors in units of the squared residuals, (V, P)."""
        return self.noise[:, None] / self.prior.sd**2


def model(law: Law, space: SearchSpace, seen: Observations) -> Model:
    """The law at the checkpoints seen."""
    t = seen.tokens / seen.reference
    return lambda theta: law.log_loss(theta, space, seen.r, t, seen.decayed)


def estimate(law: Law, seen: Observations, space: SearchSpace) -> Estimate:
    """Fit one law to the observations."""
    predict = model(law, space, seen)
    prior = start = _anchored(law.prior(space), seen)
    theta = start.mean
    noise = np.full(len(theta), (3.0 * TYPICAL_NOISE) ** 2)
    robust = np.ones((len(theta), len(seen.last)))
    for round_ in range(ROUNDS):
        weight = seen.weight * robust[:, seen.run]
        precision = noise[:, None] / prior.sd**2
        solution = least_squares.solve(
            predict,
            seen.log_loss,
            weight,
            prior.mean,
            precision,
            law.start(theta, space),
            prior.squares,
            60,
        )
        theta = solution.theta
        f, jacobian = predict(theta)
        residual = seen.log_loss - f
        hessian = least_squares.normal(
            jacobian, residual, weight, theta, prior.mean, precision, prior.squares
        )[1]
        variance = np.diagonal(np.linalg.inv(hessian), axis1=-2, axis2=-1) * noise[:, None]
        result = Estimate(theta, prior, noise, weight, solution.converged)
        before = noise
        noise = _noise(residual, weight, seen.weight, 1.0 - variance / prior.sd**2)
        if round_ >= 3 and np.all(np.abs(np.log(noise / before)) < 0.05):
            break
        robust = _robust(residual, seen, noise)
        prior = _pooled(start, prior, theta, variance)
    return result


def _anchored(prior: Prior, seen: Observations) -> Prior:
    """The prior about the mean log loss; what the data cannot show is held where it is."""
    mean, sd = prior.mean.copy(), prior.sd.copy()
    mean[:, LEVEL] = (seen.weight * seen.log_loss).sum(1) / seen.weight.sum(1)
    if seen.decayed.all() or not seen.decayed.any():
        mean[:, DELTA], sd[:, DELTA] = 0.0, 1e-3
    return dataclasses.replace(prior, mean=mean, sd=sd)


def _noise(residual: Array, weight: Array, plain: Array, determined: Array) -> Array:
    """Variance per target from its squares over its degrees of freedom, shrunk to the mean.

    Where all targets together leave less than a degree of freedom each, `TYPICAL_NOISE`
    fills the gap.
    """
    squares = (weight * residual**2).sum(1)
    freedom = np.maximum(plain.sum(1) - np.clip(determined, 0.0, 1.0).sum(1), 0.0)
    gap = max(len(squares) - freedom.sum(), 0.0)
    pooled = (squares.sum() + gap * TYPICAL_NOISE**2) / (freedom.sum() + gap)
    noise = (squares + POOL_STRENGTH * pooled) / (freedom + POOL_STRENGTH)
    return np.asarray(np.maximum(noise, LEAST_NOISE**2))


def _robust(residual: Array, seen: Observations, noise: Array) -> Array:
    """Student weights of the runs, (V, R)."""
    starts = np.flatnonzero(np.diff(seen.run, prepend=-1))
    squares = np.add.reduceat(seen.weight * residual**2, starts, axis=1) / noise[:, None]
    return np.asarray((NU + 1.0) / (NU + squares))


def _pooled(start: Prior, prior: Prior, theta: Array, variance: Array) -> Prior:
    """One step of expectation-maximisation for the mean and spread of every pool."""
    mean, sd = prior.mean.copy(), prior.sd.copy()
    for label, free in enumerate(start.free_mean):
        members = start.groups == label
        count = members.sum()
        if not count:
            continue
        centre, spread = start.mean[members][0], start.sd[members][0]
        if free:
            pull = (sd[members][0] / POOL_MEAN_SD) ** 2
            centre = (pull * centre + theta[members].sum()) / (pull + count)
        scatter = ((theta[members] - centre) ** 2 + variance[members]).sum()
        mean[members] = centre
        sd[members] = np.sqrt((POOL_STRENGTH * spread**2 + scatter) / (POOL_STRENGTH + count))
    return dataclasses.replace(prior, mean=mean, sd=sd)
