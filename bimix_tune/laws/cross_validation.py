"""Predictions of every run by a fit without its mixture, made by fitting again.

Errors of a fit with hyperparameters kept flatter a law by up to a third when runs are few, so every
fold is a whole fit, begun where the full one ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from bimix_tune.laws.held_out import HeldOut
from bimix_tune.laws.law_fit import Model, joint_variance
from bimix_tune.laws.observations import Observations
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

FOLDS = 8
PRIOR_RUNS = 6.0
"""Runs that the stated deviation counts for beside those left out, when it is rescaled."""
NORMAL_95 = 1.959964


class LeftOut(NamedTuple):
    """Log losses of the runs predicted without them, (V, R), and their variances, (V, R)."""

    log_loss: Array
    variance: Array


def leave_out(fit: Callable[[Observations], Model], seen: Observations) -> LeftOut:
    """Predict all runs of each of `FOLDS` parts of the mixtures by a fit to the others."""
    groups = seen.mixtures
    fold = np.random.default_rng(FOLDS).permutation(groups) % FOLDS
    predicted, variance = np.empty_like(seen.log_loss), np.empty_like(seen.log_loss)
    for number in range(min(FOLDS, groups)):
        out = np.flatnonzero(fold[seen.group] == number)
        model = fit(seen.only(np.flatnonzero(fold[seen.group] != number)))
        t, decayed = seen.tokens[:, out] / seen.reference, seen.decayed[:, out]
        predicted[:, out] = model.surface.log_loss(seen.r[out], t, decayed)
        own = model.variance(seen.r[out], t, decayed)
        variance[:, out] = own + np.diagonal(model.noise)[:, None]
    return LeftOut(predicted, variance)


def held_out(seen: Observations, left: LeftOut, space: SearchSpace) -> HeldOut:
    """Judge at equal tokens: by the runs that reached the end, or by all if those are few."""
    few = seen.complete.sum() < 3
    runs = np.arange(len(seen.r)) if few else np.flatnonzero(seen.complete)
    observed = np.where(seen.weight[:, runs] > 0, np.exp(seen.log_loss[:, runs]), np.nan)
    return HeldOut(
        tuple(seen.names[n] for n in runs),
        np.exp(left.log_loss[:, runs]).T,
        observed.T,
        space.weights,
    )


def inflation(seen: Observations, left: LeftOut, noise: Array, space: SearchSpace) -> float:
    """What the deviation of the objective must be multiplied with to meet the errors left out.

    The root mean square of standardised errors, shrunk to one as by `PRIOR_RUNS` runs more, times
    Student's quantile over the normal one, as the scale is estimated.

    Args:
        seen: The runs.
        left: Their predictions.
        noise: Covariance that gives the correlation of targets, (V, V).
        space: Gives the weights.
    """
    known = (seen.weight[space.weights > 0] > 0).all(axis=0)
    parts = space.weights[:, None] * np.exp(left.log_loss)
    error = parts.sum(0) - space.weights @ np.exp(seen.log_loss)
    z = error[known] ** 2 / np.maximum(joint_variance(parts, left.variance, noise)[known], 1e-300)
    runs = PRIOR_RUNS + known.sum()
    scale = np.sqrt((PRIOR_RUNS + z.sum()) / runs)
    return float(scale * stats.t.ppf(0.975, runs) / NORMAL_95)
