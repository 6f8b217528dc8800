"""Rung two: other domains help too, ``x_i = eps_i + r_own + sum_{j != own} T_ij r_j``.

T_ij >= 0 is the worth of a token of domain j for target i, in tokens of its own domain. The
coordinate is ``u = sqrt(T)`` with a normal prior about zero: the penalty ``u^2 = T`` is linear
in T, a lasso, so without evidence T is zero and the law is rung one. A target without own
domain has ``x_i = eps_i + sum_j T_ij r_j`` with u about one, which is constant in r (shares
sum to one) until runs say otherwise; the prior also fixes the scale of such a row, which B
and C absorb.
"""

from __future__ import annotations

import numpy as np

from bimix_tune.laws.base import Prior, own_carriers, product, product_terms
from bimix_tune.laws.bimix import Bimix
from bimix_tune.laws.optimum import Terms
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

TRANSFER_SD = 0.3
"""Prior spread of sqrt(T): T is about 0.1 in the mean (a run on related text is worth a tenth
of own text); pooled over all pairs in fitting."""

LIFT = 0.1
"""Where sqrt(T) starts at least, T = 0.01."""
OWNLESS_SD = 0.7
"""Prior spread of sqrt(T) about one for a target without own domain."""


def _own(space: SearchSpace) -> tuple[Array, Array]:
    """The fixed part of A (zero for targets without own domain) and where T acts, (V, K)."""
    has = np.array([i is not None for i in space.own])[:, None]
    fixed = own_carriers(space) * has
    return fixed, 1.0 - fixed


def _carriers(theta: Array, space: SearchSpace) -> Array:
    """A, (..., V, P) -> (..., V, K)."""
    fixed, acts = _own(space)
    return np.asarray(fixed + acts * theta[..., 6:] ** 2)


class Transfer:
    """The law of a target's effective proportion."""

    name = "transfer"

    def prior(self, space: SearchSpace) -> Prior:
        base = Bimix().prior(space)
        fixed, acts = _own(space)
        ownless = fixed.sum(axis=1, keepdims=True) == 0
        mean = np.where(ownless, 1.0, np.zeros_like(fixed))
        sd = np.where(ownless, OWNLESS_SD, np.full_like(fixed, TRANSFER_SD))
        pool, pool_ownless = len(base.free_mean), len(base.free_mean) + 1
        groups = np.where(ownless, pool_ownless, pool)
        return Prior(
            np.concatenate([base.mean, mean], axis=1),
            np.concatenate([base.sd, sd], axis=1),
            np.concatenate([base.groups, np.where(acts > 0, groups, -1)], axis=1),
            (*base.free_mean, False, False),
            np.concatenate([base.squares, np.ones(fixed.shape[1], bool)]),
        )

    def start(self, theta: Array, space: SearchSpace) -> Array:
        """Lift sqrt(T) off zero, where its slope vanishes and no step would ever leave."""
        start = theta.copy()
        start[..., 6:] = np.maximum(np.abs(start[..., 6:]), LIFT)
        return start

    def by_domain(self, theta: Array, space: SearchSpace) -> list[tuple[str, Array]]:
        return [("transfer", row) for row in _carriers(theta, space)]

    def terms(self, theta: Array, space: SearchSpace, factor: Array) -> Terms:
        return product_terms(theta, _carriers(theta, space), factor)

    def log_loss(
        self, theta: Array, space: SearchSpace, r: Array, t: Array, decayed: Array
    ) -> tuple[Array, Array]:
        fixed, acts = _own(space)
        u = acts * theta[..., 6:]
        y, by_base, by_x = product(theta[..., :6], fixed + u**2, r, t, decayed)
        by_u = by_x[..., None] * (2.0 * u[..., None, :]) * r
        return y, np.concatenate([by_base, by_u], axis=-1)
