"""A straight line in the proportions, for targets without own domain and noisy scores.

    log L_i = log growth_i(s) + sum_j c_ij r_j

The coefficients have a normal prior about zero whose spread is pooled over the domains of one
target, so this is ridge regression of the log loss with the penalty by evidence: the log-linear
form of OLMix (Chen et al., arXiv 2602.12237) without its constant. On noisy accuracies it was the
only form that explained anything at 64 runs.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bimix_tune.laws.base import ALPHA, BASE, EPS, Prior
from bimix_tune.laws.bimix import Bimix
from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

COEFFICIENT_SD = 0.3
"""Prior spread of a coefficient: all tokens from one domain change the loss by about a third."""


class Linear:
    """The law of a line."""

    name = "linear"

    def prior(self, space: SearchSpace) -> Prior:
        base = Bimix().prior(space)
        v, k = len(base.mean), len(space.names)
        groups = base.groups.copy()
        groups[:, [ALPHA, EPS]] = -1
        pools = len(base.free_mean)
        rows = np.broadcast_to(pools + np.arange(v)[:, None], (v, k))
        return dataclasses.replace(
            base,
            mean=np.hstack([base.mean, np.zeros((v, k))]),
            sd=np.hstack([base.sd, np.full((v, k), COEFFICIENT_SD)]),
            groups=np.hstack([groups, rows]),
            free_mean=(*base.free_mean, *[False] * v),
            squares=np.concatenate([base.squares, np.zeros(k, bool)]),
        )

    def start(self, theta: Array, space: SearchSpace) -> Array:
        return theta

    def share(self, theta: Array, space: SearchSpace, r: Array) -> tuple[Array, Array]:
        value = theta[..., BASE:] @ r.T
        jacobian = np.zeros((*value.shape, theta.shape[-1]))
        jacobian[..., BASE:] = r
        return value, jacobian

    def slope(self, theta: Array, space: SearchSpace, r: Array) -> Array:
        lines = theta[..., None, BASE:]
        return np.asarray(np.broadcast_to(lines, (*lines.shape[:-2], len(r), r.shape[1])))

    def terms(self, theta: Array, space: SearchSpace, factor: Array) -> Terms | None:
        return None

    def by_domain(self, theta: Array, space: SearchSpace) -> list[tuple[str, Array]]:
        return [("linear", row) for row in theta[:, BASE:]]
