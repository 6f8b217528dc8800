"""The contest as one page: plotly's script, the style and the data lie inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from importlib import resources
from string import Template

from plotly.offline import get_plotlyjs

from bimix_tune.benchmark.contest import plots, style
from bimix_tune.benchmark.contest.diagram import diagram
from bimix_tune.benchmark.contest.metrics import TOPS
from bimix_tune.benchmark.contest.summary import Summary
from bimix_tune.benchmark.contest.tables import NOTE, Sheet, failures, many, recommended, sheets
from bimix_tune.report.markup import (
    Markup,
    bullets,
    caption,
    empty,
    escape,
    fold,
    plot,
    table,
)

TITLE = "How well strategies find mixtures"
HEADINGS = {
    "ranks": "Ranking",
    "runs": "Regret against runs",
    "tokens": "Regret against tokens",
    "final": "Final regret",
    "reach": "Runs and tokens to reach a quality",
    "recommended": "What to use in the end",
    "effort": "Time to think",
    "failures": "Failures and matches passed over",
    "repeat": "How to repeat it",
}
FEWEST_PROBLEMS = 5
"""With fewer, the test's distribution is a poor approximation (Demsar 2006, section 3.2.2)."""


def render(summary: Summary) -> str:
    """The page as HTML."""
    tables = {sheet.name: sheet for sheet in sheets(summary)}
    runs = sorted({m.runs for m in summary.matches})
    span = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    seeds = len({m.seed for m in summary.matches})
    about = (
        f"{many(len(summary.strategies), 'strategy', 'strategies')} on "
        f"{many(len(summary.problems), 'problem', 'problems')}, "
        f"{many(seeds, 'seed', 'seeds')}, {span} runs a match. "
    )
    contents = " ".join(f'<a href="#{name}">{escape(h)}</a>' for name, h in HEADINGS.items())
    return Template(_resource("bimix_tune.benchmark", "page.html")).substitute(
        title=escape(TITLE),
        style=_resource("bimix_tune.report", "page.css"),
        plotly=get_plotlyjs(),
        about=escape(about + NOTE),
        contents=contents,
        sections="\n".join(
            f'<section id="{name}"><h2>{escape(HEADINGS[name])}</h2>\n{body}</section>'
            for name, body in _bodies(summary, tables).items()
        ),
        footer=escape(f"Written by bimix-tune on {date.today():%d %B %Y}."),
    )


def _bodies(summary: Summary, tables: dict[str, Sheet]) -> dict[str, str]:
    """Content of the sections in their order."""
    ahead = style.front(summary)[0]
    lines = f"Medians over seeds; the band holds the middle half of the matches of {ahead}."
    tokens = _sheet(tables["tokens"]) if "tokens" in tables else _without(summary.reference)
    return {
        "ranks": _ranking(summary) + _sheet(tables["ranks"], headed=False),
        "runs": caption(lines) + plot(plots.against_runs(summary), "runs"),
        "tokens": caption(
            f"{lines} Runs that are stopped cost only the tokens they saw, and a run counts when "
            "it has ended."
        )
        + plot(plots.against_tokens(summary), "tokens"),
        "final": caption(
            "Mean over seeds, strategies by rank. Blue: the best on its problem, or near it. "
            f"White: {plots.NEAR:g} times its regret or more."
        )
        + plot(plots.heat_map(summary), "final")
        + fold("As a table", _table(tables["final"])),
        "reach": _sheet(tables["tops"]) + _tops(summary) + tokens,
        "recommended": caption(tables["recommended"].note)
        + plot(plots.recommendations(summary), "recommended")
        + fold("By problem", _recommendations(summary)),
        "effort": caption("Small marks: problems. " + tables["effort"].note)
        + plot(plots.times(summary), "times")
        + _table(tables["effort"]),
        "failures": _failures(summary),
        "repeat": Markup(f"<pre>{escape(summary.command)}</pre>")
        + caption(
            "The same command in the same folder plays only what is missing. All runs are in "
            "steps.parquet, all matches in matches.parquet."
        ),
    }


def _ranking(summary: Summary) -> str:
    """The diagram with its test, if there is enough to test."""
    found = summary.comparison
    if found is None:
        return empty("A test takes two strategies that played two problems.")
    text = (
        f"Mean ranks of the final regret over {many(found.problems, 'problem', 'problems')}; the "
        "best is on the left. Thick bars join strategies that the test of Nemenyi cannot tell "
        "apart (level 5 %)."
    )
    if math.isfinite(found.p):
        text += f" Friedman's test that all are alike: p = {found.p:.2g}."
    if found.problems < FEWEST_PROBLEMS:
        text += " With so few problems the test says little."
    missing = [n for n in summary.strategies if n not in found.strategies]
    if missing:
        text += f" Not shown, as they did not play every problem: {', '.join(missing)}."
    return caption(text) + plot(diagram(summary, found), "ranks")


def _tops(summary: Summary) -> str:
    """Runs to both top shares, folded away."""
    rows = [
        (s.problem, s.strategy, *(_runs(s.runs_to[share], s.regrets.shape[1]) for share in TOPS))
        for s in summary.standings
    ]
    head = ("problem", "strategy", *(f"top {100 * share:g} %" for share in TOPS))
    return fold("Top 5 % and top 1 % by problem", table(head, rows, text_columns=2))


def _runs(value: float, most: int) -> str:
    return f"{value:.0f}" if math.isfinite(value) else f"> {most}"


def _recommendations(summary: Summary) -> Markup:
    """Each kind on each problem."""
    rows = [
        (s.problem, s.strategy, *(_regret(s.recommended[kind]) for kind in plots.KINDS))
        for s in summary.standings
    ]
    means = [
        ("mean", n, *(_regret(recommended(summary, n, kind)) for kind in plots.KINDS))
        for n in summary.strategies
    ]
    return table(("problem", "strategy", *plots.KINDS), means + rows, text_columns=2)


def _regret(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _failures(summary: Summary) -> str:
    broken = failures(summary)
    parts: list[str] = [bullets(broken) if broken else empty("No match broke off.")]
    if summary.passed_over:
        parts += [Markup("<h3>Passed over</h3>"), bullets(summary.passed_over)]
    return "\n".join(parts)


def _without(reference: str) -> str:
    return empty(f"{reference} did not play, so there is no quality to compare tokens by.")


def _sheet(sheet: Sheet, headed: bool = True) -> str:
    """A table with its heading and how to read it."""
    heading = f"<h3>{escape(sheet.title)}</h3>" if headed else ""
    return heading + caption(sheet.note) + _table(sheet)


def _table(sheet: Sheet) -> Markup:
    return table(sheet.head, [_marked(sheet, i) for i in range(len(sheet.rows))])


def _marked(sheet: Sheet, row: int) -> Sequence[str]:
    """Cells of a row, the best ones in bold; a name stays on one line."""
    name, *cells = sheet.rows[row]
    return [
        Markup(f'<span style="white-space: nowrap">{escape(name)}</span>'),
        *(
            Markup(f"<b>{escape(cell)}</b>") if (row, j) in sheet.best else cell
            for j, cell in enumerate(cells, 1)
        ),
    ]


def _resource(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
