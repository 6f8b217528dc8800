"""Rung two: other domains help too, with diminishing returns.

    L_i = x_i^-alpha_i (B_i s^-beta_i + C_i),
    x_i = eps_i + r_own^rho_i + sum_{j != own} T_ij r_j^rho_i,        0 < rho_i < 1.

T_ij >= 0 is the worth of domain j for target i. The exponent rho makes a little of many domains
worth more than much of one (a sum with constant elasticity of substitution, 1 / (1 - rho); Arrow
et al. 1961): with rho = 1 and T = 0 this is rung one. On published runs rho near 0.6 halves the
error of the same law with rho = 1 on four domains, and takes 15 to 25 % off on seventeen. x is
concave in r, so that ``x^-alpha`` stays convex and its optimum unique.

The coordinate of T is ``u = sqrt(T)`` with a normal prior about zero: the penalty ``u^2 = T`` is
linear in T, a lasso, so without evidence T is zero. Its spread is pooled over the domains of one
target. A target without own domain has u about one.
"""

from __future__ import annotations

import numpy as np

from bimix_tune.laws.base import ALPHA, BASE, EPS, SMALLEST, Prior, own_carriers, power_of
from bimix_tune.laws.bimix import POOLS, Bimix
from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

RHO = BASE
"""Position of logit rho; sqrt(T) follow."""
FIRST = BASE + 1
"""Position of the first sqrt(T)."""

TYPICAL_RHO = 0.6
RHO_SPREAD = 1.0
"""Prior spread of logit rho (0.48 to 0.71), pooled over targets in fitting."""
TRANSFER_SD = 0.3
"""Prior spread of sqrt(T): T is about 0.1 in the mean; pooled over a target in fitting."""
LIFT = 0.1
"""Where sqrt(T) starts at least, T = 0.01."""
OWNLESS_SD = 0.7
"""Prior spread of sqrt(T) about one for a target without own domain."""


class Transfer:
    """The law of a target's effective proportion."""

    name = "transfer"

    def prior(self, space: SearchSpace) -> Prior:
        base = Bimix().prior(space)
        own = own_carriers(space)
        ownless = own.sum(axis=1, keepdims=True) == 0
        rho = np.full((len(own), 1), np.log(TYPICAL_RHO / (1.0 - TYPICAL_RHO)))
        pools = len(base.free_mean)
        rows = np.where(own > 0, -1, pools + 1 + np.arange(len(own))[:, None])
        mean = base.mean.copy()
        mean[:, ALPHA] -= np.log(TYPICAL_RHO)  # typical exponents are those of r itself
        groups = base.groups.copy()
        groups[:, ALPHA], groups[:, EPS] = POOLS.index(ALPHA), POOLS.index(EPS)
        return Prior(
            np.hstack([mean, rho, np.where(ownless, 1.0, np.zeros_like(own))]),
            np.hstack(
                [
                    base.sd,
                    np.full_like(rho, RHO_SPREAD),
                    np.where(ownless, OWNLESS_SD, np.full_like(own, TRANSFER_SD)),
                ]
            ),
            np.hstack([groups, np.full(rho.shape, pools), rows]),
            (*base.free_mean, True, *[False] * len(own)),
            np.concatenate([base.squares, [False], np.ones(own.shape[1], bool)]),
        )

    def start(self, theta: Array, space: SearchSpace) -> Array:
        """Lift sqrt(T) off zero, where its slope vanishes and no step would ever leave."""
        start = theta.copy()
        start[..., FIRST:] = np.maximum(np.abs(start[..., FIRST:]), LIFT)
        return start

    def share(self, theta: Array, space: SearchSpace, r: Array) -> tuple[Array, Array]:
        rho, worth = _rho(theta), _worth(theta, space)
        log_r = np.log(np.maximum(r, 1e-300))
        power = np.exp(rho[..., None, None] * log_r) * (r > 0)  # (..., V, N, K)
        x = np.exp(theta[..., EPS, None]) + (power @ worth[..., None])[..., 0]
        value, jacobian, by_x = power_of(x, theta[..., :BASE], theta.shape[-1])
        by_rho = ((power * log_r) @ worth[..., None])[..., 0]
        jacobian[..., RHO] = by_x * by_rho * (rho * (1.0 - rho))[..., None]
        u = theta[..., FIRST:] * (1.0 - own_carriers(space))
        jacobian[..., FIRST:] = by_x[..., None] * (2.0 * u[..., None, :]) * power
        return value, jacobian

    def slope(self, theta: Array, space: SearchSpace, r: Array) -> Array:
        rho, worth = _rho(theta)[..., None, None], _worth(theta, space)[..., None, :]
        alpha, eps = (np.exp(theta[..., i, None]) for i in (ALPHA, EPS))
        safe = np.maximum(r, SMALLEST)
        x = eps + (worth * safe**rho).sum(-1)
        return np.asarray((-alpha / x)[..., None] * worth * rho * safe ** (rho - 1.0))

    def terms(self, theta: Array, space: SearchSpace, factor: Array) -> Terms:
        alpha, eps = np.exp(theta[..., ALPHA]), np.exp(theta[..., EPS])
        return Terms(factor, alpha, eps, _worth(theta, space), _rho(theta))

    def by_domain(self, theta: Array, space: SearchSpace) -> list[tuple[str, Array]]:
        return [("transfer", row) for row in _worth(theta, space)]


def _rho(theta: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-theta[..., RHO])))


def _worth(theta: Array, space: SearchSpace) -> Array:
    """One for the own domain and T for the others, (..., V, P) -> (..., V, K)."""
    own = own_carriers(space)
    return np.asarray(own + (1.0 - own) * theta[..., FIRST:] ** 2)
