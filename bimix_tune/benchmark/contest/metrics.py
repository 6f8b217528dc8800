"""How good a strategy was on a problem, over its matches.

The course of a match is the true regret of the run that *measured* best so far, among complete
runs: what a user would have picked. Before the first complete run it is one, that of a typical
mixture, and a match that breaks off keeps what it has: a strategy gains nothing by failing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bimix_tune.benchmark.contest.match import Match
from bimix_tune.benchmark.problems.base import TYPICAL_DRAWS, Problem
from bimix_tune.simplex import Array, dirichlet

NOTHING_SEEN = 1.0
"""Regret without a complete run."""
TOPS = (0.05, 0.01)
"""Shares of all mixtures that a strategy is to get into."""
REFERENCE = "tpe-ilr"
"""The strategy whose final quality the others are to reach, unless another one is named."""
SLACK = 1e-9
"""Rounding of sums and regrets."""


@dataclass(frozen=True)
class Ground:
    """What matches of a problem are judged by.

    Args:
        problem: Its name.
        kind: Its kind.
        tops: Regret that the best share of all mixtures does not exceed, by share. Of a pool
            these are its candidates by rank, and of a space `TYPICAL_DRAWS` flat random
            mixtures: in the top 1 % is what beats 99 % of them.
    """

    problem: str
    kind: str
    tops: Mapping[float, float]


def ground(problem: Problem) -> Ground:
    """Of a problem."""
    points = problem.candidates
    if points is None:
        k, low, high = len(problem.space.names), problem.space.low, problem.space.high
        points = dirichlet(np.random.default_rng(0), np.full(k, 1 / k), k, low, high, TYPICAL_DRAWS)
    regrets = np.sort(problem.regret(points))
    tops = {share: float(regrets[math.ceil(share * len(regrets)) - 1]) for share in TOPS}
    return Ground(problem.name, problem.kind, tops)


@dataclass(frozen=True, eq=False)
class Band:
    """Regrets over seeds; arrays over runs or tokens, (N,).

    Args:
        mean: Mean.
        median: Median.
        low: First quartile.
        high: Third quartile.
    """

    mean: Array
    median: Array
    low: Array
    high: Array


@dataclass(frozen=True, eq=False)
class Standing:
    """One strategy on one problem, over S seeds and N runs.

    Args:
        problem: Name of the problem.
        strategy: Name of the strategy.
        regrets: Course of each match, (S, N).
        by_tokens: Course against tokens: after 1 ... N times those of a complete run, (N,).
        runs_to: Runs until half of the matches are in a top share, by share; inf: never.
        tokens_to: Tokens, in complete runs, until half of the matches have a median final
            regret like the reference's; inf: never; NaN: there is no reference.
        reference_tokens: What the reference needs for it.
        spent: Median tokens of a match, in complete runs.
        recommended: Mean true regret of what is used in the end, by kind: best seen, own, law.
        saved: Share of the tokens of the runs asked for that was saved by stopping them.
        seconds: Median wall time of thinking for one run.
        failures: Causes of matches broken off and of recommendations not made, with counts.
        broken: Matches broken off.
    """

    problem: str
    strategy: str
    regrets: Array
    by_tokens: Band
    runs_to: Mapping[float, float]
    tokens_to: float
    reference_tokens: float
    spent: float
    recommended: Mapping[str, float]
    saved: float
    seconds: float
    failures: Mapping[str, int] = field(default_factory=dict)
    broken: int = 0

    @property
    def by_run(self) -> Band:
        """Regret after each run, (N,)."""
        return band(self.regrets)

    @property
    def ratio(self) -> float:
        """Tokens to the reference's final quality in units of what the reference needs."""
        return self.tokens_to / self.reference_tokens if self.reference_tokens > 0 else math.nan

    @property
    def final(self) -> float:
        """Mean regret at the end."""
        return float(self.regrets[:, -1].mean())


