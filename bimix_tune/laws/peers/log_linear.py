"""Log-linear regression with a ridge penalty, ``L_i = exp(c_i + sum_j A_ij r_j)``.

The log-linear law of OLMix (arXiv 2602.12237) is ``c_i + exp(A_i r)``, the same formula as the
data mixing law (`bimix_tune.laws.peers.exponential`); this one is its plain relative without a
floor, a convex problem, with a penalty for few runs. OLMix' pull towards the natural mixture
belongs to its search, not to its law, and is not here. Tokens and decay are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from bimix_tune.laws.observations import Observations
from bimix_tune.laws.peers.shared import ends
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

PENALTIES = np.logspace(-6, 2, 25)
"""Candidates for the ridge penalty, in units of squared proportions summed over runs."""


@dataclass(frozen=True, eq=False)
class LogLinear:
    """A fitted log-linear law.

    Args:
        level: c, (V,).
        slopes: A, (V, K).
    """

    name: ClassVar[str] = "log-linear"

    level: Array
    slopes: Array

    @classmethod
    def fit(cls, seen: Observations, space: SearchSpace) -> Self:
        """Ridge regression for each target, its penalty by leave-one-out."""
        rows = [_ridge(*ends(seen, v)) for v in range(len(space.target_names))]
        return cls(np.array([level for level, _ in rows]), np.stack([a for _, a in rows]))

    def log_loss(self, r: Array, t: Array, decayed: Array) -> Array:
        """Shapes as in `bimix_tune.laws.surface.Surface`."""
        return np.asarray(self.level[:, None] + self.slopes @ r.T)

    def slope(self, r: Array, t: Array, decayed: Array) -> Array:
        """A for every mixture."""
        return np.repeat(self.slopes[:, None, :], len(r), axis=1)

    def parameters(self, space: SearchSpace) -> dict[str, dict[str, Any]]:
        """By target: c, and A by domain."""
        return {
            target: {"c": float(c), "A": dict(zip(space.names, a.tolist(), strict=True))}
            for target, c, a in zip(space.target_names, self.level, self.slopes, strict=True)
        }

    def to_dict(self) -> dict[str, Any]:
        return {"level": self.level.tolist(), "slopes": self.slopes.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the form of `to_dict`."""
        return cls(*(np.array(data[name], dtype=float) for name in ("level", "slopes")))


def _ridge(r: Array, y: Array) -> tuple[float, Array]:
    """Level and slopes (K,) with the least leave-one-out error.

    Left-out residuals come from the hat matrix (Hastie et al., Elements of Statistical Learning,
    eq. 7.64).

    Args:
        r: Proportions, (n, K).
        y: Log losses, (n,).
    """
    middle, mean = r.mean(axis=0), y.mean()
    u, d, vt = np.linalg.svd(r - middle, full_matrices=False)
    projected = u.T @ (y - mean)

    def left_out(penalty: float) -> float:
        shrunk = d**2 / (d**2 + penalty)
        leverage = 1.0 / len(r) + (u**2 * shrunk).sum(axis=1)
        residual = y - mean - u @ (shrunk * projected)
        return float(((residual / np.maximum(1.0 - leverage, 1e-9)) ** 2).sum())

    penalty = min(PENALTIES.tolist(), key=left_out)
    slopes = vt.T @ (d / (d**2 + penalty) * projected)
    return float(mean - middle @ slopes), np.asarray(slopes)
