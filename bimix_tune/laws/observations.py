"""Loss curves as arrays, checked against the space: what every law is fitted to.

All checkpoints of a run share its noise, so a run is one observation: its loss at the end. What
its earlier checkpoints add is how much losses fall from one token count to another, and in every
law here that fall is the same for all mixtures: it is averaged over the runs. A run that was
stopped early is brought to the end by the mean fall of the complete runs from there, as these
measured it at equal tokens; only where too few did does it count where it stopped, and the law's
own form in the tokens carries it to the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bimix_tune.curves import LossCurve
from bimix_tune.errors import FitError, MixtureError
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

EARLIER_WEIGHT = 0.5
"""Total weight of the falls of a run, whose end weighs one. Errors of held-out final losses are
flat from 0.05 to 0.5 and grow beyond 1 (runs of 70M and 305M with 14 checkpoints, fits to 6 and 12
runs); with four runs 0.5 beat 0.1 to 0.3 (1.2 % against 1.5 %)."""
FEWEST_COMPLETE = 3
"""Complete runs needed to say how far losses fall from an earlier checkpoint to the end."""
TYPICAL_NOISE = 0.01
"""Relative noise of a run's loss, where too few runs are there to estimate it."""

Point = tuple[float, float]
"""Tokens, and one at the end of the learning-rate decay, else zero."""


@dataclass(frozen=True, eq=False)
class Falls:
    """How log losses differ between two points of a run, means over the runs with both, S of them.

    Args:
        tokens: At the earlier point, (S,).
        decayed: There, (S,).
        end_tokens: At the end of the runs, (S,).
        end_decayed: There, (S,).
        value: Log loss there minus at the end, zero where missing, (V, S).
        weight: Zero where missing, (V, S).
    """

    tokens: Array
    decayed: Array
    end_tokens: Array
    end_decayed: Array
    value: Array
    weight: Array


@dataclass(frozen=True, eq=False)
class Checkpoints:
    """All that was measured, as it was; N checkpoints.

    Args:
        run: Index of the run, (N,).
        tokens: (N,).
        log_loss: Log losses, NaN where missing, (V, N).
    """

    run: NDArray[np.int64]
    tokens: Array
    log_loss: Array


@dataclass(frozen=True, eq=False)
class Observations:
    """R runs with V losses each.

    Args:
        r: Proportions, (R, K).
        tokens: At which a loss was observed or to which it was brought, (V, R).
        decayed: One at the end of the decay, else zero, (V, R).
        log_loss: Log losses, zero where missing, (V, R).
        weight: Weights of the squared residuals, zero where missing, (V, R); less than one for a
            run that was stopped early.
        falls: What the earlier checkpoints say.
        checkpoints: All checkpoints one by one, for laws of another form in the tokens.
        complete: Whether a run reached the end: most tokens (within 1 %), and decayed if any did,
            (R,).
        group: Index of the distinct mixture of a run, (R,).
        names: Names of the runs, R.
        unit: Unit of the losses.
        reference: The greatest number of tokens, s_ref.
    """

    r: Array
    tokens: Array
    decayed: Array
    log_loss: Array
    weight: Array
    falls: Falls
    checkpoints: Checkpoints
    complete: NDArray[np.bool_]
    group: NDArray[np.int64]
    names: tuple[str, ...]
    unit: str
    reference: float

    @property
    def mixtures(self) -> int:
        """Number of different mixtures."""
        return int(self.group.max()) + 1

    def only(self, runs: NDArray[np.int64]) -> Observations:
        """Some of the runs; the falls stay those of all, as they hardly depend on any one run."""
        new = np.full(len(self.r), -1)
        new[runs] = np.arange(len(runs))
        points = self.checkpoints
        kept = new[points.run] >= 0
        group = np.unique(self.group[runs], return_inverse=True)[1].reshape(-1)
        return Observations(
            self.r[runs],
            self.tokens[:, runs],
            self.decayed[:, runs],
            self.log_loss[:, runs],
            self.weight[:, runs],
            self.falls,
            Checkpoints(new[points.run[kept]], points.tokens[kept], points.log_loss[:, kept]),
            self.complete[runs],
            group,
            tuple(self.names[n] for n in runs),
            self.unit,
            self.reference,
        )


def observe(
    curves: Sequence[LossCurve], space: SearchSpace, fewest_mixtures: int = 2
) -> Observations:
    """Take curves in the order of the space.

    Args:
        curves: Runs of one scale.
        space: Domains and targets.
        fewest_mixtures: Different mixtures needed.

    Raises:
        FitError: There are no curves or a single mixture, units or scales differ, a curve
            lacks a domain, or no curve has measured a target.
    """
    curves = list(curves)
    _check_alike(curves)
    mixtures = np.stack([_proportions(c, n, space) for n, c in enumerate(curves)])
    group = np.unique(mixtures.round(6), axis=0, return_inverse=True)[1].reshape(-1)
    if group.max() + 1 < fewest_mixtures:
        raise FitError(
            f"all {len(curves)} curves have the same mixture, which tells nothing about the "
            "effect of proportions: a fit needs at least 2 different ones"
        )
    values = [_log_columns(c, space) for c in curves]
    missing = np.asarray(np.isnan(np.concatenate(values)).all(axis=0))
    if missing.any():
        lost = [n for n, m in zip(space.target_names, missing, strict=True) if m]
        found = sorted({t for c in curves for t in c.targets})
        raise FitError(f"no curve has a loss of target {lost}; the curves have {found}")
    points = [_points(c) for c in curves]
    ends = [p[-1] for p in points]
    reference = max(tokens for tokens, _ in ends)
    decays = max(d for _, d in ends)
    complete = np.array([t >= 0.99 * reference and d == decays for t, d in ends])
    at = _ends(points, values, complete, (reference, decays))
    return Observations(
        mixtures,
        *at,
        _falls(points, values),
        _checkpoints(points, values),
        complete,
        group,
        tuple(_label(c, n) for n, c in enumerate(curves)),
        curves[0].unit,
        reference,
    )


