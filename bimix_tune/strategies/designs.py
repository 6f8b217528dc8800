"""Where a search with Gaussian processes begins, and the mixtures among which it seeks."""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from bimix_tune import simplex
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace
from bimix_tune.strategies.random_search import flat

LARGEST_DESIGN = 16
"""Runs before the first model, at most; else twice the domains, or half the budget."""
FLAT, NEAR = 512, 64
"""Mixtures tried: flat ones, and around each of the best for each of `FOCUS`."""
FOCUS = tuple(4.0**i for i in range(1, 6))
"""Concentrations about a mixture, as multiples of the number of domains."""


def design(space: SearchSpace, runs: int, seed: int) -> Array:
    """Mixtures to begin with, (n, K): a Sobol sequence, mapped to the flat Dirichlet distribution.

    ``x_i = -log u_i`` are exponential, and their shares in the sum flat.
    """
    k = len(space.names)
    size = max(2, min(2 * k, LARGEST_DESIGN, runs // 2))
    u = qmc.Sobol(k, rng=seed).random_base2(int(np.ceil(np.log2(size))))[:size]
    x = -np.log(np.clip(u, 1e-12, 1.0 - 1e-12))
    return simplex.scale_into(x / x.sum(axis=1, keepdims=True), space.low, space.high)


def trial_points(rng: np.random.Generator, space: SearchSpace, centres: Array) -> Array:
    """Flat mixtures, those about the natural mixture and about the centres (C, K), (M, K)."""
    k = len(space.names)
    about = [space.natural().proportions, *centres]
    near = [
        simplex.dirichlet(rng, centre, focus * k, space.low, space.high, NEAR)
        for centre in about
        for focus in FOCUS
    ]
    return np.concatenate([flat(rng, space, FLAT), *near])
