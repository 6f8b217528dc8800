"""The page: the answer first, then the evidence for it, then how it was found.

One file without a reference to any other: plotly's script, the style and the data lie inside.
"""

from __future__ import annotations

from importlib import resources
from string import Template

from plotly.offline import get_plotlyjs

from bimix_tune.loop.result import SearchResult
from bimix_tune.report import theme
from bimix_tune.report.losses import COMPLETE
from bimix_tune.report.markup import escape, many
from bimix_tune.report.sections import SECTIONS, answer, today
from bimix_tune.report.verdict import BETTER, EQUAL, SINGLE, UNCONFIRMED, WORSE, verdict

KIND_WORDS = {
    BETTER: "Confirmed.",
    EQUAL: "A tie.",
    WORSE: "Not better.",
    SINGLE: "One seed only.",
    UNCONFIRMED: "Unconfirmed.",
}


def render(result: SearchResult) -> str:
    """The report of a search as HTML."""
    parts = {name: (heading, build(result)) for name, heading, build in SECTIONS}
    found = verdict(result)
    done = sum(r.state == COMPLETE for r in result.records)
    about = (
        f"{many(len(result.space.names), 'domain')}, "
        f"{many(len(result.space.target_names), 'target')}, "
        f"{many(len(result.records), 'run')} ({done} complete). Recommendation for "
        f"{theme.count(result.target_tokens)} training tokens; losses in {result.unit}."
    )
    contents = " ".join(f'<a href="#{name}">{escape(h)}</a>' for name, (h, _) in parts.items())
    sections = "\n".join(
        f'<section id="{name}"><h2>{escape(h)}</h2>\n{body}</section>'
        for name, (h, body) in parts.items()
    )
    return Template(_resource("page.html")).substitute(
        title=escape(f"Data mixture: {result.folder.name or 'search'}"),
        style=_resource("page.css"),
        plotly=get_plotlyjs(),
        about=escape(about),
        kind=found.kind,
        kind_word=KIND_WORDS[found.kind],
        verdict=escape(found.sentence),
        answer=answer(result),
        contents=contents,
        sections=sections,
        footer=escape(f"Written by bimix-tune on {today()}."),
    )


def _resource(name: str) -> str:
    return resources.files("bimix_tune.report").joinpath(name).read_text(encoding="utf-8")
