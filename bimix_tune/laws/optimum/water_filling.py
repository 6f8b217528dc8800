"""The exact optimum where every summand depends on a domain of its own ("water-filling").

With ``x = eps + A r^rho`` all domains between their bounds have one slope at the optimum,

    alpha c A rho r^(rho - 1) x^(-alpha - 1) = lambda,

and the one lambda is that for which the sum of the proportions is one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from bimix_tune import simplex
from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import Array

LEAST = 1e-300
"""Proportions below it are zero; its logarithm is finite."""


def water_fill(terms: Terms, low: Array, high: Array, prior: Array) -> Array:
    """The best mixture if summand v depends on one domain d(v), and no two on the same.

    Domains of no summand get their lower bound, or, if the others are at their upper bounds
    already, the remainder in proportion to the prior.

    Args:
        terms: The objective.
        low: Lower bounds, (K,), feasible together with ``high``.
        high: Upper bounds, (K,).
        prior: Natural proportions, (K,).

    Returns:
        Proportions, (K,), within bounds, sum one.
    """
    domain = terms.carriers.argmax(1)
    idle = np.ones(len(low), bool)
    idle[domain] = False
    if high[domain].sum() + low[idle].sum() <= 1.0:
        return simplex.scale_into(prior, np.where(idle, low, high), high)
    slope = _Slope(
        terms.alpha,
        terms.eps,
        terms.carriers[np.arange(len(domain)), domain],
        terms.power,
        np.log(terms.alpha * terms.c),
    )
    bottom, top = (np.log(np.maximum(bound[domain], LEAST)) for bound in (low, high))

    def mixture(level: float) -> Array:
        r = low.copy()
        r[domain] = np.clip(np.exp(slope.where(level, bottom, top)), low[domain], high[domain])
        return r

    steep, shallow = float(slope.at(bottom)[0].max()), float(slope.at(top)[0].min())
    if mixture(steep).sum() >= 1.0:  # the lower bounds leave nothing to choose
        return simplex.settle(low, low, high)
    level = brentq(lambda t: float(mixture(t).sum()) - 1.0, shallow - 1.0, steep, xtol=1e-14)
    return simplex.settle(mixture(float(level)), low, high)


class _Slope(NamedTuple):
    """The logarithm of the slope of each summand as a function of ``y = log r``, (V,) each:

        g(y) = log(alpha c A rho) + (rho - 1) y - (alpha + 1) log(eps + A e^(rho y)).

    g falls and is concave.
    """

    alpha: Array
    eps: Array
    carrier: Array
    power: Array
    scale: Array

    def at(self, y: Array) -> tuple[Array, Array]:
        """g and its derivative."""
        carried = self.carrier * np.exp(self.power * y)
        x = self.eps + carried
        value = self.scale + np.log(self.carrier * self.power) + (self.power - 1.0) * y
        fall = (self.power - 1.0) - (self.alpha + 1.0) * self.power * carried / x
        return value - (self.alpha + 1.0) * np.log(x), fall

    def where(self, level: float, bottom: Array, top: Array) -> Array:
        """The y in [bottom, top] nearest to ``g(y) = level``, (V,).

        Newton's method from the right: the tangent of a concave falling function meets the level
        between the root and the point of contact, so that the steps never overshoot.
        """
        y = top
        for _ in range(100):
            value, fall = self.at(y)
            moved = np.clip(y - (value - level) / np.minimum(fall, -LEAST), bottom, top)
            if np.all(np.abs(moved - y) <= 1e-15 * np.abs(y)):
                break
            y = moved
        return np.asarray(moved)
