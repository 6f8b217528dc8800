"""Predictions of every run by a fit without its mixture, made by fitting again.

Errors of a fit with hyperparameters kept flatter a law by up to a third when runs are few, so every
fold is a whole fit, begun where the full one ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bimix_tune.laws.held_out import HeldOut
from bimix_tune.laws.law_fit import Model, joint_variance
from bimix_tune.laws.observations import Observations
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

FOLDS = 8
PRIOR_RUNS, PRIOR_SCALE = 6.0, 1.15
"""Before any run is left out the deviation is taken for too small by this factor, as it was on
average over published runs; that counts as so many runs."""
NORMAL_95 = 1.959964
MEDIAN_NORMAL = 0.674490
"""Median of the absolute value of a standard normal variable."""
QUANTILE_RUNS = 60.0
"""Runs from which on the quantile of the errors counts more than their size."""
LEAST_SCALE = 0.1
OUTLIER = 4.0
"""Errors beyond so many typical ones are pulled in: one failed run of 40 made intervals tenfold."""


class LeftOut(NamedTuple):
    """What fits to the other runs say of each run.

    Args:
        log_loss: Predictions, (V, R); NaN if not judged.
        variance: Of the predictions, (V, R).
        judged: Whether the other runs have all targets, without which there is no fit, (R,).
    """

    log_loss: Array
    variance: Array
    judged: NDArray[np.bool_]


def leave_out(fit: Callable[[Observations], Model], seen: Observations) -> LeftOut:
    """Predict all runs of each of `FOLDS` parts of the mixtures by a fit to the others."""
    groups = seen.mixtures
    fold = np.random.default_rng(FOLDS).permutation(groups) % FOLDS
    left = LeftOut(
        np.full_like(seen.log_loss, np.nan),
        np.full_like(seen.log_loss, np.nan),
        np.zeros(len(seen.r), dtype=bool),
    )
    for number in range(min(FOLDS, groups)):
        inside = fold[seen.group] == number
        if not (seen.weight[:, ~inside] > 0).any(axis=1).all():
            continue
        out = np.flatnonzero(inside)
        model = fit(seen.only(np.flatnonzero(~inside)))
        t, decayed = seen.tokens[:, out] / seen.reference, seen.decayed[:, out]
        left.log_loss[:, out] = model.surface.log_loss(seen.r[out], t, decayed)
        own = model.variance(seen.r[out], t, decayed)
        noise = np.diagonal(model.noise)[:, None] * model.noise_factor(seen.r[out])
        left.variance[:, out] = own + noise
        left.judged[out] = True
    return left


def held_out(seen: Observations, left: LeftOut, space: SearchSpace) -> HeldOut:
    """Judge at equal tokens: by the runs that reached the end, or by all if those are few."""
    complete = seen.complete & left.judged
    runs = np.flatnonzero(left.judged if complete.sum() < 3 else complete)
    observed = np.where(seen.weight[:, runs] > 0, np.exp(seen.log_loss[:, runs]), np.nan)
    return HeldOut(
        tuple(seen.names[n] for n in runs),
        np.exp(left.log_loss[:, runs]).T,
        observed.T,
        space.weights,
    )


def inflation(seen: Observations, left: LeftOut, noise: Array, space: SearchSpace) -> float:
    """What the deviation of the objective must be multiplied with to meet the errors left out.

    Of standardised errors, outliers pulled in. With few runs their root mean square, shrunk to
    `PRIOR_SCALE`, times Student's quantile over the normal one, as the scale is estimated. With
    many, the quantile of the errors that a 95 % interval of fresh runs must reach (split conformal
    prediction, Vovk et al. 2005): errors have heavier tails than normal ones.

    Args:
        seen: The runs.
        left: Their predictions.
        noise: Covariance that gives the correlation of targets, (V, V).
        space: Gives the weights.
    """
    known = (seen.weight[space.weights > 0] > 0).all(axis=0) & left.judged
    parts = space.weights[:, None] * np.exp(left.log_loss[:, known])
    error = parts.sum(0) - space.weights @ np.exp(seen.log_loss[:, known])
    z = error / np.sqrt(np.maximum(joint_variance(parts, left.variance[:, known], noise), 1e-300))
    size = _tamed(np.abs(z))
    runs = PRIOR_RUNS + len(z)
    scale = np.sqrt((PRIOR_RUNS * PRIOR_SCALE**2 + size @ size) / runs)
    few = scale * stats.t.ppf(0.975, runs) / NORMAL_95
    if not len(z):
        return float(few)
    reach = np.sort(size)[min(int(np.ceil(0.95 * (len(z) + 1))), len(z)) - 1]
    share = len(z) / (len(z) + QUANTILE_RUNS)
    return float(few ** (1.0 - share) * max(reach / NORMAL_95, LEAST_SCALE) ** share)


def _tamed(size: Array) -> Array:
    """Absolute errors, those beyond `OUTLIER` typical ones pulled in."""
    typical = float(np.median(size)) / MEDIAN_NORMAL if len(size) else 1.0
    runs = PRIOR_RUNS + len(size)
    shrunk = (PRIOR_RUNS + len(size) * typical) / runs  # a few small errors may be chance
    return np.minimum(size, OUTLIER * max(typical, shrunk))
