"""The best mixture, or the worst, under any surface of losses, objective and linear bounds.

Convex laws have exact optima (`bimix_tune.laws.optimum.exact`), which are used where the problem
is one of theirs. Other smooth surfaces (a Gaussian process on top of a law) may have several local
optima: a local search runs from the most promising of many mixtures. Surfaces without derivatives
are searched by simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bimix_tune.laws.optimum.exact import minimise
from bimix_tune.laws.optimum.landscape import Landscape
from bimix_tune.laws.optimum.local_search import COARSE, FINE, better, descend
from bimix_tune.laws.optimum.objectives import Mean, greatest
from bimix_tune.laws.optimum.problem import Problem
from bimix_tune.laws.optimum.region import Region
from bimix_tune.laws.optimum.simulation import simulate
from bimix_tune.simplex import Array

RANDOM = 64
"""Random mixtures among the candidates for a start."""
LOCAL = 4
"""Local searches, from the best candidates."""
MANY = 200
"""With more domains, where a step takes a second, there is one local search."""
ROUNDS = 3
"""How often a local search continues from something better that was found near its end."""
TOLERANCE = 1e-7
"""An optimum may be missed by this part of how far the objective varies over the candidates."""


@dataclass(frozen=True, eq=False)
class Optimum:
    """A mixture and how it was found.

    Args:
        proportions: (K,), within bounds and groups, sum one.
        value: The objective there, without the divergence from the prior.
        converged: Whether nothing better was found near it: by the first-order conditions, or,
            in a simulation, by the last round. With several local optima it need not be the best.
        status: How the search ended, in words.
    """

    proportions: Array
    value: float
    converged: bool
    status: str


def solve(
    problem: Problem,
    rng: np.random.Generator | None = None,
    iterations: int = 300,
    rough: bool = False,
) -> Optimum:
    """The best mixture (or the worst) of a problem.

    Args:
        problem: What is sought.
        rng: Source of random starts and mixtures; None: always the same ones.
        iterations: Most iterations of a local search.
        rough: Whether the best of two local searches to `COARSE` will do, in half of the time.

    Raises:
        FitError: The surface or the objective gives something that is not a finite number.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    land, region = problem.landscape, problem.region
    if region.free.sum() < 2:
        return _optimum(
            land, region.inside(problem.prior[None])[0], True, "the bounds leave one mixture"
        )
    exact = _exact(problem, land)
    if exact is not None:
        return _optimum(land, exact, True, "exact: the problem is convex")
    candidates = _candidates(problem, rng)
    if problem.surface.slopes is None:
        return _optimum(land, *simulate(land, region, candidates, rng))
    return _smooth(land, region, candidates, iterations, rough)


def _exact(problem: Problem, land: Landscape) -> Array | None:
    """The exact optimum of a mean of sums of powers, (K,), or None if the problem is not one."""
    terms, region = problem.terms, problem.region
    if terms is None or problem.worst or not isinstance(land.objective, Mean):
        return None
    sums = region.strict if problem.groups else None
    if problem.groups and sums is None:
        return None
    found = minimise(terms, region.low, region.high, problem.prior, problem.kl, sums)
    return region.inside(found[None])[0] if problem.groups else found


def _optimum(land: Landscape, r: Array, converged: bool, status: str) -> Optimum:
    return Optimum(r, float(land.value(r[None])[0]), converged, status)


def _candidates(problem: Problem, rng: np.random.Generator) -> Array:
    """Mixtures of the region to begin from, the prior first, (S, K)."""
    k = len(problem.names)
    even = np.full((1, k), 1.0 / k)
    about = np.maximum(problem.prior * k / max(problem.prior.sum(), 1e-300), 1e-3)
    drawn = [rng.dirichlet(p, RANDOM // 2) for p in (np.ones(k), about)]
    given = np.empty((0, k)) if problem.starts is None else problem.starts
    wishes = [problem.prior[None], given, even, *drawn]
    inside = problem.region.inside(np.concatenate(wishes))
    if not problem.worst:
        return inside
    return np.concatenate([inside, problem.region.extremes()])  # where convex losses are greatest


def _smooth(
    land: Landscape, region: Region, candidates: Array, iterations: int, rough: bool
) -> Optimum:
    """The best of several local searches, continued until nothing near it is better."""
    total = land.total(candidates)
    unit = max(float(np.ptp(total)), 1e-9 * float(np.abs(total).max()), 1e-100)
    found = [
        (part, descend(part, region, start, unit, COARSE, iterations)[0])
        for part, start in _starts(land, candidates, total)[: 2 if rough else None]
    ]
    part, near = found[int(land.total(np.array([r for _, r in found])).argmin())]
    if rough:
        return _optimum(land, near, False, "local search: rough")
    for _ in range(ROUNDS):
        r, message = descend(part, region, near, unit, FINE, iterations)
        near, gain = better(part, region, r)
        if gain <= TOLERANCE * unit:
            return _optimum(land, r, True, f"local search: {message}; nothing near is better")
        if "limit" in message.lower():
            break
    status = f"local search: {message}; a step from there still gained {gain:.2g}"
    return _optimum(land, near, False, status)


def _starts(land: Landscape, candidates: Array, total: Array) -> list[tuple[Landscape, Array]]:
    """The best candidates, each with what to descend from there.

    To make the greatest loss large is to make one of the losses large: each target has its own
    best candidate.
    """
    count = LOCAL if candidates.shape[1] <= MANY else 1
    levels = greatest(land.objective, len(land.weights))
    if levels is None or land.sign > 0:
        return [(land, candidates[i]) for i in np.argsort(total, kind="stable")[:count]]
    heights = land.losses(candidates) - levels - land.pull(candidates)[:, None]
    heights = np.where(land.weights > 0, heights, -np.inf)
    targets = np.argsort(-heights.max(0), kind="stable")[: min(count, (land.weights > 0).sum())]
    return [(land.of_target(int(v)), candidates[heights[:, v].argmax()]) for v in targets]
