"""The best mixture under a law: minimise ``sum_v c_v x_v(r)^-alpha_v`` within bounds.

The objective of every law is convex on the simplex (`bimix_tune.laws.terms`), and one local
solution is the global one. Where each summand depends on a domain of its own (BiMix; a single
target that is a sum over domains) the conditions of optimality solve up to a scalar
("water-filling"); otherwise Newton's method with a barrier does. What is not such a sum, or has
other objectives, is the matter of `bimix_tune.laws.optimum.search`.
"""

from __future__ import annotations

import numpy as np

from bimix_tune import simplex
from bimix_tune.laws.optimum.barrier import Sums, interior
from bimix_tune.laws.optimum.water_filling import water_fill
from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import Array


def minimise(
    terms: Terms,
    low: Array,
    high: Array,
    prior: Array,
    kl: float = 0.0,
    sums: Sums | None = None,
) -> Array:
    """The best mixture.

    Args:
        terms: The objective.
        low: Lower bounds, (K,), feasible together with ``high``.
        high: Upper bounds, (K,).
        prior: Natural proportions, (K,): where the law is indifferent, stay near them.
        kl: Adds ``kl * KL(r || prior)`` to the objective.
        sums: Further linear bounds.

    Returns:
        Proportions, (K,), within bounds, sum one.
    """
    even = np.ptp(terms.carriers, axis=1) == 0
    flat = even & ((terms.power == 1.0) | (terms.carriers[:, 0] == 0))  # constant on the simplex
    terms = Terms(*(part[~flat & (terms.c > 0)] for part in terms))
    if kl > 0 or sums is not None:
        return interior(terms, low, high, prior, kl, sums)
    if not len(terms.c):
        return simplex.scale_into(prior, low, high)
    used = terms.carriers > 0
    if np.all(used.sum(1) == 1) and np.all(used.sum(0) <= 1):
        return water_fill(terms, low, high, prior)
    return interior(terms, low, high, prior)
