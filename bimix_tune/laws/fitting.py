"""Fitting a law to the runs: empirical Bayes around least squares.

The most probable coordinates under normal priors and noise are a penalised least-squares
problem per target. Around it a few rounds estimate what it needs: the noise of each target,
weights that tame an outlying run (Student's t, as in Lange et al. 1989), and the pooled
priors (MacKay 1992's evidence framework: a pool's mean and spread from its members). Priors
weigh noise^2 / spread^2, so they vanish as the noise does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bimix_tune.laws import least_squares
from bimix_tune.laws.base import BASE, DELTA, LEVEL, Law, Prior, growth, log_loss
from bimix_tune.laws.least_squares import Model
from bimix_tune.laws.observations import TYPICAL_NOISE, Observations
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

ROUNDS = 12
FEWEST_ROUNDS = 3
SETTLED = 0.05
"""Change of the log variance of the noise that ends the rounds."""
STEPS = 60
LARGE_ROUNDS, LARGE_STEPS = 4, 12
"""The same for problems of several blocks, a thousand domains say, where a step takes a second."""
PRECISE = 1e-6
"""Relative decrease of the cost that ends a least-squares problem of a round."""
BATCH_FLOATS = 16_000_000
"""Size of the derivatives of one block of targets (128 MB)."""
ALL = slice(None)
NU = 5.0
"""Degrees of freedom of Student's t: a run five sigma off keeps a fifth of its weight."""
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
        weight: Weights of runs and falls with the robust factor, (V, N).
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


class Rows(NamedTuple):
    """A law at what was observed, as a least-squares problem: the runs, and below them the falls.

    Args:
        predict: Log losses and their derivatives by the coordinates of V targets.
        y: (V, N).
        weight: (V, N).
    """

    predict: Model
    y: Array
    weight: Array


def rows(law: Law, space: SearchSpace, seen: Observations, targets: slice = ALL) -> Rows:
    """The problem of some targets, which ``space`` has alone."""
    falls = seen.falls
    t, decayed = seen.tokens[targets] / seen.reference, seen.decayed[targets]
    early, late = falls.tokens / seen.reference, falls.end_tokens / seen.reference

    def predict(theta: Array) -> tuple[Array, Array]:
        value, jacobian = log_loss(law, theta, space, seen.r, t, decayed)
        before, by_before = growth(theta[..., :BASE], early, falls.decayed)
        after, by_after = growth(theta[..., :BASE], late, falls.end_decayed)
        rest = np.zeros((*before.shape, theta.shape[-1]))
        rest[..., :BASE] = by_before - by_after
        joined = np.concatenate([value, before - after], axis=-1)
        return joined, np.concatenate([jacobian, rest], axis=-2)

    y = np.concatenate([seen.log_loss[targets], falls.value[targets]], axis=1)
    weight = np.concatenate([seen.weight[targets], falls.weight[targets]], axis=1)
    return Rows(predict, y, weight)


def blocks(space: SearchSpace, rows: int, size: int) -> Iterator[tuple[slice, SearchSpace]]:
    """Targets in blocks whose derivatives, rows x size each, fit in memory."""
    step = max(1, BATCH_FLOATS // max(rows * size, 1))
    if step >= len(space.targets):
        yield ALL, space
        return
    for first in range(0, len(space.targets), step):
        part = slice(first, first + step)
        targets = [dataclasses.replace(t, weight=1.0) for t in space.targets[part]]
        yield part, SearchSpace(space.domains, targets)


def estimate(
    law: Law, seen: Observations, space: SearchSpace, before: Estimate | None = None
) -> Estimate:
    """Fit one law to the observations.

    Args:
        law: The law.
        seen: What it is fitted to.
        space: Domains and targets.
        before: An estimate from nearly the same observations, to begin with.
    """
    first = _anchored(law.prior(space), seen)
    prior = first if before is None else _anchored(before.prior, seen)
    theta = prior.mean if before is None else before.theta
    plain = np.concatenate([seen.weight, seen.falls.weight], axis=1)
    noise = np.full(len(theta), (3.0 * TYPICAL_NOISE) ** 2) if before is None else before.noise
    robust = np.ones_like(plain)
    large = theta.size * plain.shape[1] > BATCH_FLOATS
    rounds, steps = (LARGE_ROUNDS, LARGE_STEPS) if large else (ROUNDS, STEPS)
    for round_ in range(rounds):
        weight = plain * robust
        start = law.start(theta, space)
        found = _solved(law, seen, space, Estimate(start, prior, noise, weight, True), steps)
        theta, residual, variance, converged = found
        result = Estimate(theta, prior, noise, weight, converged)
        last = noise
        noise = _noise(residual, weight, plain, 1.0 - variance / prior.sd**2)
        settled = np.all(np.abs(np.log(noise / last)) < SETTLED)
        if settled and (round_ >= FEWEST_ROUNDS or before is not None):
            break
        robust[:, : seen.r.shape[0]] = _robust(residual[:, : seen.r.shape[0]], seen, noise)
        prior = _pooled(first, prior, theta, variance)
    return result


def _solved(
    law: Law, seen: Observations, space: SearchSpace, now: Estimate, steps: int
) -> tuple[Array, Array, Array, bool]:
    """Coordinates, residuals (V, N) and variances (V, P) at given noise, weights and prior."""
    theta, variance = np.empty_like(now.theta), np.empty_like(now.theta)
    residual = np.empty_like(now.weight)
    converged = True
    squares = now.prior.squares
    for part, some in blocks(space, residual.shape[1], theta.shape[1]):
        problem = rows(law, some, seen, part)
        mean, precision = now.prior.mean[part], now.precision[part]
        weight = now.weight[part]
        start = now.theta[part]
        solution = least_squares.solve(
            problem.predict, problem.y, weight, mean, precision, start, squares, steps, PRECISE
        )
        f, jacobian = problem.predict(solution.theta)
        theta[part], residual[part] = solution.theta, problem.y - f
        _, a, diagonal = least_squares.normal(
            jacobian, residual[part], np.sqrt(weight), theta[part], mean, precision, squares
        )
        inverse = least_squares.inverse_diagonal(a, diagonal)
        variance[part] = inverse * now.noise[part, None]
        converged &= solution.converged
    return theta, residual, variance, converged


def _anchored(prior: Prior, seen: Observations) -> Prior:
    """The prior about the mean log loss; what the data cannot show is held where it is."""
    mean, sd = prior.mean.copy(), prior.sd.copy()
    mean[:, LEVEL] = (seen.weight * seen.log_loss).sum(1) / np.maximum(seen.weight.sum(1), 1e-300)
    decayed = np.concatenate([seen.decayed.ravel(), seen.falls.decayed, seen.falls.end_decayed])
    if decayed.all() or not decayed.any():
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
    squares = seen.weight * residual**2 / noise[:, None]
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
