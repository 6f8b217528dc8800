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

SAME = 1e-3
"""Greatest difference of a proportion between mixtures that count as one."""
STARTUP_DRAWS = 64
"""Random mixtures of which the start-up design takes the one farthest from all tried."""


def startup_mixture(
    space: SearchSpace,
    tried: Array,
    rng: np.random.Generator,
    pool: Array | None = None,
    skip: int = 0,
) -> Array:
    """The next mixture of the start-up design, (K,).

    First the natural mixture, then the uniform one, then of 64 random mixtures (half around
    the natural one, half flat) the one farthest from all tried, in square-root geometry
    (where a step at a small proportion counts for more; Hellinger distance).

    Args:
        space: The bounds.
        tried: Mixtures asked for so far, (N, K); failed ones too, not to fail alike again.
        rng: Source of randomness.
        pool: The only mixtures allowed, none of them tried, (M, K): the nearest ones to natural
            and uniform come first, then the farthest of 64 of them. None: all of the space.
        skip: How many of natural and uniform are left to others that ask at this moment.
    """
    wishes = [space.array(space.natural()), space.array(space.uniform())]
    if np.abs(wishes[0] - wishes[1]).max() <= SAME:  # one wish, not one for each of two that ask
        wishes.pop()
    if pool is not None:
        turn = len(tried) + skip
        if turn < len(wishes):
            return np.asarray(pool[nearest(pool, wishes[turn][None]).argmin()])
        drawn = pool[rng.permutation(len(pool))[:STARTUP_DRAWS]]
        return np.asarray(drawn[_farthest(drawn, tried)])
    left = [w for w in wishes if not len(tried) or np.abs(tried - w).max(axis=1).min() > SAME]
    if skip < len(left):
        return left[skip]
    k = len(space.names)
    half = STARTUP_DRAWS // 2
    around = (wishes[0], np.full(k, 1 / k))
    drawn = np.vstack([simplex.dirichlet(rng, c, k, space.low, space.high, half) for c in around])
    return np.asarray(drawn[_farthest(drawn, tried)])


def _farthest(drawn: Array, tried: Array) -> int:
    """The draw farthest from all tried; any if nothing has been tried."""
    return int(nearest(drawn, tried).argmax()) if len(tried) else 0


def nearest(points: Array, others: Array) -> Array:
    """Distance of points (M, K) to the nearest of others (N, K), in square-root geometry, (M,)."""
    return np.asarray(np.linalg.norm(np.sqrt(points)[:, None] - np.sqrt(others), axis=2).min(1))


def best_of(
    law: LawFit, pool: Array, region: SearchSpace, tokens: float, objective: ObjectiveLike
) -> Array:
    """The candidate with the least predicted objective, (K,); one inside the region, if any is.

    Args:
        law: A fitted law, or a draw from one.
        pool: Candidates, (M, K).
        region: Where the law is trusted.
        tokens: Training tokens to judge at.
        objective: As `bimix_tune.laws.optimise` has it.
    """
    inside = ((pool >= region.low) & (pool <= region.high)).all(axis=1)
    pool = pool[inside] if inside.any() else pool
    return np.asarray(pool[_values(law, pool, tokens, objective).argmin()])


def best_first(law: LawFit, pool: Array, tokens: float, objective: ObjectiveLike) -> Array:
    """The candidates in order of their predicted objective, (M, K)."""
    return np.asarray(pool[_values(law, pool, tokens, objective).argsort(kind="stable")])


def _values(law: LawFit, pool: Array, tokens: float, objective: ObjectiveLike) -> Array:
    losses = law.losses_at(tokens).losses(pool)
    values = as_objective(objective, law.space.target_names).value(losses, law.space.weights)
    return np.asarray(values)


def scattered(
    centre: Array, region: SearchSpace, rng: np.random.Generator, count: int = 32
) -> Array:
    """Mixtures of a region, near a centre and farther from it, (M, K).

    Args:
        centre: (K,).
        region: The bounds.
        rng: Source of randomness.
        count: How many at each distance.
    """
    low, high = region.low, region.high
    spread = [simplex.dirichlet(rng, centre, c, low, high, count) for c in (1e3, 1e2, 1e1)]
    return np.vstack(spread)


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
