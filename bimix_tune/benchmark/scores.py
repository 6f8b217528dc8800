"""How good predictions of held-out runs are: error, fit, rank, regret, and their intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from bimix_tune.simplex import Array

TWO_SIDED_95 = 1.959964
"""Normal quantile of a 95 % interval."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for M mixtures.

    Args:
        losses: Of each target, (M, V); None if the model has the objective only.
        objective: Weighted mean of the losses, (M,).
        sd: Standard deviation of the objective of one run, (M,); None if the model has none.
    """

    losses: Array | None
    objective: Array
    sd: Array | None = None


Predictor = Callable[[Array], Prediction]
"""From proportions (M, K) to what a fitted model says of them."""


@dataclass(frozen=True)
class Scores:
    """Judgement of one fit; NaN where there is nothing to judge.

    Args:
        error: Mean of ``|predicted / true - 1|`` over runs and targets.
        r2: Share of the objective's variance explained, 1 at best, 0 for the mean.
        spearman: Rank correlation of the objective; 0 for equal predictions.
        regret: True objective of the run predicted best minus the least one, in units of the
            range among the held-out runs; the mean over the runs that share a prediction.
        coverage: Share of measured objectives in the 95 % interval.
        width: Mean half width of that interval in standard deviations of the measured
            objective over runs: 1.96 for guesses of the mean, near 0 for a sharp model.
    """

    error: float
    r2: float
    spearman: float
    regret: float
    coverage: float
    width: float


def score(predicted: Prediction, truth: Array, measured: Array, weights: Array) -> Scores:
    """Judge predictions of M held-out runs.

    Args:
        predicted: For the M runs.
        truth: Losses to predict, (M, V).
        measured: Losses that the interval of a run should hold, (M, V); where the truth is
            not known the same.
        weights: Of the targets in the objective, (V,), summing to one.
    """
    aim = truth @ weights
    error = np.nan
    if predicted.losses is not None:
        error = float(np.abs(predicted.losses / truth - 1.0).mean())
    return Scores(
        error,
        r2(predicted.objective, aim),
        spearman(predicted.objective, aim),
        regret(predicted.objective, aim),
        coverage(predicted, measured @ weights),
        width(predicted, measured @ weights),
    )


def r2(predicted: Array, true: Array) -> float:
    """``1 - sum (p - t)^2 / sum (t - mean t)^2``.

    >>> r2(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    0.5
    """
    spread = ((true - true.mean()) ** 2).sum()
    return float(1.0 - ((predicted - true) ** 2).sum() / spread) if spread > 0 else np.nan


def spearman(predicted: Array, true: Array) -> float:
    """Correlation of the ranks, ties sharing their mean rank."""
    if np.ptp(true) == 0:
        return np.nan
    if np.ptp(predicted) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(predicted), rankdata(true))[0, 1])


def regret(predicted: Array, true: Array) -> float:
    """What choosing the run predicted best loses, as a share of the range.

    >>> regret(np.array([3.0, 1.0, 2.0]), np.array([5.0, 6.0, 9.0]))
    0.25
    """
    if np.ptp(true) == 0:
        return np.nan
    chosen = true[predicted == predicted.min()].mean()
    return float((chosen - true.min()) / np.ptp(true))


def coverage(predicted: Prediction, measured: Array) -> float:
    """Share of measured objectives, (M,), within the 95 % intervals."""
    if predicted.sd is None:
        return np.nan
    inside = np.abs(measured - predicted.objective) <= TWO_SIDED_95 * predicted.sd
    return float(inside.mean())


def width(predicted: Prediction, measured: Array) -> float:
    """Mean half width of the 95 % intervals over the spread of measured objectives, (M,)."""
    spread = measured.std()
    if predicted.sd is None or not spread > 0:
        return np.nan
    return float(TWO_SIDED_95 * predicted.sd.mean() / spread)
