"""The law for targets without own domain: a sum of terms, one in each proportion.

An aggregate (the mean loss over domains, a benchmark) gains from every domain, from each with
diminishing returns, and so is best somewhere inside the simplex. Such a target follows the form
that Olmix gives BiMix for targets out of domain
(Chen et al., arXiv 2602.12237: ``f_i(p) = sum_j A_ij p_j^-alpha_ij``), with a floor, one exponent,
and a constant:

    L_i = (B_i s^-beta_i + C_i) (1 + sum_j W_ij h_i(r_j)) exp(-delta_i d),
    h_i(r) = ((eps_i + r)^-alpha_i - (eps_i + 1)^-alpha_i) / alpha_i.

h falls to zero at r = 1 and has the limit ``log((eps + 1) / (eps + r))`` as alpha vanishes, so W_ij
is the relative loss that an e-fold of domain j removes, and losses known up to a constant only
(scores turned into losses) are met too. W >= 0 keeps the law convex in r. The coordinate is
``u = sqrt(W)``, pooled over domains: with little data they all count alike, and W = 0 is a target
constant in r. Targets with own domain follow `transfer`, so that this law contains `bimix`; of
`transfer` and this law neither contains the other, and held-out errors decide between them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from bimix_tune.laws.base import ALPHA, EPS, MEAN, SMALLEST, Prior
from bimix_tune.laws.terms import Terms
from bimix_tune.laws.transfer import FIRST, Transfer
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

TYPICAL_SUM = 0.12
"""Prior sum of W over the domains: as much as the typical alpha of a target with own domain."""

SPREAD = 1.0
"""Prior spread of sqrt(W) over its mean. One half and less follow an even mean of losses slightly
better, two a single loss (RegMix's 13 and their mean, 8 runs: rank correlation .51 and .87 at .5,
.80 and .86 at one, .83 and .84 at two)."""


class Additive:
    """The law of a sum over domains, for targets that have none of their own."""

    name = "additive"

    def __init__(self) -> None:
        self._rest = Transfer()

    def prior(self, space: SearchSpace) -> Prior:
        prior = self._rest.prior(space)
        mean, sd, groups = prior.mean.copy(), prior.sd.copy(), prior.groups.copy()
        rows = _ownless(space)
        centre = np.sqrt(TYPICAL_SUM / len(space.names))
        mean[rows, ALPHA] = MEAN[ALPHA]
        mean[rows, FIRST:], sd[rows, FIRST:] = centre, SPREAD * centre
        groups[rows, FIRST:] = len(prior.free_mean)
        free = (*prior.free_mean, True)
        return dataclasses.replace(prior, mean=mean, sd=sd, groups=groups, free_mean=free)

    def start(self, theta: Array, space: SearchSpace) -> Array:
        return self._rest.start(theta, space)

    def share(self, theta: Array, space: SearchSpace, r: Array) -> tuple[Array, Array]:
        value, jacobian = self._rest.share(theta, space, r)
        rows = _ownless(space)
        value[..., rows, :], jacobian[..., rows, :, :] = _sum(theta[..., rows, :], r)
        return value, jacobian

    def slope(self, theta: Array, space: SearchSpace, r: Array) -> Array:
        slope = self._rest.slope(theta, space, r)
        rows = _ownless(space)
        alpha, eps = (np.exp(theta[..., rows, i, None, None]) for i in (ALPHA, EPS))
        u = theta[..., rows, None, FIRST:]
        total = 1.0 + (u**2 * _returns(alpha, eps, r)[0]).sum(-1)
        x = eps + np.maximum(r, SMALLEST)
        slope[..., rows, :, :] = -(u**2) * x ** (-alpha - 1.0) / total[..., None]
        return slope

    def by_domain(self, theta: Array, space: SearchSpace) -> list[tuple[str, Array]]:
        rows = self._rest.by_domain(theta, space)
        for i in _ownless(space):
            rows[i] = ("additive", theta[i, FIRST:] ** 2)
        return rows

    def terms(self, theta: Array, space: SearchSpace, factor: Array) -> Terms:
        """A constant in place of each sum, and the sums' powers after all targets."""
        rows, k = _ownless(space), len(space.names)
        c, alpha, eps, carriers, power = self._rest.terms(theta, space, factor)
        size = factor[..., rows, None] * theta[..., rows, FIRST:] ** 2 / alpha[..., rows, None]
        steep, floor = (np.broadcast_to(a[..., rows, None], size.shape) for a in (alpha, eps))
        alone = np.broadcast_to(np.eye(k), (*size.shape, k)).reshape(*size.shape[:-2], -1, k)
        c, eps, carriers = c.copy(), eps.copy(), carriers.copy()
        c[..., rows] -= (size * (floor + 1.0) ** -steep).sum(-1)
        eps[..., rows], carriers[..., rows, :] = 1.0, 0.0

        def joined(targets: Array, powers: Array) -> Array:
            flat = powers.reshape(*powers.shape[:-2], -1)
            return np.concatenate([targets, flat], axis=-1)

        return Terms(
            joined(c, size),
            joined(alpha, steep),
            joined(eps, floor),
            np.concatenate([carriers, alone], axis=-2),
            joined(power, np.ones_like(size)),
        )


def _ownless(space: SearchSpace) -> NDArray[np.int64]:
    """Positions of the targets without own domain."""
    return np.flatnonzero([i is None for i in space.own])


def _sum(theta: Array, r: Array) -> tuple[Array, Array]:
    """Log shares (..., V, N) and derivatives (..., V, N, P) of targets without own domain."""
    alpha, eps = (np.exp(theta[..., i, None, None]) for i in (ALPHA, EPS))
    u = theta[..., None, FIRST:]
    h, by_alpha, by_eps = _returns(alpha, eps, r)
    total = 1.0 + (u**2 * h).sum(-1)
    jacobian = np.zeros((*total.shape, theta.shape[-1]))
    jacobian[..., ALPHA] = (alpha * u**2 * by_alpha).sum(-1) / total
    jacobian[..., EPS] = (eps * u**2 * by_eps).sum(-1) / total
    jacobian[..., FIRST:] = 2.0 * u * h / total[..., None]
    return np.log(total), jacobian


def _returns(alpha: Array, eps: Array, r: Array) -> tuple[Array, Array, Array]:
    """h(r) and its derivatives by alpha and eps, all of broadcast shape (..., V, N, K)."""
    x, top = eps + r, eps + 1.0
    fall = np.log(top / x)
    z = alpha * fall
    small = z < 1e-3
    safe = np.where(small, 1.0, z)
    grown = np.where(small, 1.0 + z / 2.0 + z**2 / 6.0, np.expm1(safe) / safe)  # (e^z - 1) / z
    slope = np.where(
        small, 0.5 + z / 3.0 + z**2 / 8.0, (np.exp(safe) - np.expm1(safe) / safe) / safe
    )
    unit = top**-alpha
    h = unit * fall * grown
    by_alpha = unit * fall**2 * slope - np.log(top) * h
    by_eps = unit * (1.0 / top - np.exp(z) / x)
    return h, by_alpha, by_eps
