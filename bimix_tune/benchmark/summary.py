"""Results over draws in one row for each law."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bimix_tune.benchmark.results import Result

COLUMNS = ("law", "error", "R2", "Spearman", "regret", "coverage", "CPU s")


@dataclass(frozen=True)
class Summary:
    """A law on draws of n runs from a swarm: medians, but the mean of the coverage.

    Args:
        swarm: Name of the swarm.
        n: Number of runs fitted.
        law: Name of the law or peer.
        draws: Number of fits that succeeded; the scores are of these.
        failures: Number of fits that failed.
        error, r2, spearman, regret, coverage, seconds: See `bimix_tune.benchmark.Result`.
    """

    swarm: str
    n: int
    law: str
    draws: int
    failures: int
    error: float
    r2: float
    spearman: float
    regret: float
    coverage: float
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """Text for `COLUMNS`."""
        name = self.law + (f" ({self.failures} failed)" if self.failures else "")
        return (
            name,
            _text(100 * self.error, "{:.2f} %"),
            _text(self.r2, "{:.3f}"),
            _text(self.spearman, "{:.3f}"),
            _text(self.regret, "{:.3f}"),
            _text(100 * self.coverage, "{:.0f} %"),
            _text(self.seconds, "{:.3f}"),
        )


def summarise(results: Iterable[Result]) -> list[Summary]:
    """One summary for each swarm, n and law, in the order of the results."""
    groups: dict[tuple[str, int, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.swarm, result.n, result.law), []).append(result)
    return [_summary(*key, members) for key, members in groups.items()]


def _summary(swarm: str, n: int, law: str, members: Sequence[Result]) -> Summary:
    good = [m for m in members if not m.failure]

    def median(score: str) -> float:
        return _average((getattr(m, score) for m in good), np.median)

    return Summary(
        swarm,
        n,
        law,
        len(good),
        len(members) - len(good),
        median("error"),
        median("r2"),
        median("spearman"),
        median("regret"),
        _average((m.coverage for m in good), np.mean),
        median("seconds"),
    )


def _average(values: Iterable[float], kind: Callable[[list[float]], Any]) -> float:
    """Of the values that there are."""
    finite = [v for v in values if np.isfinite(v)]
    return float(kind(finite)) if finite else float("nan")


def by_swarm(summaries: Iterable[Summary]) -> dict[str, dict[int, list[Summary]]]:
    """Summaries by swarm and n, each in their order."""
    tables: dict[str, dict[int, list[Summary]]] = {}
    for s in summaries:
        tables.setdefault(s.swarm, {}).setdefault(s.n, []).append(s)
    return tables


def markdown(summaries: Iterable[Summary]) -> str:
    """A section for each swarm with one table for each n."""
    lines = ["# How well laws predict held-out runs", "", NOTE]
    for swarm, tables in by_swarm(summaries).items():
        lines += ["", f"## {swarm}"]
        for n, rows in tables.items():
            draws = max(r.draws + r.failures for r in rows)
            lines += ["", f"Fitted to {n} runs, {draws} draws.", ""]
            lines += [_row(COLUMNS), _row(["---"] + ["---:"] * (len(COLUMNS) - 1))]
            lines += [_row(r.cells()) for r in rows]
    return "\n".join(lines) + "\n"


NOTE = (
    "Medians over the draws (coverage: mean). Error: mean relative error of the losses of held-out "
    "runs. R2, Spearman: of the objective. Regret: the objective of the held-out run predicted "
    "best minus the least, in units of the range. Coverage: held-out objectives in the 95 % "
    "interval. A dash: the model does not say."
)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(value: float, form: str) -> str:
    """The number, kept short if it is absurd."""
    if not np.isfinite(value):
        return "–"
    return form.format(value) if abs(value) < 1000 else f"{value:.1e}"
