"""The results as sheets of text, which the terminal, markdown and the page show alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bimix_tune.benchmark.contest.metrics import TOPS, Standing
from bimix_tune.benchmark.contest.statistics import SHARES, Ranks
from bimix_tune.benchmark.contest.summary import Summary

NOTE = (
    "Regret: the true objective of the run that measured best, minus the least there is, in units "
    "of what a typical mixture has (the median of random ones, or of the candidates): 0 is the "
    "best mixture, 1 a typical one. Means over seeds unless it says otherwise."
)
EQUAL = 1e-9
"""Numbers that differ by less share the first place."""


@dataclass(frozen=True)
class Sheet:
    """A table.

    Args:
        name: A word that identifies it.
        title: What it shows.
        note: How to read it.
        head: Names of the columns; the first one holds text, the others numbers.
        rows: Cells.
        best: Positions of the best cells, (row, column).
    """

    name: str
    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()

    def markdown(self) -> str:
        """With the best cells in bold."""
        lines = [_line(self.head), _line(["---"] + ["---:"] * (len(self.head) - 1))]
        for i, row in enumerate(self.rows):
            marked = [f"**{c}**" if (i, j) in self.best else c for j, c in enumerate(row)]
            lines.append(_line(marked))
        return "\n".join(lines)

    @property
    def widths(self) -> tuple[int, ...]:
        """Characters that each column needs, its name broken between words."""
        columns = zip(*self.rows, strict=True) if self.rows else ([] for _ in self.head)
        return tuple(
            max(len(text) for text in (*head.split(), *cells))
            for head, cells in zip(self.head, columns, strict=True)
        )

    def parts(self, width: int) -> Iterator[Sheet]:
        """Sheets of at most so many characters, each with the first column."""
        first, *others = (w + 1 for w in self.widths)
        keep, used = [0], first
        for at, need in enumerate(others, 1):
            if used + need > width and len(keep) > 1:
                yield self._of(keep)
                keep, used = [0], first
            keep.append(at)
            used += need
        yield self._of(keep)

    def _of(self, columns: Sequence[int]) -> Sheet:
        """The same with some columns only."""
        best = frozenset((i, columns.index(j)) for i, j in self.best if j in columns)
        rows = tuple(tuple(row[j] for j in columns) for row in self.rows)
        return replace(self, head=tuple(self.head[j] for j in columns), rows=rows, best=best)


def sheets(summary: Summary) -> list[Sheet]:
    """All tables, the most important first."""
    found = [
        _ranks(summary),
        _grid(summary, "final", "Final regret", NOTE, lambda s: s.final, _regret, mean=True),
        _grid(
            summary,
            "tops",
            f"Runs to a mixture of the top {100 * min(TOPS):g} %",
            "Runs until half of the matches hold a mixture that beats "
            f"{100 - 100 * min(TOPS):g} % of the candidates, or of random mixtures where "
            "there are none.",
            lambda s: s.runs_to[min(TOPS)],
            lambda v, s: f"{v:.0f}" if math.isfinite(v) else f"> {s.regrets.shape[1]}",
        ),
    ]
    if summary.reference in summary.strategies:
        found.append(
            _grid(
                summary,
                "tokens",
                f"Tokens to the final quality of {summary.reference}",
                f"Until half of the matches have the median final regret of {summary.reference}, "
                "in units of what that strategy needs for it: 0.5 is half of its tokens.",
                lambda s: s.ratio,
                _ratio,
            )
        )
    return [*found, _recommended(summary), _effort(summary)]


def markdown(summary: Summary) -> str:
    """A chapter for each sheet."""
    lines = ["# How well strategies find mixtures", "", NOTE]
    for sheet in sheets(summary):
        lines += ["", f"## {sheet.title}", ""]
        lines += [*([sheet.note, ""] if sheet.note != NOTE else []), sheet.markdown()]
    if summary.passed_over:
        lines += ["", "## Passed over", "", *(f"- {note}" for note in summary.passed_over)]
    if causes := failures(summary):
        lines += ["", "## Failures", "", *(f"- {cause}" for cause in causes)]
    if summary.command:
        lines += ["", "## How to repeat it", "", f"    {summary.command}"]
    return "\n".join(lines) + "\n"


def failures(summary: Summary) -> list[str]:
    """A sentence for each strategy and cause."""
    places: dict[tuple[str, str], list[str]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for s in summary.standings:
        for cause, count in s.failures.items():
            places.setdefault((s.strategy, cause), []).append(s.problem)
            counts[s.strategy, cause] += count
    return [
        f"{name} on {', '.join(places[name, cause])}, {many(count, 'match', 'matches')}: {cause}"
        for (name, cause), count in counts.items()
    ]


def many(number: int, one: str, more: str) -> str:
    """A number of things.

    >>> many(1, "match", "matches"), many(2, "match", "matches")
    ('1 match', '2 matches')
    """
    return f"{number} {one if number == 1 else more}"


def _ranks(summary: Summary) -> Sheet:
    """Mean ranks after shares of the runs, and how often ours wins."""
    names, ours = summary.strategies, summary.ours
    head = ["strategy", *(f"rank at {100 * share:.0f} %" for share in SHARES)]
    columns = [[_interval(ranks, n) for n in names] for ranks in summary.ranks.values()]
    numbers = [[_mean_rank(ranks, n) for n in names] for ranks in summary.ranks.values()]
    if ours:
        head.append(f"{ours[0]} wins")
        columns.append([_share(summary.beaten.get(n, math.nan)) for n in names])
        numbers.append([math.nan] * len(names))
    count = {n: sum((p, n) in summary.by_name for p in summary.problems) for n in names}
    if len(set(count.values())) > 1:
        head.append("problems")
        columns.append([str(count[n]) for n in names])
        numbers.append([math.nan] * len(names))
    note = (
        f"Mean rank over {many(len(summary.problems), 'problem', 'problems')} by regret after "
        "shares of the runs, with 95 % intervals of a bootstrap over problems and seeds; 1 is best."
    )
    if ours:
        note += f" Last: how often {ours[0]} has less final regret, ties half."
    return Sheet("ranks", "Ranks", note, tuple(head), _rows(names, columns), _best(numbers))


Number = Callable[[Standing], float]
Text = Callable[[float, Standing], str]


def _grid(
    summary: Summary, name: str, title: str, note: str, number: Number, text: Text,
    mean: bool = False,
) -> Sheet:  # fmt: skip
    """Strategies by problems, with the mean in front if it means something."""
    names, problems = summary.strategies, summary.problems
    cells, numbers = [], []
    for problem in problems:
        found = [summary.by_name.get((problem, n)) for n in names]
        numbers.append([math.nan if s is None else number(s) for s in found])
        cells.append([_dash(v, text, s) for v, s in zip(numbers[-1], found, strict=True)])
    head = list(problems)
    if mean and len(problems) > 1:
        means = np.array(numbers).mean(axis=0).tolist()  # NaN without one of them: unfair
        head.insert(0, "mean")
        numbers.insert(0, means)
        cells.insert(0, [_number(v) for v in means])
    return Sheet(name, title, note, ("strategy", *head), _rows(names, cells), _best(numbers))


def _recommended(summary: Summary) -> Sheet:
    """What to use in the end, by kind."""
    kinds = ("best seen", "own", "law")
    names = summary.strategies
    numbers = [[recommended(summary, n, kind) for n in names] for kind in kinds]
    cells = [[_number(v) for v in column] for column in numbers]
    note = (
        "Mean regret over problems of three ways to choose in the end: the run that measured "
        "best, what the strategy itself recommends, and the optimum of our law fitted to all "
        "runs of the strategy. A dash: none on some problem."
    )
    return Sheet(
        "recommended", "What to use in the end", note,
        ("strategy", *kinds), _rows(names, cells), _best(numbers),
    )  # fmt: skip


def recommended(summary: Summary, strategy: str, kind: str) -> float:
    """Mean regret of a recommendation over all problems; NaN if it lacks one: unfair to others."""
    found = [summary.by_name.get((problem, strategy)) for problem in summary.problems]
    return float(np.mean([math.nan if s is None else s.recommended[kind] for s in found]))


def _effort(summary: Summary) -> Sheet:
    """Time to think, tokens saved, failures."""
    names = summary.strategies
    members = [[s for s in summary.standings if s.strategy == n] for n in names]
    seconds = [float(np.median([s.seconds for s in group])) for group in members]
    cells = [
        [_seconds(v) for v in seconds],
        [_share(float(np.mean([s.saved for s in group]))) for group in members],
        [str(sum(s.broken for s in group)) for group in members],
    ]
    note = (
        "Median wall time of thinking for one run (to propose, stop and learn; one thread); "
        "share of the tokens saved by stopping runs; matches that a strategy broke off."
    )
    return Sheet(
        "effort", "Time, tokens saved, failures", note,
        ("strategy", "seconds a run", "tokens saved", "broken off"), _rows(names, cells),
        _best([seconds]),
    )  # fmt: skip


def _rows(names: Sequence[str], columns: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(zip(names, *columns, strict=True))


def _best(numbers: Sequence[Sequence[float]]) -> frozenset[tuple[int, int]]:
    """Where the least finite number of each column is; the first column is text."""
    found = set()
    for j, column in enumerate(numbers, 1):
        finite = [v for v in column if math.isfinite(v)]
        if finite:
            found |= {(i, j) for i, v in enumerate(column) if v <= min(finite) + EQUAL}
    return frozenset(found)


def _interval(ranks: Ranks, name: str) -> str:
    at = ranks.strategies.index(name)
    return f"{ranks.mean[at]:.1f} ({ranks.low[at]:.1f}–{ranks.high[at]:.1f})"


def _mean_rank(ranks: Ranks, name: str) -> float:
    return float(ranks.mean[ranks.strategies.index(name)])


def _dash(value: float, text: Text, standing: Standing | None) -> str:
    return "–" if standing is None or value != value else text(value, standing)


def _regret(value: float, standing: Standing) -> str:
    return _number(value)


def _number(value: float) -> str:
    """A regret: three decimals do."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _ratio(value: float, standing: Standing) -> str:
    """A ratio of tokens, or more than what was spent."""
    if math.isfinite(value):
        return f"{value:.2f}"
    return f"> {standing.spent / standing.reference_tokens:.2f}"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %" if math.isfinite(value) else "–"


def _seconds(value: float) -> str:
    """With two digits."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"
