"""The ladder: several rungs fitted to the same runs, blended by how well they predict.

The weight of a rung falls with its squared error on mixtures left out, the more the more runs. A
blend of unlike models beats each of them at every number of runs on all published runs tried: the
plain law is stiff and right where runs are few, processes follow what it misses where they are
many, and they err in different ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bimix_tune.laws.base import Law
from bimix_tune.laws.coefficients import coefficients
from bimix_tune.laws.fitting import Estimate, estimate
from bimix_tune.laws.observations import Observations
from bimix_tune.laws.rung import Rung, with_process
from bimix_tune.laws.surface import Blend
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

TYPICAL_CORRELATION = 0.25
"""Mean correlation of two targets' errors, seen on ten published sets of runs."""
CORRELATION_STRENGTH = 10.0
"""Runs that the typical correlation counts for."""
OUTLIER = 3.0
"""Errors beyond so many of their standard deviations are pulled in."""
SHARPER_RUNS = 64.0
"""Weights are inverse squared errors to a power that grows by one with so many runs: it becomes
surer which rung is best (with 256 runs of 17 domains no blend beats the best rung)."""
LEAST_ERROR = 1e-12
"""Sum of squares below which rungs are equally good."""


class Step(NamedTuple):
    """What a rung is made of: a law, and whether a process stands on it."""

    law: Law
    process: bool

    @property
    def name(self) -> str:
        """As `Rung.name`."""
        return self.law.name + (" + process" if self.process else "")


@dataclass(frozen=True, eq=False)
class Ladder:
    """Fitted rungs and their weights.

    Args:
        rungs: At least one.
        weights: Of each for every target, summing to one, (m, V).
        noise: Covariance of the targets' log losses of one run, (V, V).
    """

    rungs: tuple[Rung, ...]
    weights: Array
    noise: Array

    @property
    def surface(self) -> Blend:
        """The most probable surface."""
        return Blend(tuple(r.shape for r in self.rungs), self.weights)

    def variance(self, r: Array, t: Array, decayed: Array) -> Array:
        """Of the surface at mixtures (M, K), without the noise of a run, (V, M).

        That of the rungs, and the spread between them, as of a mixture of models.
        """
        values = np.stack([rung.shape.log_loss(r, t, decayed) for rung in self.rungs])
        weights = self.weights[:, :, None]
        spread = (weights * (values - (weights * values).sum(0)) ** 2).sum(0)
        own = np.stack([rung.variance(r, t, decayed) for rung in self.rungs])
        return np.asarray(spread + (weights * own).sum(0))

    def noise_factor(self, r: Array) -> Array:
        """Variance of a run's noise at mixtures over `noise`, (M, K) -> (V, M)."""
        return np.asarray(self.weights.T @ np.stack([rung.noise_factor(r) for rung in self.rungs]))

    def shares(self, weights: Array) -> dict[str, float]:
        """Each rung's part in the prediction of the objective; target weights (V,)."""
        parts = self.weights @ weights
        return {r.name: float(w) for r, w in zip(self.rungs, parts, strict=True)}

    def parameters(self, reference: float) -> dict[str, dict[str, Any]]:
        """Coefficients of the first rung, `bimix_tune.laws.coefficients`; s_ref in tokens."""
        rung = self.rungs[0]
        return coefficients(rung.law, rung.space, rung.estimate.theta, reference)

    def draw(self, rng: np.random.Generator) -> Blend:
        """A surface from the posterior: the blend, off by as much as a draw of one rung is off it.

        The rung is chosen by its weight. A blend of draws of all rungs would scatter less than
        the rungs do, as their errors would partly cancel.
        """
        chosen = int(rng.choice(len(self.rungs), p=self.weights.mean(axis=1)))
        rung = self.rungs[chosen]
        shapes = (*self.surface.shapes, rung.draw(rng, self.noise))
        weights = np.vstack([self.weights, np.ones(self.weights.shape[1])])
        weights[chosen] -= 1.0
        used = np.flatnonzero(np.any(weights != 0.0, axis=1))
        return Blend(tuple(shapes[i] for i in used), weights[used])


