"""Rung one: BiMix with a floor, ``L_i = (eps_i + r_own)^-alpha_i (B_i s^-beta_i + C_i)``.

Ge et al., arXiv 2405.14908, eq. 1-3. The floor eps_i makes a proportion of zero data instead
of infinity. Each target sees its own domain only, so two to four runs are enough.
"""

from __future__ import annotations

import numpy as np

from bimix_tune.laws.base import (
    ALPHA,
    BETA,
    DELTA,
    EPS,
    MEAN,
    PHI,
    SPREAD,
    Prior,
    own_carriers,
    product,
    product_terms,
)
from bimix_tune.laws.optimum import Terms
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace


class Bimix:
    """The law of a target's own proportion."""

    name = "bimix"

    def prior(self, space: SearchSpace) -> Prior:
        v = len(space.target_names)
        groups = np.full((v, 6), -1, dtype=np.int64)
        for pool, position in enumerate((ALPHA, BETA, PHI, EPS)):
            groups[:, position] = pool
        without = [i is None for i in space.own]
        groups[np.ix_(without, (ALPHA, EPS))] = -1  # their loss does not depend on r
        squares = np.arange(6) == DELTA
        return Prior(np.tile(MEAN, (v, 1)), np.tile(SPREAD, (v, 1)), groups, (True,) * 4, squares)

    def start(self, mean: Array, space: SearchSpace) -> Array:
        return mean

    def by_domain(self, theta: Array, space: SearchSpace) -> list[tuple[str, Array]]:
        return [("transfer", row) for row in own_carriers(space)]

    def terms(self, theta: Array, space: SearchSpace, factor: Array) -> Terms:
        own = own_carriers(space)
        return product_terms(theta, np.broadcast_to(own, (*theta.shape[:-1], own.shape[1])), factor)

    def log_loss(
        self, theta: Array, space: SearchSpace, r: Array, t: Array, decayed: Array
    ) -> tuple[Array, Array]:
        y, jacobian, _ = product(theta, own_carriers(space), r, t, decayed)
        return y, jacobian
