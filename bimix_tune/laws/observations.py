"""Loss curves as arrays, checked against the space: what every law is fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bimix_tune.curves import LossCurve
from bimix_tune.errors import FitError, MixtureError
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

EARLIER_WEIGHT = 0.5
"""Total weight of the checkpoints of a run before its last one, which weighs one. Errors of
held-out final losses are flat from 0.05 to 0.5 and grow beyond 1 (runs of 70M and 305M with 14
checkpoints, fits to 6 and 12 runs); with four runs 0.5 beat 0.1 to 0.3 (1.2 % against 1.5 %)."""


@dataclass(frozen=True, eq=False)
class Observations:
    """N checkpoints of R runs with V losses each.

    Args:
        r: Proportions, (N, K).
        tokens: (N,).
        decayed: One at the end of the decay, else zero, (N,).
        log_loss: Log losses, zero where missing, (V, N).
        weight: Weights of the squared residuals, zero where missing, (V, N).
        run: Index of the run of a checkpoint, (N,).
        last: Checkpoint that is the last one of a run, (R,).
        group: Index of the distinct mixture of a run, (R,).
        names: Names of the runs, R.
        unit: Unit of the losses.
    """

    r: Array
    tokens: Array
    decayed: Array
    log_loss: Array
    weight: Array
    run: NDArray[np.int64]
    last: NDArray[np.int64]
    group: NDArray[np.int64]
    names: tuple[str, ...]
    unit: str

    @property
    def reference(self) -> float:
        """The greatest number of tokens, s_ref."""
        return float(self.tokens.max())

    @property
    def complete(self) -> NDArray[np.int64]:
        """Runs that reached the end: most tokens (within 1 %) and decayed if any run was, (C,)."""
        ends = self.tokens[self.last] >= 0.99 * self.reference
        if self.decayed.any():
            ends &= self.decayed[self.last] > 0
        return np.flatnonzero(ends)


def observe(curves: Sequence[LossCurve], space: SearchSpace) -> Observations:
    """Stack curves in the order of the space.

    Raises:
        FitError: There are no curves or a single mixture, units or scales differ, a curve
            lacks a domain, or no curve has measured a target.
    """
    curves = list(curves)
    if not curves:
        raise FitError("a fit needs loss curves of at least 2 different mixtures, but got none")
    units = sorted({c.unit for c in curves})
    if len(units) > 1:
        raise FitError(f"all curves of a fit must have one unit, but got {units}")
    scales = sorted({c.scale for c in curves})
    if len(scales) > 1:
        raise FitError(
            f"all curves of a fit must have one scale (model size), but got {scales}: "
            "fit those of one scale at a time"
        )
    mixtures = np.stack([_proportions(c, n, space) for n, c in enumerate(curves)])
    group = np.unique(mixtures.round(6), axis=0, return_inverse=True)[1].reshape(-1)
    if group.max() == 0:
        raise FitError(
            f"all {len(curves)} curves have the same mixture, which tells nothing about the "
            "effect of proportions: a fit needs at least 2 different ones"
        )
    losses = np.concatenate([_columns(c, space) for c in curves])
    missing = np.isnan(losses)
    if missing.all(axis=0).any():
        lost = [n for n, m in zip(space.target_names, missing.all(axis=0), strict=True) if m]
        found = sorted({t for c in curves for t in c.targets})
        raise FitError(f"no curve has a loss of target {lost}; the curves have {found}")
    counts = np.array([len(c.tokens) for c in curves])
    decayed = np.concatenate([c.decayed for c in curves])
    last = np.cumsum(counts) - 1
    run = np.repeat(np.arange(len(curves)), counts)
    weight = _weights(counts, last, decayed)[:, None] * ~missing
    return Observations(
        mixtures[run],
        np.concatenate([c.tokens for c in curves]),
        decayed.astype(float),
        np.log(np.where(missing, 1.0, losses)).T,
        np.ascontiguousarray(weight.T),
        run,
        last,
        group,
        tuple(_label(c, n) for n, c in enumerate(curves)),
        units[0],
    )


def _label(curve: LossCurve, number: int) -> str:
    return curve.run or f"run {number}"


def _proportions(curve: LossCurve, number: int, space: SearchSpace) -> Array:
    try:
        return space.array(curve.mixture)
    except MixtureError as error:
        raise FitError(f"curve {_label(curve, number)!r} does not fit the space: {error}") from None


def _columns(curve: LossCurve, space: SearchSpace) -> Array:
    """Losses in the order of the space's targets, NaN where the curve lacks one, (S, V)."""
    at = {name: i for i, name in enumerate(curve.targets)}
    out = np.full((len(curve.tokens), len(space.target_names)), np.nan)
    for j, name in enumerate(space.target_names):
        if name in at:
            out[:, j] = curve.losses[:, at[name]]
    return out


def _weights(
    counts: NDArray[np.int64], last: NDArray[np.int64], decayed: NDArray[np.bool_]
) -> Array:
    """One for last and decayed checkpoints; the others of a run share `EARLIER_WEIGHT`, (N,)."""
    full = decayed.copy()
    full[last] = True
    starts = last - counts + 1
    earlier = np.add.reduceat((~full).astype(float), starts)
    share = EARLIER_WEIGHT / np.maximum(earlier, 1.0)
    return np.where(full, 1.0, np.repeat(share, counts))
