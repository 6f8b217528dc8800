"""Search without derivatives: many random mixtures, and the mean of the best.

So RegMix chooses its mixture (Liu et al., arXiv 2407.01492: the mean of the best 128 of 100 000
mixtures drawn from a Dirichlet distribution about the prior). A surface of trees is piecewise
constant and noisy; the mean of many good mixtures is more trustworthy than the best of them. Here
the draws come in rounds that close in on the mean so far, which needs fewer of them.
"""

from __future__ import annotations

import numpy as np

from bimix_tune.laws.optimum.landscape import Landscape
from bimix_tune.laws.optimum.region import Region
from bimix_tune.simplex import Array

DRAWS = 2048
"""Mixtures drawn in each round."""
BEST = 64
"""How many of the best are averaged."""
FOCUS = tuple(2.0**i for i in range(8))
"""Concentration of the draws in each round, as a multiple of the number of domains: one is flat
about the uniform mixture, 128 changes proportions of 1/K by about a tenth. On a law of 50
domains eight rounds miss the optimum by a fifteenth of what it gains on the prior, four rounds of
twice as many draws, with steps of four, by a quarter."""
SETTLED = 1e-2
"""The search has converged if the last round improves the mean's value by no more than this part
of the values' spread in the first."""


def simulate(
    land: Landscape, region: Region, starts: Array, rng: np.random.Generator
) -> tuple[Array, bool, str]:
    """The mean of the best random mixtures.

    Args:
        land: What is to be small; its slopes are not asked for.
        region: Where.
        starts: Mixtures of the region to begin around, (S, K), S > 0.
        rng: Source of randomness.

    Returns:
        A mixture of the region, (K,), whether the rounds have settled, and that in words.
    """
    pool, total = starts, land.total(starts)
    centres, values, spread = starts, [float(total.min())], 0.0
    for focus in FOCUS:
        drawn = _around(centres, focus * starts.shape[1], region, rng)
        pool, total = np.concatenate([pool, drawn]), np.append(total, land.total(drawn))
        spread = spread or float(np.ptp(total))
        order = np.argsort(total, kind="stable")[:BEST]
        pool, total = pool[order], total[order]
        centre = _representative(land, pool, total)
        centres = centre[None]
        values.append(float(land.total(centres)[0]))
    gain = values[-2] - values[-1]
    settled = gain <= SETTLED * spread
    words = "has settled" if settled else f"still improved by {gain:.2g} in the last round"
    drawn_in_all = DRAWS * len(FOCUS)
    return centre, settled, f"simulation: the mean of the best of {drawn_in_all} mixtures {words}"


def _around(
    centres: Array, concentration: float, region: Region, rng: np.random.Generator
) -> Array:
    """Mixtures about each of the centres in turn, about DRAWS in all, (M, K)."""
    each = -(-DRAWS // len(centres))
    parameters = [np.maximum(c * concentration, 1e-3) for c in centres]
    return region.inside(np.concatenate([rng.dirichlet(p, each) for p in parameters]))


def _representative(land: Landscape, pool: Array, total: Array) -> Array:
    """The mean of a pool in ascending order, or, where that lies between good places, its best."""
    mean = pool.mean(0)
    return mean if land.total(mean[None])[0] <= total[-1] else np.asarray(pool[0])
