"""Small neural networks from mixtures to log losses, for the surrogate problems.

None of the strategies models losses in this way, so none of them is at home there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from bimix_tune.simplex import Array

HIDDEN, MEMBERS = 24, 5
"""Units of the hidden layer, and networks that are averaged."""
DECAY = 0.005
"""Weight of the squared parameters against the squared error of one standardised output."""
STEPS = 400
"""Most iterations of L-BFGS."""


@dataclass(frozen=True, eq=False)
class Networks:
    """The mean of `MEMBERS` networks, ``y = tanh(x A + a) B + b`` of ``x = sqrt(r)``; x and y are
    standardised.

    Args:
        middle: Subtracted from the roots of the proportions, (K,).
        width: Divides them.
        level: Mean of the outputs, (D,).
        scale: Standard deviation of the outputs, (D,).
        members: A (K, H), a (H,), B (H, D), b (D,) of each.
    """

    middle: Array
    width: float
    level: Array
    scale: Array
    members: tuple[tuple[Array, Array, Array, Array], ...]

    def predict(self, r: Array, columns: slice = slice(None)) -> Array:
        """Outputs of mixtures, (M, K) -> (M, D), or some columns of them."""
        x = (np.sqrt(r) - self.middle) / self.width
        parts = [np.tanh(x @ a + c) @ b[:, columns] + d[columns] for a, c, b, d in self.members]
        mean = np.mean(parts, axis=0)
        return np.asarray(self.level[columns] + self.scale[columns] * mean)


def fit_networks(r: Array, y: Array) -> Networks:
    """Least squares with weight decay, from `MEMBERS` random starts.

    Args:
        r: Mixtures, (N, K).
        y: Outputs, (N, D).
    """
    x = np.sqrt(r)
    middle, width = x.mean(axis=0), float(x.std())
    level, scale = y.mean(axis=0), np.maximum(y.std(axis=0), 1e-12)
    inputs, outputs = (x - middle) / width, (y - level) / scale
    members = tuple(_fit(inputs, outputs, seed) for seed in range(MEMBERS))
    return Networks(middle, width, level, scale, members)


def _fit(x: Array, y: Array, seed: int) -> tuple[Array, Array, Array, Array]:
    n, k, d = len(x), x.shape[1], y.shape[1]
    shapes = ((k, HIDDEN), (HIDDEN,), (HIDDEN, d), (d,))
    ends = np.cumsum([int(np.prod(s)) for s in shapes])
    decay = DECAY * d / n

    def parts(flat: Array) -> list[Array]:
        pieces = np.split(flat, ends[:-1])
        return [p.reshape(s) for p, s in zip(pieces, shapes, strict=True)]

    def error(flat: Array) -> tuple[float, Array]:
        """Half the mean squared error plus the decay, and its gradient."""
        a, c, b, e = parts(flat)
        hidden = np.tanh(x @ a + c)
        off = (hidden @ b + e - y) / n
        back = (off @ b.T) * (1 - hidden**2)
        slopes = (x.T @ back + decay * a, back.sum(0), hidden.T @ off + decay * b, off.sum(0))
        value = 0.5 * n * (off**2).sum() + 0.5 * decay * ((a**2).sum() + (b**2).sum())
        return float(value), np.concatenate([s.ravel() for s in slopes])

    rng = np.random.default_rng(seed)
    start = np.concatenate([rng.normal(0, s[0] ** -0.5, s).ravel() for s in shapes])
    found = minimize(error, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    a, c, b, e = parts(np.asarray(found.x))
    return a, c, b, e
