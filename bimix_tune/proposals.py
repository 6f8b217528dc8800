"""Where the sampler looks: its start-up design, and the region that a law is trusted in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bimix_tune import simplex
from bimix_tune.errors import MixtureError
from bimix_tune.laws import LawFit
from bimix_tune.laws.optimum.objectives import ObjectiveLike, as_objective
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace
from bimix_tune.trials import PREFIX


def startup_mixture(space: SearchSpace, tried: Array, rng: np.random.Generator) -> Array:
    """The next mixture of the start-up design, (K,).

    First the natural mixture, then the uniform one, then of 64 random mixtures (half around
    the natural one, half flat) the one farthest from all tried, in square-root geometry
    (where a step at a small proportion counts for more; Hellinger distance).

    Args:
        space: The bounds.
        tried: Mixtures asked for so far, (N, K); failed ones too, not to fail alike again.
        rng: Source of randomness.
    """
    for wish in (space.natural(), space.uniform()):
        point = space.array(wish)
        if not len(tried) or np.abs(tried - point).max(axis=1).min() > 1e-3:
            return point
    k = len(space.names)
    around = [space.array(space.natural()), np.full(k, 1 / k)]
    pool = np.vstack([simplex.dirichlet(rng, c, k, space.low, space.high, 32) for c in around])
    distance = np.linalg.norm(np.sqrt(pool)[:, None] - np.sqrt(tried)[None], axis=2)
    return np.asarray(pool[distance.min(axis=1).argmax()])


def trust_region(space: SearchSpace, tried: Array) -> SearchSpace:
    """Bounds that keep each proportion between half the least and twice the greatest tried.

    A law of power form predicts with confidence where no run has been; this lets the
    search go there in steps. The mixtures tried lie inside, so some mixture always does.

    Args:
        space: The bounds.
        tried: Mixtures tried, (N, K).
    """
    low = np.maximum(space.low, np.minimum(0.5 * tried.min(axis=0), space.high))
    high = np.minimum(space.high, np.maximum(2.0 * tried.max(axis=0), space.low))
    if simplex.infeasibility(low, high):
        return space
    return bounded(space, low, high)


SAME = 1e-3
"""Mixtures that differ by less in every proportion are one experiment."""


def apart(
    best: Array,
    tried: Array,
    region: SearchSpace,
    law: LawFit,
    tokens: float,
    objective: ObjectiveLike,
    rng: np.random.Generator,
) -> Array:
    """The best mixture, or a good one beside it if it has been tried or is running, (K,).

    A certain law (of losses without noise) has one optimum for all draws, and runs in parallel
    would repeat each other.

    Args:
        best: The optimum, (K,).
        tried: Mixtures tried or running, (N, K).
        region: Where to look.
        law: Judges the mixtures beside it.
        tokens: Training tokens.
        objective: What is minimised.
        rng: Source of randomness.
    """
    if not len(tried) or np.abs(tried - best).max(axis=1).min() >= SAME:
        return best
    k, low, high = len(best), region.low, region.high
    beside = np.vstack([simplex.dirichlet(rng, best, c, low, high, 8) for c in (3e3, 3e2, 3e1)])
    away = np.abs(beside[:, None] - tried[None]).max(axis=2).min(axis=1) >= SAME
    if not away.any():  # the region is hardly more than a point
        return best
    score = as_objective(objective, law.space.target_names)
    values = score.value(law.predict(beside, tokens), law.space.weights)
    return np.asarray(beside[np.where(away, values, np.inf).argmin()]).reshape(k)


def bounded(space: SearchSpace, low: Array, high: Array) -> SearchSpace:
    """The space with other bounds, (K,) each."""
    domains = [
        dataclasses.replace(d, low=float(a), high=float(b))
        for d, a, b in zip(space.domains, low, high, strict=True)
    ]
    return SearchSpace(domains, space.targets, space.source)


def with_fixed(space: SearchSpace, fixed: Mapping[str, Any]) -> SearchSpace:
    """The space with the proportions that an enqueued trial fixes.

    Args:
        space: The bounds.
        fixed: Parameters by name; those that are no proportions are passed over.

    Raises:
        MixtureError: A proportion is outside its bounds, or no mixture of the space has these
            proportions.
    """
    low, high = space.low, space.high
    for i, name in enumerate(space.names):
        if PREFIX + name in fixed:
            value = float(fixed[PREFIX + name])
            if not low[i] <= value <= high[i]:
                raise MixtureError(
                    f"the enqueued proportion {value:g} of {name!r} is outside its bounds "
                    f"[{low[i]:g}, {high[i]:g}]"
                )
            low[i] = high[i] = value
    reason = simplex.infeasibility(low, high)
    if reason:
        given = {k: v for k, v in fixed.items() if k.startswith(PREFIX)}
        raise MixtureError(f"no mixture has the enqueued proportions {given}: {reason}")
    return bounded(space, low, high)
