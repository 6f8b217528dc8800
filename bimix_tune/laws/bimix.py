"""Rung one: BiMix with a floor, ``L_i = (eps_i + r_own)^-alpha_i (B_i s^-beta_i + C_i)``.

Ge et al., arXiv 2405.14908, eq. 1-3. The floor eps_i makes a proportion of zero data instead
of infinity. Each target sees its own domain only, so two to four runs are enough. The loss of a
target without own domain is constant in the proportions.
"""

from __future__ import annotations

import numpy as np

from bimix_tune.laws.base import (
    ALPHA,
    BASE,
    BETA,
    DELTA,
    EPS,
    MEAN,
    PHI,
    SPREAD,
    Prior,
    own_carriers,
    power_of,
)
from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

POOLS = (ALPHA, BETA, PHI, EPS)
"""Coordinates that the targets of a fit share a prior of; the position here is the pool's label."""


class Bimix:
    """The law of a target's own proportion."""

    name = "bimix"

    def prior(self, space: SearchSpace) -> Prior:
        v = len(space.target_names)
        groups = np.full((v, BASE), -1, dtype=np.int64)
        for pool, position in enumerate(POOLS):
            groups[:, position] = pool
        without = [i is None for i in space.own]
        groups[np.ix_(without, (ALPHA, EPS))] = -1  # their loss does not depend on r
        squares = np.arange(BASE) == DELTA
        return Prior(
            np.tile(MEAN, (v, 1)), np.tile(SPREAD, (v, 1)), groups, (True,) * len(POOLS), squares
        )

    def start(self, theta: Array, space: SearchSpace) -> Array:
        return theta

    def share(self, theta: Array, space: SearchSpace, r: Array) -> tuple[Array, Array]:
        x = np.exp(theta[..., EPS, None]) + _own_shares(space, r)
        value, jacobian, _ = power_of(x, theta[..., :BASE], theta.shape[-1])
        return value, jacobian

    def slope(self, theta: Array, space: SearchSpace, r: Array) -> Array:
        alpha, eps = (np.exp(theta[..., i, None]) for i in (ALPHA, EPS))
        by_x = -alpha / (eps + _own_shares(space, r))
        return np.asarray(by_x[..., None] * own_carriers(space)[:, None, :])

    def terms(self, theta: Array, space: SearchSpace, factor: Array) -> Terms:
        own = own_carriers(space)
        without = own.sum(axis=1) == 0
        alpha, eps = np.exp(theta[..., ALPHA]), np.exp(theta[..., EPS])
        carriers = np.broadcast_to(own, (*alpha.shape, own.shape[1]))
        eps = np.where(without, eps + 1.0, eps)
        return Terms(factor, alpha, eps, carriers, np.ones_like(alpha))

    def by_domain(self, theta: Array, space: SearchSpace) -> list[tuple[str, Array]]:
        own = own_carriers(space)
        return [("transfer", row if row.any() else np.ones_like(row)) for row in own]


def _own_shares(space: SearchSpace, r: Array) -> Array:
    """r of each target's own domain; one, the sum of all, for a target without, (V, N)."""
    own = own_carriers(space)
    return np.asarray(own @ r.T + (own.sum(axis=1) == 0)[:, None])
