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


def interior(
    terms: Terms,
    low: Array,
    high: Array,
    prior: Array,
    kl: float = 0.0,
    sums: Sums | None = None,
) -> Array:
    """The best mixture for any carriers.

    With ``z = r - low`` and barrier weight mu the steps minimise, under ``sum(r) = 1``,

        (f(r) + kl * KL(r | prior)) / f(start) + tie * KL(r | prior)
            - mu * sum(log z + log(high - r)) - mu * sum(log(limits - sides @ r)),

    and mu falls to 1e-12, which bounds the relative distance to the optimum by (2 K + H) mu.

    Args:
        terms: The objective.
        low: Lower bounds, (K,), feasible together with ``high``.
        high: Upper bounds, (K,).
        prior: Natural proportions, (K,).
        kl: Weight of the divergence from them.
        sums: Further bounds, with a mixture that is strictly within them and the others.

    Returns:
        Proportions, (K,), within bounds, sum one.
    """
    width = high - low
    room = 1.0 - low.sum()
    if room <= 1e-12 or width.sum() - room <= 1e-12:
        return simplex.settle(low + width * min(room / max(width.sum(), 1e-300), 1.0), low, high)
    free = width > 1e-12
    start = low + np.where(free, width, 0.0) * (room / width[free].sum())
    start = start if sums is None else sums.within
    z = start[free] - low[free]
    size = float(terms.parts(start[None]).sum()) or max(kl, 1.0)
    scaled = terms._replace(c=terms.c / size)
    barrier = _Barrier.build(scaled, low, width, free, prior, TIE_BREAK + kl / size, sums)
    for mu in 10.0 ** -np.arange(1.0, 12.5, 0.5):
        z = barrier.descend(z, float(mu))
    r = low.copy()
    r[free] += z
    return simplex.settle(r, low, high)


class Sums(NamedTuple):
    """Linear bounds ``sides @ r <= limits`` and equations ``rows @ r = values``.

    Args:
        sides: (H, K).
        limits: (H,).
        rows: (E, K), the sum of all proportions among them.
        within: A mixture that satisfies all strictly, (K,).
    """

    sides: Array
    limits: Array
    rows: Array
    within: Array


class _Barrier(NamedTuple):
    """The barrier problem of `interior` on the domains whose bounds leave room, F of them.

    Args:
        shared: Summands of several domains, carriers (V, F).
        alone: Summands of one domain each, carriers (S, 1): they need no (S, F) arrays.
        domain: The domains of the latter, (S,).
        low, width, prior: (F,).
        pull: Weight of the divergence from the prior.
        sides, limits: Of ``sides @ z <= limits``, (H, F) and (H,).
        rows: Of what a step does not change, (E, F).
    """

    shared: Terms
    alone: Terms
    domain: NDArray[np.int64]
    low: Array
    width: Array
    prior: Array
    pull: float
    sides: Array
    limits: Array
    rows: Array

    @classmethod
    def build(
        cls,
        terms: Terms,
        low: Array,
        width: Array,
        free: NDArray[np.bool_],
        prior: Array,
        pull: float,
        sums: Sums | None,
    ) -> _Barrier:
        """Fixed domains become part of the floors."""
        still = np.where(free, 0.0, low)[None]
        carriers = terms.carriers[:, free]
        terms = terms._replace(eps=terms.eps + terms.carried(still)[:, 0], carriers=carriers)
        single = (carriers > 0).sum(1) == 1
        shared, alone = (Terms(*(part[rows] for part in terms)) for rows in (~single, single))
        domain = alone.carriers.argmax(1)
        alone = alone._replace(carriers=alone.carriers[np.arange(len(domain)), domain][:, None])
        k = len(low)
        if sums is None:
            sums = Sums(np.empty((0, k)), np.empty(0), np.ones((1, k)), low)
        return cls(
            shared,
            alone,
            domain,
            low[free],
            width[free],
            np.maximum(prior[free], 1e-12),
            pull,
            sums.sides[:, free],
            sums.limits - sums.sides @ low,
            sums.rows[:, free],
        )

    def value(self, z: Array, mu: float) -> float:
        r = self.low + z
        logs = np.log(r)
        f = sum(_fall(terms, at)[0].sum() for terms, at in self._groups(logs))
        pull = self.pull * (r * (logs - np.log(self.prior))).sum()
        walls = np.log(z).sum() + np.log(self.width - z).sum() + np.log(self.slack(z)).sum()
        return float(f + pull - mu * walls)

    def slack(self, z: Array) -> Array:
        """Room to the further bounds, (H,)."""
        return np.asarray(self.limits - self.sides @ z)

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
        """The step that keeps the equations, and the slope along it."""
        r, above = self.low + z, self.width - z
        logs = np.log(r)
        gradient, hessian = self.derivatives(logs)
        gradient += self.pull * (logs - np.log(self.prior) + 1.0) - mu / z + mu / above
        hessian[np.diag_indices(len(z))] += self.pull / r + mu / z**2 + mu / above**2
        if len(self.limits):
            slack = self.slack(z)
            gradient += mu * (self.sides.T @ (1.0 / slack))
            hessian += (self.sides.T * (mu / slack**2)) @ self.sides
        scale = 1.0 / np.sqrt(np.diagonal(hessian))
        both = np.column_stack([gradient, self.rows.T]) * scale[:, None]
        hessian *= scale[:, None]
        hessian *= scale
        solved = np.linalg.solve(hessian, both) * scale[:, None]
        ascent, across = solved[:, 0], solved[:, 1:]
        step = -ascent
        for _ in range(2):  # the second time for rounding
            step = step - across @ (np.linalg.pinv(self.rows @ across) @ (self.rows @ step))
        return step, float(gradient @ step)

    def reach(self, z: Array, step: Array) -> float:
        """How many steps lead to the nearest bound."""
        with np.errstate(divide="ignore", invalid="ignore"):
            limits = np.where(step < 0, -z / step, (self.width - z) / step)
            approach = self.sides @ step
            further = np.where(approach > 0, self.slack(z) / approach, np.inf)
        return float(min(limits[step != 0].min(), further.min(initial=np.inf)))

    def descend(self, z: Array, mu: float) -> Array:
        """A few damped Newton steps at one barrier weight."""
        value = self.value(z, mu)
        for _ in range(12):
            step, slope = self.newton(z, mu)
            if -slope < 1e-3 * mu:
                break
            size = min(1.0, 0.95 * self.reach(z, step))
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
