"""The results of a benchmark as one page: plotly's script, the style and the data lie inside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from importlib import resources
from string import Template

from plotly.offline import get_plotlyjs

from bimix_tune.benchmark import plots
from bimix_tune.benchmark.heat_map import heat_map
from bimix_tune.benchmark.ranking import rank
from bimix_tune.benchmark.summary import COLUMNS, MEANING, NOTE, Summary, by_task
from bimix_tune.report.markup import Markup, caption, escape, fold, many, plot, table

TITLE = "How well laws predict runs they have not seen"
HEADINGS = {
    "final": "The end of other runs",
    "extrapolate": "The end, from the first 40 % of the tokens",
    "scales": "Big runs, from a few of them and many small ones",
}
FIGURES = (
    (plots.ERROR, "Error", "Mean relative error of the losses; lower is better."),
    (
        plots.RHO,
        "Rank correlation",
        "Spearman's, of the objective; the axis is stretched towards one, and starts at zero.",
    ),
    (
        plots.COVERAGE,
        "Coverage",
        "Held-out objectives in the 95 % interval; the band is 93 to 97 %. Models without an "
        "interval are not shown. The tables say how wide the intervals are.",
    ),
    (plots.SECONDS, "Time", "Processor seconds of one fit on one thread."),
)
RANKINGS = (
    (plots.ERROR, False, "Ranking by error, in %"),
    (plots.RHO, True, "Ranking by rank correlation"),
)
READING = (
    "Beside each law its mean rank. Blue: the best of its column, or near it. White: four times "
    "the error of the best, or four times as far from a perfect rank correlation."
)


def render(summaries: Sequence[Summary]) -> str:
    """The page as HTML."""
    tasks = {
        name: [s for group in swarms.values() for rows in group.values() for s in rows]
        for name, swarms in by_task(summaries).items()
    }
    laws = dict.fromkeys(s.law for s in summaries)
    swarms = dict.fromkeys(s.swarm for s in summaries)
    draws = max((s.draws + s.failures for s in summaries), default=0)
    about = f"{many(len(laws), 'law')} on {many(len(swarms), 'set')} of runs, up to "
    contents = " ".join(f'<a href="#{name}">{escape(HEADINGS[name])}</a>' for name in tasks)
    return Template(_resource("bimix_tune.benchmark", "page.html")).substitute(
        title=escape(TITLE),
        style=_resource("bimix_tune.report", "page.css"),
        plotly=get_plotlyjs(),
        about=escape(about + many(draws, "draw") + ". " + NOTE),
        contents=contents,
        sections="\n".join(_section(name, members) for name, members in tasks.items()),
        footer=escape(f"Written by bimix-tune on {date.today():%d %B %Y}."),
    )


def _section(task: str, summaries: Sequence[Summary]) -> Markup:
    """Rankings, figures and tables of one task."""
    parts = [Markup(f"<p>{escape(MEANING[task])}</p>")]
    for score, greater, heading in RANKINGS:
        found = rank(summaries, score.field, greater)
        if found.laws:
            parts += [
                _heading(heading),
                caption(READING),
                plot(heat_map(found, score), f"{task}-rank-{score.field}"),
            ]
    for score, heading, text in FIGURES:
        figure = plots.against_runs(summaries, score)
        if figure.data:
            name = f"{task}-{score.field}"
            parts += [_heading(heading), caption(text), plot(figure, name)]
    parts.append(fold("All numbers", _tables(summaries)))
    body = "\n".join(parts)
    return Markup(f'<section id="{task}"><h2>{escape(HEADINGS[task])}</h2>\n{body}</section>')


def _heading(text: str) -> Markup:
    return Markup(f"<h3>{escape(text)}</h3>")


def _tables(summaries: Sequence[Summary]) -> Markup:
    """A table for each swarm."""
    parts = []
    for name in dict.fromkeys(s.swarm for s in summaries):
        rows = [(str(s.n), *s.cells()) for s in summaries if s.swarm == name]
        parts += [_heading(name), table(("runs", *COLUMNS), rows, text_columns=2)]
    return Markup("".join(parts))


def _resource(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
