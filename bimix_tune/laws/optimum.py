"""The best mixture under a law: minimise ``sum_v c_v x_v(r)^-alpha_v`` within bounds.

``x_v = eps_v + sum_j A_vj r_j`` is affine in r and ``x^-alpha`` convex, so the objective of
every law is convex on the simplex, and one local solution is the global one. Where each
summand depends on a domain of its own (BiMix; a single target that is a sum over domains) the
conditions of optimality solve in closed form up to a scalar ("water-filling"); otherwise
Newton's method with a barrier does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bimix_tune import simplex
from bimix_tune.simplex import Array

TIE_BREAK = 1e-9
"""Weight, relative to the objective, of staying near the prior where the law is indifferent."""


class Terms(NamedTuple):
    """The summands of the objective at one token count.

    A target is one summand or several; below, V counts summands.

    Args:
        c: Factors > 0, (V,); of any sign where the carriers are zero, which adds a constant.
        alpha: Exponents > 0, (V,).
        eps: Floors > 0, (V,).
        carriers: A >= 0, (V, K).
    """

    c: Array
    alpha: Array
    eps: Array
    carriers: Array
    power: Array

    def parts(self, r: Array) -> Array:
        """The summands, (M, K) -> (..., M, V), for terms of shape (..., V)."""
        x = self.eps[..., None, :] + r @ np.swapaxes(self.carriers, -1, -2)
        return np.asarray(self.c[..., None, :] * x ** -self.alpha[..., None, :])


def minimise(terms: Terms, low: Array, high: Array, prior: Array) -> Array:
    """The best mixture.

    Args:
        terms: The objective.
        low: Lower bounds, (K,), feasible together with ``high``.
        high: Upper bounds, (K,).
        prior: Natural proportions, (K,): where the law is indifferent, stay near them.

    Returns:
        Proportions, (K,), within bounds, sum one.
    """
    flat = np.ptp(terms.carriers, axis=1) == 0  # constant on the simplex
    terms = Terms(*(part[~flat & (terms.c > 0)] for part in terms))
    if not len(terms.c):
        return simplex.scale_into(prior, low, high)
    used = terms.carriers > 0
    if np.all(used.sum(1) == 1) and np.all(used.sum(0) <= 1):
        return water_fill(terms, low, high, prior)
    return interior(terms, low, high, prior)


def water_fill(terms: Terms, low: Array, high: Array, prior: Array) -> Array:
    """The exact optimum where target v depends on one domain d(v), and no two on the same.

    ``r_d = clip(((alpha c A^-alpha / lambda)^(1 / (1 + alpha)) - eps / A), low, high)`` with
    the one lambda that makes the sum one. Domains of no target get their lower bound, or, if
    the others are at their upper bounds already, the remainder in proportion to the prior.
    """
    domain = terms.carriers.argmax(1)
    worth = terms.carriers[np.arange(len(domain)), domain]
    alpha, eps = terms.alpha, terms.eps / worth
    slope = np.log(alpha * terms.c) - alpha * np.log(worth)
    inner_low, inner_high = low[domain], high[domain]
    idle = np.ones(len(low), bool)
    idle[domain] = False

    def path(log_water: float) -> Array:
        r = low.copy()
        level = np.exp(np.minimum((slope + log_water) / (1.0 + alpha), 50.0)) - eps
        r[domain] = np.clip(level, inner_low, inner_high)
        return r

    def overflow(scale: float) -> Array:
        r = high.copy()
        r[idle] = np.clip(scale * np.maximum(prior[idle], 1e-12), low[idle], high[idle])
        return r

    if inner_high.sum() + low[idle].sum() <= 1.0:
        r = simplex.bisect_to_one(overflow, 0.0, 1e13)
    else:
        starts = (1.0 + alpha) * np.log(inner_low + eps) - slope
        ends = (1.0 + alpha) * np.log(inner_high + eps) - slope
        r = simplex.bisect_to_one(path, float(starts.min()), float(ends.max()))
    return simplex.settle(r, low, high)


def interior(terms: Terms, low: Array, high: Array, prior: Array) -> Array:
    """The optimum for any carriers: Newton's method on the objective with a log barrier.

    With ``z = r - low`` and barrier weight mu the steps minimise, under ``sum(r) = 1``,

        f(r) / f(start) + tie * KL(r | prior) - mu * sum(log z + log(high - r)),

    and mu falls to 1e-12, which bounds the relative distance to the optimum by 2 K mu.
    """
    width = high - low
    room = 1.0 - low.sum()
    if room <= 1e-12 or width.sum() - room <= 1e-12:
        return simplex.settle(low + width * min(room / max(width.sum(), 1e-300), 1.0), low, high)
    free = width > 1e-12
    z = width[free] * (room / width.sum())
    z *= room / z.sum()
    start = low.copy()
    start[free] += z
    barrier = _Barrier(
        terms.c / float(terms.parts(start[None]).sum()),
        terms.alpha,
        terms.eps + terms.carriers @ low,
        terms.carriers[:, free],
        low[free],
        width[free],
        np.maximum(prior[free], 1e-12),
    )
    for mu in 10.0 ** -np.arange(1.0, 12.5, 0.5):
        z = barrier.descend(z, float(mu))
    r = low.copy()
    r[free] += z
    return simplex.settle(r, low, high)


class _Barrier(NamedTuple):
    """The barrier problem of `interior` on the domains whose bounds leave room, F of them.

    Args:
        c, alpha: Of the terms, (V,).
        eps: ``x`` at the lower bounds, (V,).
        carriers: (V, F).
        low, width, prior: (F,).
    """

    c: Array
    alpha: Array
    eps: Array
    carriers: Array
    low: Array
    width: Array
    prior: Array

    def value(self, z: Array, mu: float) -> float:
        r = self.low + z
        f = (self.c * (self.eps + self.carriers @ z) ** -self.alpha).sum()
        tie = TIE_BREAK * (r * np.log(r / self.prior)).sum()
        return float(f + tie - mu * (np.log(z) + np.log(self.width - z)).sum())

    def newton(self, z: Array, mu: float) -> tuple[Array, float]:
        """The step that keeps the sum, and the slope along it."""
        x = self.eps + self.carriers @ z
        first = self.c * self.alpha * x ** (-self.alpha - 1.0)
        r, above = self.low + z, self.width - z
        gradient = TIE_BREAK * (np.log(r / self.prior) + 1.0) - mu / z + mu / above
        gradient -= first @ self.carriers
        hessian = (self.carriers.T * (first * (self.alpha + 1.0) / x)) @ self.carriers
        diagonal = TIE_BREAK / r + mu / z**2 + mu / above**2
        hessian[np.diag_indices(len(z))] += diagonal
        scale = 1.0 / np.sqrt(np.diagonal(hessian))
        both = np.stack([gradient, np.ones(len(z))], axis=1) * scale[:, None]
        solved = np.linalg.solve(hessian * np.outer(scale, scale), both) * scale[:, None]
        ascent, unit = solved.T
        step = -(ascent - ascent.sum() / unit.sum() * unit)
        step -= step.sum() / unit.sum() * unit
        return step, float(gradient @ step)

    def descend(self, z: Array, mu: float) -> Array:
        """A few damped Newton steps at one barrier weight."""
        value = self.value(z, mu)
        for _ in range(12):
            step, slope = self.newton(z, mu)
            if -slope < 1e-3 * mu:
                break
            with np.errstate(divide="ignore"):
                limits = np.where(step < 0, -z / step, (self.width - z) / step)
            size = min(1.0, 0.95 * float(limits[step != 0].min()))
            while size > 1e-12:
                tried = z + size * step
                tried_value = self.value(tried, mu)
                if tried_value <= value + 0.1 * size * slope:
                    z, value = tried, tried_value
                    break
                size *= 0.5
            else:
                break
        return z