def _check_alike(curves: Sequence[LossCurve]) -> None:
    if not curves:
        raise FitError("a fit needs loss curves of at least 2 different mixtures, but got none")
    units = sorted({c.unit for c in curves})
    if len(units) > 1:
        raise FitError(f"all curves of a fit must have one unit, but got {units}")
    scales = sorted({c.scale for c in curves})
    if len(scales) > 1:
        raise FitError(f"all curves of a fit must have one scale (model size), but got {scales}")


def _points(curve: LossCurve) -> list[Point]:
    return list(zip(curve.tokens.tolist(), curve.decayed.astype(float).tolist(), strict=True))


def _label(curve: LossCurve, number: int) -> str:
    return curve.run or f"run {number}"


def _proportions(curve: LossCurve, number: int, space: SearchSpace) -> Array:
    try:
        return space.array(curve.mixture)
    except MixtureError as error:
        raise FitError(f"curve {_label(curve, number)!r} does not fit the space: {error}") from None


def _log_columns(curve: LossCurve, space: SearchSpace) -> Array:
    """Log losses in the order of the space's targets, NaN where the curve lacks one, (S, V)."""
    at = {name: i for i, name in enumerate(curve.targets)}
    out = np.full((len(curve.tokens), len(space.target_names)), np.nan)
    for j, name in enumerate(space.target_names):
        if name in at:
            out[:, j] = np.log(curve.losses[:, at[name]])
    return out


def _ends(
    points: list[list[Point]], values: list[Array], complete: NDArray[np.bool_], last: Point
) -> tuple[Array, Array, Array, Array]:
    """Tokens, decayed, log losses and weights of the runs, (V, R) each."""
    v = values[0].shape[1]
    tokens, decayed = (np.tile([p[-1][i] for p in points], (v, 1)) for i in (0, 1))
    tokens, decayed = tokens.astype(float), decayed.astype(float)
    log_loss = np.stack([y[-1] for y in values], axis=1)
    weight = np.isfinite(log_loss).astype(float)
    fall, nowhere = _fall_to_end(points, values, complete), np.full(v, np.nan)
    for n in np.flatnonzero(~complete | ~np.isfinite(log_loss).all(axis=0)):
        for i in range(v):
            known = np.flatnonzero(np.isfinite(values[n][:, i]))
            if not len(known):
                continue
            point, y = points[n][known[-1]], values[n][known[-1], i]
            mean, variance = fall.get(point, (nowhere, nowhere))
            if np.isfinite(mean[i]):
                log_loss[i, n] = y - mean[i]
                tokens[i, n], decayed[i, n] = last
                weight[i, n] = TYPICAL_NOISE**2 / (TYPICAL_NOISE**2 + variance[i])
            else:
                log_loss[i, n], weight[i, n] = y, 1.0
                tokens[i, n], decayed[i, n] = point
    return tokens, decayed, np.nan_to_num(log_loss), weight


def _fall_to_end(
    points: list[list[Point]], values: list[Array], complete: NDArray[np.bool_]
) -> dict[Point, tuple[Array, Array]]:
    """By point: mean and variance over the complete runs of the fall from there, (V,) each."""
    found: dict[Point, list[Array]] = defaultdict(list)
    for n in np.flatnonzero(complete):
        for point, y in zip(points[n][:-1], values[n][:-1], strict=True):
            found[point].append(y - values[n][-1])
    falls = {}
    for point, differences in found.items():
        a = np.array(differences)
        count = np.isfinite(a).sum(axis=0)
        enough = count >= FEWEST_COMPLETE
        mean = np.where(enough, np.nansum(a, axis=0) / np.maximum(count, 1), np.nan)
        square = np.nansum((a - mean) ** 2, axis=0) / np.maximum(count - 1, 1)
        falls[point] = mean, square
    return falls


def _falls(points: list[list[Point]], values: list[Array]) -> Falls:
    """Weighted means over runs of the falls between two points."""
    v = values[0].shape[1]
    total: dict[tuple[Point, Point], Array] = defaultdict(lambda: np.zeros((2, v)))
    for place, y in zip(points, values, strict=True):
        earlier = sum(not d for _, d in place[:-1])
        for point, row in zip(place[:-1], y[:-1], strict=True):
            share = 1.0 if point[1] else EARLIER_WEIGHT / earlier
            known = np.isfinite(row) & np.isfinite(y[-1])
            fall = np.where(known, row - y[-1], 0.0)
            total[point, place[-1]] += share * np.stack([fall, known.astype(float)])
    pairs = [(*first, *last) for first, last in total]
    at = np.array(pairs, dtype=float).reshape(-1, 4).T
    sums = np.array(list(total.values())).reshape(-1, 2, v)
    weight = sums[:, 1].T
    return Falls(at[0], at[1], at[2], at[3], sums[:, 0].T / np.maximum(weight, 1e-300), weight)


def _checkpoints(points: list[list[Point]], values: list[Array]) -> Checkpoints:
    run = np.repeat(np.arange(len(points)), [len(p) for p in points])
    tokens = np.array([tokens for p in points for tokens, _ in p])
    return Checkpoints(run, tokens, np.concatenate(values).T)
