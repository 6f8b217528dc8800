"""The best mixture of a problem that costs nothing to evaluate, found by brute force.

No slopes and no laws: the objectives have kinks (a worst target, a domain used up), and what
judges the strategies must not share their machinery.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bimix_tune.simplex import Array, dirichlet, settle
from bimix_tune.space import SearchSpace

DRAWS = 3000
"""Random mixtures of each kind to begin with: flat, rough, and of some domains only."""
KEPT = 4
"""Starts that are refined."""
LARGEST, SMALLEST = 0.2, 1e-6
"""Steps of the refinement, as shares of the mixture; halved whenever none of them helps."""
GAIN = 1e-8
"""Relative decrease of the objective below which a step does not help."""


def lowest(truth: Callable[[Array], Array], space: SearchSpace) -> Array:
    """The mixture with the least objective, (K,), to about `SMALLEST`.

    Draws over the whole simplex and its faces, then a pattern search from the best of them: all
    exchanges between two domains, and along the last improvement and random directions, which
    follow a valley or a kink that no exchange follows.

    Args:
        truth: The objective of mixtures, (M, K) -> (M,).
        space: The bounds.
    """
    rng = np.random.default_rng(0)
    points = _spread(rng, space)
    values = truth(points)
    best = np.argsort(values)[:KEPT]
    ends = [_refine(truth, points[i], float(values[i]), space, rng) for i in best]
    return min(ends, key=lambda end: end[1])[0]


def _spread(rng: np.random.Generator, space: SearchSpace) -> Array:
    """Mixtures of all kinds, (M, K)."""
    k, low, high = len(space.names), space.low, space.high
    parts = [
        dirichlet(rng, np.full(k, 1 / k), strength * k, low, high, DRAWS) for strength in (1, 0.3)
    ]
    for _ in range(60):
        kept = rng.permutation(k)[: rng.integers(1, k + 1)]
        centre = np.zeros(k)
        centre[kept] = 1 / len(kept)
        top = np.where(centre > 0, high, low)
        if top.sum() >= 1:
            parts.append(dirichlet(rng, centre, len(kept), low, top, DRAWS // 60))
    return np.concatenate(parts)


def _refine(
    truth: Callable[[Array], Array],
    point: Array,
    value: float,
    space: SearchSpace,
    rng: np.random.Generator,
) -> tuple[Array, float]:
    """A local minimum near a mixture, and its objective."""
    k, low, high = len(space.names), space.low, space.high
    exchanges = (np.eye(k)[:, None] - np.eye(k)[None]).reshape(k * k, k)
    step, last = LARGEST, np.zeros(k)
    while step > SMALLEST:
        random = rng.standard_normal((4 * k, k))
        random -= random.mean(axis=1, keepdims=True)
        random /= np.abs(random).max(axis=1, keepdims=True)
        moves = np.concatenate([step * exchanges, step * random, step * random * point, [last]])
        trials = settle(point + moves, low, high)
        values = truth(trials)
        i = int(values.argmin())
        if values[i] < value - GAIN * abs(value):
            last = 2 * (trials[i] - point)
            point, value = trials[i], float(values[i])
        else:
            step, last = step / 2, np.zeros(k)
    return point, value
