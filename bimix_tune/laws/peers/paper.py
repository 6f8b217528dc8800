"""BiMix exactly as published (Ge et al., arXiv 2405.14908, eq. 3), both axes.

    L_i(r, s) = (A_i / r_i^alpha_i) * (B_i / s^beta_i + C_i)

with A, B, C, alpha, beta for each target and r_i the proportion of its own domain. Only four of
the five can be told from losses: A times a factor and B, C over it give the same law. Here A is
the loss at ``r_i = 1`` after s_ref tokens (the most that were seen), so ``B / s_ref^beta + C = 1``;
with ``t = s / s_ref`` the second factor is ``1 + phi (t^-beta - 1)``, B is ``phi s_ref^beta`` and
C is ``1 - phi``. The coefficients of a target without own domain have alpha zero.

The law knows no end of the learning-rate decay, and is infinite where the own proportion is
zero: smaller ones are taken for `SMALLEST_SHARE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from bimix_tune.laws.observations import Observations
from bimix_tune.laws.peers.shared import SMALLEST_SHARE
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

LEVEL, ALPHA, BETA, PHI = range(4)
"""Positions of log A, alpha, beta and phi."""
LOW = np.array([-np.inf, 0.0, 1e-3, 0.0])
HIGH = np.array([np.inf, 1.0, 2.0, 1.0])
"""Bounds, ours: the paper states none. Fits to published runs of 122M to 937M parameters give
alpha from 0.01 to 0.09 and beta from 0.8 to 1.2."""
ALPHA_START, PHI_START = 0.1, 0.3
BETA_STARTS = (0.5, 0.2, 1.0)
"""Where coefficients start (the level: at the mean log loss); of the starts the one with the
least squares counts."""
TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False)
class Paper:
    """The fitted law of the paper.

    Args:
        theta: log A, alpha, beta and phi, (V, 4).
        own: Index of each target's own domain, -1 for none, (V,).
        reference: s_ref in tokens.
    """

    name: ClassVar[str] = "paper"

    theta: Array
    own: NDArray[np.int64]
    reference: float

    @classmethod
    def fit(cls, seen: Observations, space: SearchSpace) -> Self:
        """Least squares on the log losses of all checkpoints, for each target.

        The solver is the paper's, Trust Region Reflective by scipy; whether it took logarithms,
        and its starts, the paper does not say. Runs of one token count say nothing of beta and
        phi: phi is zero then, which leaves ``A r^-alpha``.
        """
        own = np.array([-1 if i is None else i for i in space.own])
        rows = [_estimate(seen, v, i) for v, i in enumerate(own.tolist())]
        return cls(np.stack(rows), own, seen.reference)

    def log_loss(self, r: Array, t: Array, decayed: Array) -> Array:
        """Shapes as in `bimix_tune.laws.surface.Surface`."""
        log_t = np.broadcast_to(np.log(t), (len(self.own), len(r)))
        rows = zip(self.theta, self.own.tolist(), log_t, strict=True)
        return np.stack([_log_loss(row, _log_share(r, i), s)[0] for row, i, s in rows])

    def slope(self, r: Array, t: Array, decayed: Array) -> Array:
        """``-alpha / r`` for the own domain, zero below the least share."""
        result = np.zeros((len(self.own), *r.shape))
        for v, i in enumerate(self.own.tolist()):
            if i >= 0:
                share = np.maximum(r[:, i], SMALLEST_SHARE)
                result[v, :, i] = np.where(r[:, i] > SMALLEST_SHARE, -self.theta[v, ALPHA], 0.0)
                result[v, :, i] /= share
        return result

    def parameters(self, space: SearchSpace) -> dict[str, dict[str, Any]]:
        """By target: A, alpha, B, beta and C of the paper, for s in tokens."""
        result: dict[str, dict[str, Any]] = {}
        for target, row in zip(space.target_names, self.theta.tolist(), strict=True):
            level, alpha, beta, phi = row
            result[target] = {
                "A": float(np.exp(level)),
                "alpha": alpha,
                "B": phi * self.reference**beta,
                "beta": beta,
                "C": 1.0 - phi,
            }
        return result

    def to_dict(self) -> dict[str, Any]:
        return {
            "theta": self.theta.tolist(),
            "own": self.own.tolist(),
            "reference": self.reference,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the form of `to_dict`."""
        theta = np.array(data["theta"], dtype=float)
        return cls(theta, np.array(data["own"], dtype=np.int64), float(data["reference"]))


def _log_share(r: Array, own: int) -> Array:
    """Logarithm of the own proportion, zero for a target without one, (M, K) -> (M,)."""
    if own < 0:
        return np.zeros(len(r))
    return np.asarray(np.log(np.maximum(r[:, own], SMALLEST_SHARE)))


def _log_loss(theta: Array, log_share: Array, log_t: Array) -> tuple[Array, Array]:
    """Log losses of one target, (M,), and their derivatives by its coefficients, (M, 4)."""
    level, alpha, beta, phi = theta
    power = np.exp(-beta * log_t)
    growth = 1.0 + phi * (power - 1.0)
    value = level - alpha * log_share + np.log(growth)
    by_beta, by_phi = -phi * power * log_t / growth, (power - 1.0) / growth
    return value, np.stack([np.ones_like(value), -log_share, by_beta, by_phi], axis=1)


def _estimate(seen: Observations, target: int, own: int) -> Array:
    """The coefficients of one target, (4,); those that its runs cannot show stay put."""
    points = seen.checkpoints
    at = np.isfinite(points.log_loss[target])
    share = _log_share(seen.r[points.run[at]], own)
    log_t, y = np.log(points.tokens[at] / seen.reference), points.log_loss[target, at]
    varied, grown = bool(np.ptp(share) > 0), bool(np.ptp(log_t) > 0)
    free = np.array([True, varied, grown, grown])
    level, alpha, phi = y.mean(), ALPHA_START * varied, PHI_START * grown
    fits = [
        _solve(np.array([level, alpha, beta, phi]), free, share, log_t, y)
        for beta in (BETA_STARTS if grown else BETA_STARTS[:1])
    ]
    return min(fits, key=lambda found: found[0])[1]


def _solve(
    start: Array, free: NDArray[np.bool_], share: Array, log_t: Array, y: Array
) -> tuple[float, Array]:
    """Least cost and the coefficients there, from one start.

    Args:
        start: (4,).
        free: Which of them to move, (4,).
        share: Logarithms of the own proportion, (N,).
        log_t: Of tokens over the reference, (N,).
        y: Log losses, (N,).
    """
    theta = start.copy()

    def residual(p: Array) -> Array:
        theta[free] = p
        return _log_loss(theta, share, log_t)[0] - y

    def jacobian(p: Array) -> Array:
        theta[free] = p
        return np.asarray(_log_loss(theta, share, log_t)[1][:, free])

    found = least_squares(
        residual,
        start[free],
        jacobian,
        bounds=(LOW[free], HIGH[free]),
        method="trf",
        ftol=TOLERANCE,
        xtol=TOLERANCE,
        gtol=TOLERANCE,
    )
    theta[free] = found.x
    return float(found.cost), theta
