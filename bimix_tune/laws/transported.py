"""A law of one model size as a start for another: many cheap runs help a few expensive ones.

    log L_i(r, s) = log growth_i(s) + alpha_i (log S_i(r) - mean over the runs of log S_i)

S is the law of the smaller size at its greatest token count. Mixtures rank alike across sizes
(rank correlation .97 from 1M to 60M parameters, .98 from 122M to 1.2B), so an affine map of the
small size's log loss for each target is nearly enough; alpha is one a priori and pooled over the
targets, so that two expensive runs teach something.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from bimix_tune.laws.base import ALPHA, EPS, Prior
from bimix_tune.laws.bimix import POOLS, Bimix
from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

if TYPE_CHECKING:
    from bimix_tune.laws.ladder import Ladder

ALPHA_SPREAD = 0.3
"""Prior spread of log alpha about zero."""


class Transported:
    """The law of another model size, stretched.

    Args:
        source: The fit to the smaller size.
        centre: Its mean log losses over the runs, (V,).
    """

    name = "transported"

    def __init__(self, source: Ladder, centre: Array) -> None:
        self.source = source
        self.centre = centre

    def prior(self, space: SearchSpace) -> Prior:
        base = Bimix().prior(space)
        mean, sd, groups = base.mean.copy(), base.sd.copy(), base.groups.copy()
        mean[:, ALPHA], sd[:, ALPHA] = 0.0, ALPHA_SPREAD
        groups[:, ALPHA], groups[:, EPS] = POOLS.index(ALPHA), -1
        return dataclasses.replace(base, mean=mean, sd=sd, groups=groups)

    def start(self, theta: Array, space: SearchSpace) -> Array:
        return theta

    def share(self, theta: Array, space: SearchSpace, r: Array) -> tuple[Array, Array]:
        one = np.ones(len(r))
        contrast = self.source.surface.log_loss(r, one, one) - self.centre[:, None]
        alpha = np.exp(theta[..., ALPHA, None])
        value = alpha * contrast
        jacobian = np.zeros((*value.shape, theta.shape[-1]))
        jacobian[..., ALPHA] = value
        return value, jacobian

    def slope(self, theta: Array, space: SearchSpace, r: Array) -> Array:
        one = np.ones(len(r))
        alpha = np.exp(theta[..., ALPHA, None, None])
        return np.asarray(alpha * self.source.surface.slope(r, one, one))

    def terms(self, theta: Array, space: SearchSpace, factor: Array) -> Terms | None:
        return None

    def by_domain(self, theta: Array, space: SearchSpace) -> list[tuple[str, Array]]:
        return []
