"""The optimum for any carriers: Newton's method on the objective with a logarithmic barrier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bimix_tune import simplex
from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import Array

TIE_BREAK = 1e-9
"""Weight, relative to the objective, of staying near the prior where the law is indifferent."""


def interior(terms: Terms, low: Array, high: Array, prior: Array) -> Array:
    """The best mixture for any carriers.

    With ``z = r - low`` and barrier weight mu the steps minimise, under ``sum(r) = 1``,

        f(r) / f(start) + tie * KL(r | prior) - mu * sum(log z + log(high - r)),

    and mu falls to 1e-12, which bounds the relative distance to the optimum by 2 K mu.

    Args:
        terms: The objective.
        low: Lower bounds, (K,), feasible together with ``high``.
        high: Upper bounds, (K,).
        prior: Natural proportions, (K,).

    Returns:
        Proportions, (K,), within bounds, sum one.
    """
    width = high - low
    room = 1.0 - low.sum()
    if room <= 1e-12 or width.sum() - room <= 1e-12:
        return simplex.settle(low + width * min(room / max(width.sum(), 1e-300), 1.0), low, high)
    free = width > 1e-12
    z = width[free] * (room / width[free].sum())
    start = low.copy()
    start[free] += z
    scaled = terms._replace(c=terms.c / float(terms.parts(start[None]).sum()))
    barrier = _Barrier.build(scaled, low, width, free, np.maximum(prior[free], 1e-12))
    for mu in 10.0 ** -np.arange(1.0, 12.5, 0.5):
        z = barrier.descend(z, float(mu))
    r = low.copy()
    r[free] += z
    return simplex.settle(r, low, high)


class _Barrier(NamedTuple):
    """The barrier problem of `interior` on the domains whose bounds leave room, F of them.

    Args:
        shared: Summands of several domains, carriers (V, F).
        alone: Summands of one domain each, carriers (S, 1): they need no (S, F) arrays.
        domain: The domains of the latter, (S,).
        low, width, prior: (F,).
    """

    shared: Terms
    alone: Terms
    domain: NDArray[np.int64]
    low: Array
    width: Array
    prior: Array

    @classmethod
    def build(
        cls, terms: Terms, low: Array, width: Array, free: NDArray[np.bool_], prior: Array
    ) -> _Barrier:
        """Fixed domains become part of the floors."""
        still = np.where(free, 0.0, low)[None]
        carriers = terms.carriers[:, free]
        terms = terms._replace(eps=terms.eps + terms.carried(still)[:, 0], carriers=carriers)
        single = (carriers > 0).sum(1) == 1
        shared, alone = (Terms(*(part[rows] for part in terms)) for rows in (~single, single))
        domain = alone.carriers.argmax(1)
        alone = alone._replace(carriers=alone.carriers[np.arange(len(domain)), domain][:, None])
        return cls(shared, alone, domain, low[free], width[free], prior)

    def value(self, z: Array, mu: float) -> float:
        r = self.low + z
        logs = np.log(r)
        f = sum(_fall(terms, at)[0].sum() for terms, at in self._groups(logs))
        tie = TIE_BREAK * (r * (logs - np.log(self.prior))).sum()
        return float(f + tie - mu * (np.log(z) + np.log(self.width - z)).sum())

    def _groups(self, logs: Array) -> tuple[tuple[Terms, Array], tuple[Terms, Array]]:
        """Summands with the logarithms of the proportions that they see, (1, F) and (S, 1)."""
        return (self.shared, logs[None]), (self.alone, logs[self.domain][:, None])

    def derivatives(self, logs: Array) -> tuple[Array, Array]:
        """Gradient (F,) and Hessian (F, F) of the objective alone."""
        (shared, at), (alone, own) = self._groups(logs)
        _, first, second, inner, bend = _fall(shared, at)
        gradient = first @ inner
        hessian = (inner.T * second) @ inner
        diagonal = first @ bend
        _, first, second, inner, bend = _fall(alone, own)
        size = len(logs)
        gradient += np.bincount(self.domain, first * inner[:, 0], size)
        curved = second * inner[:, 0] ** 2 + first * bend[:, 0]
        diagonal += np.bincount(self.domain, curved, size)
        hessian[np.diag_indices(size)] += diagonal
        return gradient, hessian

    def newton(self, z: Array, mu: float) -> tuple[Array, float]:
        """The step that keeps the sum, and the slope along it."""
        r, above = self.low + z, self.width - z
        logs = np.log(r)
        gradient, hessian = self.derivatives(logs)
        gradient += TIE_BREAK * (logs - np.log(self.prior) + 1.0) - mu / z + mu / above
        hessian[np.diag_indices(len(z))] += TIE_BREAK / r + mu / z**2 + mu / above**2
        scale = 1.0 / np.sqrt(np.diagonal(hessian))
        both = np.stack([gradient, np.ones(len(z))], axis=1) * scale[:, None]
        hessian *= scale[:, None]
        hessian *= scale
        ascent, unit = (np.linalg.solve(hessian, both) * scale[:, None]).T
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


def _fall(terms: Terms, logs: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Summands by r = exp(logs), each seen through x.

    Returns:
        Values (V,), first and second derivatives by x (V,) each, and the first and second
        derivatives of x by r, (V, F) each.
    """
    power = terms.power[:, None]
    raised = terms.carriers * np.exp(power * logs)
    x = terms.eps + raised.sum(1)
    value = terms.c * x**-terms.alpha
    first = -terms.alpha * value / x
    inner = power * raised * np.exp(-logs)
    bend = (power - 1.0) * inner * np.exp(-logs)
    return value, first, -(terms.alpha + 1.0) * first / x, inner, bend
