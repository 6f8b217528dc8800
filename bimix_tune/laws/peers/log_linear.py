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
from bimix_tune.laws.peers.shared import LARGEST_EXPONENT, Limits, ends
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

PENALTIES = np.logspace(-6, 2, 25)
"""Candidates for the ridge penalty, in units of squared proportions summed over runs."""


@dataclass(frozen=True, eq=False)
class LogLinear:
    """A fitted log-linear law.

    With about as many runs as domains leave-one-out may choose hardly any penalty, and the law
    explodes between them: losses are kept within `Limits` of the fitted ones, which is not part
    of the method (16 runs of 17 domains, six draws: mean error 12.6 % instead of 17.4 %; next to
    no difference elsewhere).

    Args:
        level: c, (V,).
        slopes: A, (V, K).
        limits: Of the losses.
    """

    name: ClassVar[str] = "log-linear"

    level: Array
    slopes: Array
    limits: Limits

    @classmethod
    def fit(cls, seen: Observations, space: SearchSpace) -> Self:
        """Ridge regression for each target, its penalty by leave-one-out."""
        data = [ends(seen, v) for v in range(len(space.target_names))]
        rows = [_ridge(r, y) for r, y in data]
        limits = Limits.around([np.exp(y) for _, y in data])
        return cls(np.array([c for c, _ in rows]), np.stack([a for _, a in rows]), limits)

    def _loss(self, r: Array) -> Array:
        """Of the formula alone, (V, M)."""
        log_loss = self.level[:, None] + self.slopes @ r.T
        return np.asarray(np.exp(np.minimum(log_loss, LARGEST_EXPONENT)))

    def log_loss(self, r: Array, t: Array, decayed: Array) -> Array:
        """Shapes as in `bimix_tune.laws.surface.Surface`."""
        return np.log(self.limits.clip(self._loss(r)))

    def slope(self, r: Array, t: Array, decayed: Array) -> Array:
        """A for every mixture, zero where the law leaves the limits."""
        return np.asarray(self.limits.inside(self._loss(r))[..., None] * self.slopes[:, None, :])

    def parameters(self, space: SearchSpace) -> dict[str, dict[str, Any]]:
        """By target: c, and A by domain."""
        return {
            target: {"c": float(c), "A": dict(zip(space.names, a.tolist(), strict=True))}
            for target, c, a in zip(space.target_names, self.level, self.slopes, strict=True)
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "level": self.level.tolist(),
            "slopes": self.slopes.tolist(),
            "limits": self.limits.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the form of `to_dict`."""
        level, slopes = (np.array(data[name], dtype=float) for name in ("level", "slopes"))
        return cls(level, slopes, Limits.from_dict(data["limits"]))


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
