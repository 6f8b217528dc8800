"""Everything that tables and the page show, worked out once from the matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bimix_tune.benchmark.contest.match import Match
from bimix_tune.benchmark.contest.metrics import REFERENCE, Ground, Standing, standings
from bimix_tune.benchmark.contest.statistics import (
    SHARES,
    Comparison,
    Ranks,
    Results,
    compare,
    mean_ranks,
    results,
    wins,
)

OURS = "bimix"
"""Strategies whose name begins like that are this package's own."""
MAIN = "bimix-tune"
"""The one of them that users get; the others leave a part of it out."""


@dataclass(frozen=True, eq=False)
class Summary:
    """Of a contest.

    Args:
        matches: All of them.
        grounds: Of the problems.
        reference: The strategy whose final quality is the others' aim.
        passed_over: Sentences about who does not play what.
        command: How to repeat it.
    """

    matches: Sequence[Match]
    grounds: Sequence[Ground]
    reference: str = REFERENCE
    passed_over: tuple[str, ...] = ()
    command: str = ""

    @cached_property
    def standings(self) -> list[Standing]:
        """By problem, and strategies by rank."""
        found = standings(self.matches, self.grounds, self.reference)
        order = {name: at for at, name in enumerate(_by_rank(results(found)))}
        problems = self.problems
        return sorted(found, key=lambda s: (problems.index(s.problem), order[s.strategy]))

    @cached_property
    def by_name(self) -> dict[tuple[str, str], Standing]:
        """Standings by problem and strategy."""
        return {(s.problem, s.strategy): s for s in self.standings}

    @property
    def problems(self) -> list[str]:
        """In their order."""
        return list(dict.fromkeys(m.problem for m in self.matches))

    @cached_property
    def strategies(self) -> list[str]:
        """The best mean rank first."""
        return _by_rank(self.final)

    @cached_property
    def final(self) -> Results:
        """At the end."""
        return results(self.standings)

    @cached_property
    def ranks(self) -> dict[float, Ranks]:
        """Mean ranks after shares of the runs."""
        return {share: mean_ranks(results(self.standings, share)) for share in SHARES}

    @cached_property
    def comparison(self) -> Comparison | None:
        """Nemenyi's test at the end."""
        return compare(self.final)

    @cached_property
    def ours(self) -> list[str]:
        """This package's strategies, the main one first and the others by rank."""
        found = [name for name in self.strategies if name.startswith(OURS)]
        return sorted(found, key=lambda name: name != MAIN)

    @cached_property
    def beaten(self) -> dict[str, float]:
        """How often the first of ours has less regret than each other one."""
        return wins(self.final, self.ours[0]) if self.ours else {}


def _by_rank(found: Results) -> list[str]:
    """Names, the best mean rank first."""
    mean = mean_ranks(found, draws=1).mean
    return [found.strategies[i] for i in mean.argsort(kind="stable")]
