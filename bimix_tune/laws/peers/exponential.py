"""The data mixing law (Ye et al., arXiv 2403.16952): a floor plus an exponential of the mixture.

    L_i(r) = c_i + k_i exp(sum_j t_ij r_j)

fitted for each target to the ends of its runs. Proportions sum to one, so k is part of t and
set to one. Tokens and decay are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy.optimize import least_squares

from bimix_tune.laws.observations import Observations
from bimix_tune.laws.peers.shared import LARGEST_EXPONENT, Limits, ends
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

HUBER = 0.01
"""Width of the Huber loss in units of the loss, the authors' (yegcjs/mixinglaws, law.py)."""
FLOORS = (0.1, 0.5, 0.8, 0.95)
"""Where c starts, as a share of the least loss."""
START_PENALTY = 0.01
"""Keeps the start of t small where runs are fewer than domains."""
EVALUATIONS = 200
"""At most, from each start."""


@dataclass(frozen=True, eq=False)
class Exponential:
    """A fitted data mixing law.

    With hardly more runs than domains it explodes between them, so losses are kept within
    `Limits` of the fitted ones, which is not part of the method.

    Args:
        floor: c, (V,).
        slopes: t, (V, K), with log k in it.
        limits: Of the losses.
    """

    name: ClassVar[str] = "exponential"

    floor: Array
    slopes: Array
    limits: Limits

    @classmethod
    def fit(cls, seen: Observations, space: SearchSpace) -> Self:
        """Huber loss as the authors'; starts from log-linear regressions at several c."""
        data = [(r, np.exp(y)) for r, y in (ends(seen, v) for v in range(len(space.target_names)))]
        found = np.stack([_estimate(r, loss) for r, loss in data])
        return cls(np.exp(found[:, 0]), found[:, 1:], Limits.around([loss for _, loss in data]))

    def log_loss(self, r: Array, t: Array, decayed: Array) -> Array:
        """Shapes as in `bimix_tune.laws.surface.Surface`."""
        return np.log(self.limits.clip(self.floor[:, None] + _grown(self.slopes, r)))

    def slope(self, r: Array, t: Array, decayed: Array) -> Array:
        """Zero where the law leaves the limits."""
        grown = _grown(self.slopes, r)
        loss = self.floor[:, None] + grown
        factor = self.limits.inside(loss) * grown / loss
        return np.asarray(factor[..., None] * self.slopes[:, None, :])

    def parameters(self, space: SearchSpace) -> dict[str, dict[str, Any]]:
        """By target: c, k (one by convention) and t by domain."""
        return {
            target: {"c": float(c), "k": 1.0, "t": dict(zip(space.names, t.tolist(), strict=True))}
            for target, c, t in zip(space.target_names, self.floor, self.slopes, strict=True)
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "floor": self.floor.tolist(),
            "slopes": self.slopes.tolist(),
            "limits": self.limits.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the form of `to_dict`."""
        floor, slopes = (np.array(data[name], dtype=float) for name in ("floor", "slopes"))
        return cls(floor, slopes, Limits.from_dict(data["limits"]))


def _grown(slopes: Array, r: Array) -> Array:
    """``exp(t r)``, (V, K) and (M, K) -> (V, M)."""
    return np.asarray(np.exp(np.minimum(slopes @ r.T, LARGEST_EXPONENT)))


def _estimate(r: Array, loss: Array) -> Array:
    """log c and t for one target, (1 + K,): the best of several starts."""

    def residual(p: Array) -> Array:
        return np.asarray(np.exp(p[0]) + _grown(p[1:], r) - loss)

    def jacobian(p: Array) -> Array:
        by_floor = np.full(len(r), np.exp(p[0]))
        return np.column_stack([by_floor, _grown(p[1:], r)[:, None] * r])

    fits = [
        least_squares(
            residual,
            _start(r, loss, share * loss.min()),
            jacobian,
            loss="huber",
            f_scale=HUBER,
            max_nfev=EVALUATIONS,
        )
        for share in FLOORS
    ]
    return np.asarray(min(fits, key=lambda found: float(found.cost)).x)


def _start(r: Array, loss: Array, c: float) -> Array:
    """log c, and t by ridge regression of ``log(loss - c)`` on r."""
    z = np.log(loss - c)
    normal = r.T @ r + START_PENALTY * np.eye(r.shape[1])
    t = z.mean() + np.linalg.solve(normal, r.T @ (z - z.mean()))
    return np.concatenate([[np.log(c)], t])
