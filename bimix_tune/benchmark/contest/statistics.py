"""Which strategies are better over all problems, and how sure that is.

Ranks, not regrets, are averaged over problems, whose scales differ (Demsar 2006, "Statistical
Comparisons of Classifiers over Multiple Data Sets", JMLR 7). P problems, A strategies, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from bimix_tune.benchmark.contest.metrics import Standing
from bimix_tune.simplex import Array

DRAWS = 2000
"""Of the bootstrap."""
SHARES = (0.25, 0.5, 1.0)
"""Of the runs after which strategies are ranked."""
ALPHA = 0.05
"""Level of the tests; intervals are of 95 %."""


@dataclass(frozen=True, eq=False)
class Results:
    """Regrets of all strategies on all problems after some share of the runs.

    Args:
        strategies: Names, (A,).
        problems: Names, (P,).
        regrets: One array (A, S) for each problem, NaN in the row of who did not play it.
    """

    strategies: tuple[str, ...]
    problems: tuple[str, ...]
    regrets: tuple[Array, ...]

    @property
    def means(self) -> Array:
        """Over seeds, (P, A)."""
        return np.array([r.mean(axis=1) for r in self.regrets])

    def everywhere(self) -> Results:
        """The same of those strategies only that played all problems."""
        keep = np.flatnonzero(np.isfinite(self.means).all(axis=0))
        names = tuple(self.strategies[i] for i in keep)
        return Results(names, self.problems, tuple(r[keep] for r in self.regrets))


def results(standings: Sequence[Standing], share: float = 1.0) -> Results:
    """After a share of the runs, rounded up."""
    strategies = tuple(dict.fromkeys(s.strategy for s in standings))
    problems = tuple(dict.fromkeys(s.problem for s in standings))
    regrets = []
    for problem in problems:
        members = [s for s in standings if s.problem == problem]
        rows = np.full((len(strategies), len(members[0].regrets)), np.nan)
        for s in members:
            at = math.ceil(share * s.regrets.shape[1]) - 1
            rows[strategies.index(s.strategy)] = s.regrets[:, at]
        regrets.append(rows)
    return Results(strategies, problems, tuple(regrets))


@dataclass(frozen=True, eq=False)
class Ranks:
    """Mean ranks over problems, 1 at best.

    Args:
        strategies: Names, (A,).
        mean: Mean rank, (A,).
        low: Lower end of its 95 % interval, (A,).
        high: Upper end, (A,).
    """

    strategies: tuple[str, ...]
    mean: Array
    low: Array
    high: Array


def mean_ranks(given: Results, draws: int = DRAWS, seed: int = 0) -> Ranks:
    """Ranks of mean regrets among those who played a problem, averaged over problems.

    The bootstrap draws problems, and seeds within them; a seed's noise is common to all
    strategies, so it is drawn for all of them together.
    """
    rng = np.random.default_rng(seed)
    resampled = []  # (A, B) each
    for regrets in given.regrets:
        size = regrets.shape[1]
        chosen = rng.integers(size, size=(draws, size))
        resampled.append(_ranked(regrets[:, chosen].mean(axis=2)))
    ranks = np.array(resampled)
    problems = rng.integers(len(ranks), size=(draws, len(ranks)))
    drawn = np.stack([_known_mean(ranks[p, :, b]) for b, p in enumerate(problems)])
    low, high = np.nanquantile(drawn, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    return Ranks(given.strategies, _known_mean(_ranked(given.means.T).T), low, high)


def _ranked(costs: Array) -> Array:
    """Ranks down each column, (A, B), among those with a value; equal costs share their mean."""
    return np.asarray(rankdata(costs, axis=0, nan_policy="omit"))


def _known_mean(ranks: Array) -> Array:
    """Over problems, (P, A) -> (A,); NaN without any."""
    known = np.isfinite(ranks)
    count = known.sum(axis=0)
    total = np.where(known, ranks, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def wins(given: Results, ours: str) -> dict[str, float]:
    """Probability that ours has less regret than each other one, by name.

    Over seeds, then over the problems that both played; equal regrets are half a win.
    """
    own = given.strategies.index(ours)
    found = {}
    for at, name in enumerate(given.strategies):
        shares = [
            float((r[own] < r[at]).mean() + 0.5 * (r[own] == r[at]).mean())
            for r in given.regrets
            if np.isfinite(r[[own, at]]).all()
        ]
        if at != own and shares:
            found[name] = float(np.mean(shares))
    return found


@dataclass(frozen=True, eq=False)
class Comparison:
    """All strategies against each other by the test of Nemenyi.

    Args:
        strategies: Names, the best first, (A,).
        ranks: Mean ranks, (A,).
        problems: Number of problems.
        p: Of Friedman's test that all are alike; NaN for fewer than three strategies.
        critical: Difference of mean ranks beyond which two strategies differ.
    """

    strategies: tuple[str, ...]
    ranks: Array
    problems: int
    p: float
    critical: float

    @property
    def alike(self) -> list[tuple[int, int]]:
        """First and last of the largest groups whose members do not differ."""
        groups: list[tuple[int, int]] = []
        for first, rank in enumerate(self.ranks):
            last = int(np.flatnonzero(self.ranks - rank <= self.critical).max())
            if last > first and (not groups or last > groups[-1][1]):
                groups.append((first, last))
        return groups


def compare(given: Results) -> Comparison | None:
    """Of the strategies that played all problems; None if that is one only, or one problem."""
    given = given.everywhere()
    if len(given.strategies) < 2 or len(given.problems) < 2:
        return None
    ranks = _ranked(given.means.T)  # (A, P)
    mean = ranks.mean(axis=1)
    order = np.argsort(mean, kind="stable")
    p = math.nan
    if len(mean) > 2 and np.ptp(ranks) > 0:
        p = float(friedmanchisquare(*ranks).pvalue)
    return Comparison(
        tuple(given.strategies[i] for i in order),
        mean[order],
        len(given.problems),
        p,
        critical_difference(len(mean), len(given.problems)),
    )


def critical_difference(strategies: int, problems: int, alpha: float = ALPHA) -> float:
    """``q sqrt(A (A + 1) / (6 P))`` with q of the studentised range over sqrt 2 (Demsar 2006).

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    q = float(studentized_range.ppf(1.0 - alpha, strategies, np.inf)) / math.sqrt(2.0)
    return q * math.sqrt(strategies * (strategies + 1) / (6.0 * problems))