def standings(
    matches: Sequence[Match], grounds: Sequence[Ground], reference: str = REFERENCE
) -> list[Standing]:
    """By problem and strategy, in the order of the matches.

    Args:
        matches: All of one number of runs on each problem.
        grounds: Of their problems.
        reference: The strategy whose final quality is the others' aim.
    """
    groups: dict[tuple[str, str], list[Match]] = {}
    for match in matches:
        groups.setdefault((match.problem, match.strategy), []).append(match)
    places = {g.problem: g for g in grounds}
    found = []
    for (problem, _), group in groups.items():
        rival = groups.get((problem, reference), [])
        found.append(_standing(group, places[problem], rival))
    return found


def _standing(matches: Sequence[Match], place: Ground, rival: Sequence[Match]) -> Standing:
    regrets = np.array([course(m) for m in matches])
    runs = np.arange(1, regrets.shape[1] + 1)
    needed, unit = math.nan, math.nan
    if rival:
        aim = float(np.median([course(m)[-1] for m in rival]))
        needed, unit = tokens_to(matches, aim), tokens_to(rival, aim)
    causes: dict[str, int] = {}
    for cause in (c for m in matches for c in (*m.notes, m.failure) if c):
        causes[cause] = causes.get(cause, 0) + 1
    asked = sum(len(m.tokens) for m in matches)
    return Standing(
        problem=place.problem,
        strategy=matches[0].strategy,
        regrets=regrets,
        by_tokens=band(np.array([by_tokens(m) for m in matches])),
        runs_to={s: half_reached(first(regrets, top, runs)) for s, top in place.tops.items()},
        tokens_to=needed,
        reference_tokens=unit,
        spent=float(np.median([spent(m)[-1] for m in matches])),
        recommended={
            "best seen": float(regrets[:, -1].mean()),
            "own": _mean([m.own for m in matches]),
            "law": _mean([m.law for m in matches]),
        },
        saved=1.0 - sum(spent(m)[-1] for m in matches) / asked if asked else math.nan,
        seconds=float(np.median([s for m in matches for s in m.seconds])) if asked else math.nan,
        failures=causes,
        broken=sum(bool(m.failure) for m in matches),
    )


def course(match: Match) -> Array:
    """True regret of the run that measured best so far, after each run, (N,)."""
    found = np.full(match.runs, NOTHING_SEEN)
    best, now = math.inf, NOTHING_SEEN
    for at in range(match.runs):
        if at < len(match.measured) and match.measured[at] < best:
            best, now = match.measured[at], match.regret[at]
        found[at] = now
    return found


def spent(match: Match) -> Array:
    """Tokens spent up to each run, in units of a complete run, (N,)."""
    total = np.zeros(match.runs)
    total[: len(match.tokens)] = np.array(match.tokens) / match.complete
    return np.asarray(np.cumsum(total))


def by_tokens(match: Match) -> Array:
    """The course after the tokens of 1 ... N complete runs, (N,); a run counts at its end."""
    ended = np.searchsorted(spent(match)[: len(match.tokens)], np.arange(match.runs) + 1 + SLACK)
    return np.concatenate([[NOTHING_SEEN], course(match)])[ended]


def tokens_to(matches: Sequence[Match], aim: float) -> float:
    """Tokens, in complete runs, until half of the matches have a regret of the aim or less."""
    return half_reached(
        np.array([first(course(m)[None], aim, spent(m))[0] for m in matches], dtype=float)
    )


def first(regrets: Array, aim: float, places: Array) -> Array:
    """Where courses (S, N) first reach the aim: a place (N,) for each of them, or inf, (S,)."""
    reached = regrets <= aim + SLACK
    return np.where(reached.any(axis=1), places[reached.argmax(axis=1)], np.inf)


def half_reached(places: Array) -> float:
    """The least place by which half of the matches, (S,), have arrived.

    >>> half_reached(np.array([3.0, np.inf, 5.0, np.inf]))
    5.0
    """
    return float(np.sort(places)[(len(places) - 1) // 2])


def band(regrets: Array) -> Band:
    """Over the matches, (S, N)."""
    low, median, high = np.quantile(regrets, [0.25, 0.5, 0.75], axis=0)
    return Band(regrets.mean(axis=0), median, low, high)


def _mean(values: Sequence[float]) -> float:
    """Of the values there are."""
    known = [v for v in values if math.isfinite(v)]
    return float(np.mean(known)) if known else math.nan
