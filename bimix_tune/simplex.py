"""Geometry of the mixture simplex with box bounds.

A mixture of K domains lives in ``{r : low <= r <= high, sum(r) = 1}``. This module knows
arrays only, no names; shapes are (K,) for one mixture and (M, K) for many.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SUM_TOLERANCE = 1e-6
"""How far a sum of proportions may be from one and still count as a mixture."""


def infeasibility(low: Array, high: Array) -> str | None:
    """Why no mixture satisfies the bounds, or None if one does.

    Args:
        low: Lower bounds, (K,).
        high: Upper bounds, (K,).
    """
    if np.any(low > high):
        return f"a lower bound exceeds its upper bound (positions {np.flatnonzero(low > high)})"
    if low.sum() > 1 + 1e-9:
        return f"the lower bounds sum to {low.sum():.6g}, more than 1"
    if high.sum() < 1 - 1e-9:
        return f"the upper bounds sum to {high.sum():.6g}, less than 1"
    return None


def bisect_to_one(path: Callable[[float], Array], lower: float, upper: float) -> Array:
    """The point of a monotone path of non-negative vectors whose sum is one.

    Args:
        path: Maps a scalar to a vector (K,) whose sum never decreases with the scalar.
        lower: A scalar where the sum is at most one.
        upper: A scalar where the sum is at least one.

    Returns:
        ``path(t)`` with ``sum = 1`` to rounding, (K,).
    """
    for _ in range(200):
        middle = 0.5 * (lower + upper)
        if middle in (lower, upper):
            break
        if path(middle).sum() < 1.0:
            lower = middle
        else:
            upper = middle
    return path(0.5 * (lower + upper))


def settle(r: Array, low: Array, high: Array) -> Array:
    """Spread a rounding error of the sum over the free coordinates, so that it is exact.

    Args:
        r: Within bounds, sum within 1e-3 or so of one, (..., K).
        low: Lower bounds, (K,).
        high: Upper bounds, (K,).

    Returns:
        Within bounds, sum one to 1e-15, (..., K).
    """
    r = np.clip(r, low, high)
    for _ in range(8):
        gap = 1.0 - r.sum(-1, keepdims=True)
        if np.all(np.abs(gap) < 1e-16):
            break
        room = np.where(gap > 0, high - r, r - low)
        part = np.minimum(np.abs(gap) / np.maximum(room.sum(-1, keepdims=True), 1e-300), 1.0)
        r = np.clip(r + np.sign(gap) * room * part, low, high)
    return np.asarray(r)


def scale_into(v: Array, low: Array, high: Array) -> Array:
    """Kullback-Leibler projection, ``argmin_r KL(r | v)`` under the bounds and ``sum(r) = 1``.

    The minimiser is ``clip(t * v, low, high)``: proportions keep their ratios where no bound
    acts. A zero in ``v`` stays at its lower bound unless the others cannot reach one. The sum is
    piecewise linear in t, and Newton's method, kept in a shrinking bracket, finds its t.

    Args:
        v: Non-negative, (..., K); all zero counts as all equal.
        low: Lower bounds, (K,), feasible together with ``high``.
        high: Upper bounds, (K,).

    Returns:
        The projection, (..., K).
    """
    largest = v.max(-1, keepdims=True)
    v = np.where(largest > 0, v / np.where(largest > 0, largest, 1.0), 1.0)
    absent = v <= 0
    short = np.where(absent, low, high).sum(-1, keepdims=True) < 1.0
    v = np.where(absent & ~short, 0.0, np.maximum(v, 1e-12))
    tops = np.where(v > 0, np.maximum(high, 1e-12), 0.0) / np.where(v > 0, v, 1.0)
    t = 1.0 / v.sum(-1, keepdims=True)
    lower, upper = np.zeros_like(t), tops.max(-1, keepdims=True)
    for step in range(200):
        r = np.clip(t * v, low, high)
        gap = 1.0 - r.sum(-1, keepdims=True)
        if np.all(np.abs(gap) < 1e-15):
            break
        lower, upper = np.where(gap >= 0, t, lower), np.where(gap <= 0, t, upper)
        moving = np.where((r > low) & (r < high), v, 0.0).sum(-1, keepdims=True)
        newton = t + gap / np.maximum(moving, 1e-300)
        fits = (newton > lower) & (newton < upper) & (step % 4 < 3)
        t = np.where(fits, newton, 0.5 * (lower + upper))
    return settle(np.clip(t * v, low, high), low, high)


def dirichlet(
    rng: np.random.Generator,
    centre: Array,
    concentration: float,
    low: Array,
    high: Array,
    size: int,
) -> Array:
    """Random mixtures around a centre, moved into the bounds by `scale_into`.

    Args:
        rng: Source of randomness.
        centre: Mean of the Dirichlet distribution, (K,).
        concentration: Sum of its parameters; K gives the flat one for a uniform centre.
        low: Lower bounds, (K,).
        high: Upper bounds, (K,).
        size: Number of draws M.

    Returns:
        Mixtures, (M, K).
    """
    parameters = np.maximum(centre * concentration, 1e-3)
    draws = rng.dirichlet(parameters, size=size)
    return scale_into(draws, low, high)


def _ilr_basis(k: int) -> Array:
    """Orthonormal basis of the zero-sum vectors, (K-1, K) (Helmert; Egozcue et al. 2003)."""
    basis = np.zeros((k - 1, k))
    for i in range(1, k):
        basis[i - 1, :i] = 1.0 / i
        basis[i - 1, i] = -1.0
        basis[i - 1] *= np.sqrt(i / (i + 1.0))
    return basis


def ilr(r: Array, floor: float = 1e-6) -> Array:
    """Isometric log-ratio coordinates (Egozcue et al. 2003), (..., K) -> (..., K-1).

    Args:
        r: Mixtures, (..., K).
        floor: Proportions below it are raised to it, since log(0) is no coordinate.
    """
    logs = np.log(np.maximum(r, floor))
    return np.asarray(logs @ _ilr_basis(logs.shape[-1]).T)


def ilr_inverse(z: Array) -> Array:
    """The mixture with the given log-ratio coordinates, (..., K-1) -> (..., K)."""
    logs = z @ _ilr_basis(z.shape[-1] + 1)
    logs = logs - logs.max(axis=-1, keepdims=True)
    r = np.exp(logs)
    return np.asarray(r / r.sum(axis=-1, keepdims=True))
