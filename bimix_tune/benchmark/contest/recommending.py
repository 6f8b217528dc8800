"""What to use in the end: the strategy's own word, and that of our law fitted to its runs.

The second tells how much the runs that a strategy chose are worth, apart from its model.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.errors import MixtureError, one_line
from bimix_tune.laws import fit, optimise
from bimix_tune.simplex import Array
from bimix_tune.strategies.base import Strategy

KINDS = ("own", "law")


def recommendations(problem: Problem, strategy: Strategy) -> tuple[dict[str, float], list[str]]:
    """True regrets by kind, NaN where there is no recommendation, and why there is none."""
    makers: dict[str, Callable[[], Array]] = {
        "own": strategy.recommend,
        "law": lambda: by_law(problem, strategy),
    }
    regrets, notes = dict.fromkeys(KINDS, math.nan), []
    for kind, make in makers.items():
        try:
            r = np.array(make(), dtype=float)
            wrong = problem.space.violation(problem.space.mixture(r))
            if wrong is not None:
                raise MixtureError(wrong)
            regrets[kind] = judged(problem, r)
        except Exception as error:  # noqa: BLE001 - strategies are anybody's code
            notes.append(f"{kind}: {one_line(error)}")
    return regrets, notes


def by_law(problem: Problem, strategy: Strategy) -> Array:
    """The optimum of our law fitted to all curves of a strategy, (K,)."""
    found = fit(strategy.curves, problem.space, judge=False)
    if problem.candidates is None:
        best = optimise(found, problem.space, problem.tokens, objective=problem.objective)
        return problem.space.array(best)
    losses = found.losses_at(problem.tokens).losses(problem.candidates)
    return np.asarray(problem.candidates[strategy.setting.value(losses).argmin()])


def judged(problem: Problem, r: Array) -> float:
    """True regret of a mixture (K,); with candidates that of the nearest one (Hellinger)."""
    if problem.candidates is not None:
        far = np.linalg.norm(np.sqrt(problem.candidates) - np.sqrt(np.maximum(r, 0.0)), axis=1)
        r = problem.candidates[far.argmin()]
    return float(problem.regret(r[None])[0])