def climb(
    steps: Sequence[Step], seen: Observations, space: SearchSpace, before: Ladder | None = None
) -> Ladder:
    """Fit the rungs and weigh them.

    Args:
        steps: The rungs.
        seen: The runs.
        space: Domains and targets.
        before: A ladder of nearly the same runs, to begin with.
    """
    known = {r.name: r for r in before.rungs} if before is not None else {}
    alone: dict[str, Estimate] = {}
    for step in steps:
        if step.law.name not in alone:
            last = next((r for r in known.values() if r.law.name == step.law.name), None)
            start = None if last is None else last.estimate
            alone[step.law.name] = estimate(step.law, seen, space, start)
    rungs = []
    for step in steps:
        fitted = alone[step.law.name]
        if step.process:
            last = known.get(step.name)
            kernel = None if last is None else last.kernel
            rungs.append(with_process(step.law, space, seen, fitted, kernel))
        else:
            rungs.append(Rung(step.law, space, seen, fitted, None))
    return _blended(rungs, seen, space)


def _blended(rungs: Sequence[Rung], seen: Observations, space: SearchSpace) -> Ladder:
    left = np.stack([seen.log_loss - rung.left_out() for rung in rungs])
    known = np.stack([r.estimate.weight[:, : len(seen.r)] for r in rungs]).min(axis=0)
    weights = _weights((known * left**2).sum(2), len(seen.r), space)
    residual = (weights[:, :, None] * left).sum(0)
    variance = (weights * np.stack([r.noise for r in rungs])).sum(0)
    return Ladder(tuple(rungs), weights, covariance(residual, known, variance))


def _weights(errors: Array, runs: int, space: SearchSpace) -> Array:
    """From squared errors (m, V), those of targets with own domain, and without, together."""
    power = 1.0 + runs / SHARPER_RUNS
    own = np.array([i is not None for i in space.own])
    weights = np.empty_like(errors)
    for kind in (own, ~own):
        total = errors[:, kind].sum(axis=1, keepdims=True)
        inverse = (total.min() + LEAST_ERROR) / (total + LEAST_ERROR)
        inverse = inverse**power
        weights[:, kind] = inverse / inverse.sum()
    return weights


def covariance(residual: Array, weight: Array, variance: Array) -> Array:
    """Covariance of targets with given variances, correlated as residuals are.

    Outlying residuals are pulled in; correlations are shrunk to `TYPICAL_CORRELATION`.

    Args:
        residual: (V, R).
        weight: Of the squared residuals, small for outliers, zero where there is none, (V, R).
        variance: (V,).
    """
    known = weight > 0
    residual = np.sqrt(weight) * residual
    count = np.maximum(known.sum(1, keepdims=True), 1)
    deviation = np.sqrt((known * residual**2).sum(1, keepdims=True) / count)
    z = residual / np.maximum(deviation, 1e-12) * known
    z = np.clip(z, -OUTLIER, OUTLIER)
    pairs = known.astype(float) @ known.T
    lengths = np.sqrt(np.maximum((z**2) @ known.T.astype(float), 1e-12))
    correlation = (z @ z.T) / (lengths * lengths.T)
    share = pairs / (pairs + CORRELATION_STRENGTH)
    mixed = share * np.clip(correlation, -1.0, 1.0) + (1.0 - share) * TYPICAL_CORRELATION
    np.fill_diagonal(mixed, 1.0)
    values, vectors = np.linalg.eigh(mixed)
    mixed = (vectors * np.maximum(values, 1e-6)) @ vectors.T
    scale = np.sqrt(variance / np.diagonal(mixed))
    return np.asarray(mixed * np.outer(scale, scale))
