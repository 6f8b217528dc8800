"""Results over draws in one row for each law."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bimix_tune.benchmark.results import Result

COLUMNS = ("law", "error", "R2", "rho", "regret", "cover", "width", "CPU s")
MEANING = {
    "final": "Fitted to n runs, the end of all others is predicted.",
    "extrapolate": "Fitted to n runs that have seen 40 % of their tokens, the end of all others "
    "is predicted. Models that know the last losses only cannot see that they will fall.",
    "scales": "Fitted to n runs of the big scale (and “auto + small” to all of the small scale "
    "too), the other big runs are predicted.",
}


@dataclass(frozen=True)
class Summary:
    """A law on draws of n runs from a swarm: medians, but the mean of the coverage.

    Args:
        task: Name of the task.
        swarm: Name of the swarm.
        n: Number of runs fitted.
        law: Name of the law or peer.
        draws: Number of fits that succeeded; the scores are of these.
        failures: Number of fits that failed.
        error, r2, spearman, regret, coverage, width, seconds: See
            `bimix_tune.benchmark.Result`.
    """

    task: str
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
    width: float
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """Text for `COLUMNS`."""
        name = self.law + (f", {self.failures} failed" if self.failures else "")
        return (
            name,
            _text(100 * self.error, "{:.2f} %" if self.error < 0.1 else "{:.1f} %"),
            _text(self.r2, "{:.2f}"),
            _text(self.spearman, "{:.3f}"),
            _text(self.regret, "{:.3f}"),
            _text(100 * self.coverage, "{:.0f} %"),
            _text(self.width, "{:.2f}"),
            _text(self.seconds, "{:.2f}"),
        )


def summarise(results: Iterable[Result]) -> list[Summary]:
    """One summary for each task, swarm, n and law, in the order of the results."""
    groups: dict[tuple[str, str, int, str], list[Result]] = {}
    for result in results:
        key = (result.task, result.swarm, result.n, result.law)
        groups.setdefault(key, []).append(result)
    return [_summary(*key, members) for key, members in groups.items()]


def failures(results: Iterable[Result]) -> list[str]:
    """Which laws failed why, in a sentence for each cause."""
    causes: dict[str, list[str]] = {}
    for result in results:
        if result.failure:
            causes.setdefault(result.failure, []).append(f"{result.law} ({result.task})")
    return [
        f"{', '.join(dict.fromkeys(who))}: {len(who)} fits failed: {cause}"
        for cause, who in causes.items()
    ]


def _summary(task: str, swarm: str, n: int, law: str, members: Sequence[Result]) -> Summary:
    good = [m for m in members if not m.failure]

    def median(score: str) -> float:
        return _average((getattr(m, score) for m in good), np.median)

    return Summary(
        task,
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
        median("width"),
        median("seconds"),
    )


def _average(values: Iterable[float], kind: Callable[[list[float]], Any]) -> float:
    """Of the values that there are."""
    finite = [v for v in values if np.isfinite(v)]
    return float(kind(finite)) if finite else float("nan")


Tables = dict[str, dict[str, dict[int, list[Summary]]]]


def by_task(summaries: Iterable[Summary]) -> Tables:
    """Summaries by task, swarm and n, each in their order."""
    tables: Tables = {}
    for s in summaries:
        swarms = tables.setdefault(s.task, {})
        swarms.setdefault(s.swarm, {}).setdefault(s.n, []).append(s)
    return tables


def markdown(summaries: Iterable[Summary]) -> str:
    """A chapter for each task, with a section for each swarm and one table for each n."""
    lines = ["# How well laws predict held-out runs", "", NOTE]
    for task, swarms in by_task(summaries).items():
        lines += ["", f"## {task}", "", MEANING[task]]
        for swarm, tables in swarms.items():
            lines += ["", f"### {task}: {swarm}"]
            for n, rows in tables.items():
                draws = max(r.draws + r.failures for r in rows)
                lines += ["", f"Fitted to {n} runs, {draws} draws.", ""]
                lines += [_row(COLUMNS), _row(["---"] + ["---:"] * (len(COLUMNS) - 1))]
                lines += [_row(r.cells()) for r in rows]
    return "\n".join(lines) + "\n"


NOTE = (
    "Medians over the draws (cover: mean). Error: mean relative error of the losses of held-out "
    "runs. R2, rho (Spearman): of the objective. Regret: the objective of the held-out run "
    "predicted best minus the least, in units of the range. Cover: held-out objectives in the "
    "95 % interval. Width: half of that interval, in standard deviations of the objective over "
    "runs. A dash: the model does not say."
)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(value: float, form: str) -> str:
    """The number, kept short if it is absurd."""
    if not np.isfinite(value):
        return "–"
    return form.format(value) if abs(value) < 1000 else f"{value:.1e}"
