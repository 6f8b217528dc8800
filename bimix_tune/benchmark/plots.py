"""Figures of a benchmark: scores against the number of runs, a panel for each swarm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bimix_tune.benchmark.fitters import WITH_SMALL
from bimix_tune.benchmark.summary import Summary
from bimix_tune.report import theme

ABREAST = 3
"""Panels in a row."""
PANEL, GAP, LEGEND_LINE, LEGEND_NAMES = 190, 62, 24, 5
"""Pixels of a panel, between two and of a line of the legend, and names in such a line."""
MAIN = ("auto", WITH_SMALL)
"""Drawn in the accent colour, over the others."""
OTHERS = tuple(c for c in theme.COLOURS if c not in (theme.ACCENT, "#F0E442", "#8A94A0"))
"""Colours of the other laws; yellow is too light for a line, and grey is that of the mean."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
BEST_RHO = 0.9995
"""Rank correlations above it are drawn there."""
RHO_TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
BAND = (0.93, 0.97)
"""Coverages that are as good as the nominal 95 % for our purpose."""


@dataclass(frozen=True)
class Score:
    """How a score is drawn.

    Args:
        field: Its name in `Summary`.
        title: Of the axis.
        shown: The height at which a value is drawn.
        text: The value for people.
        axis: Plotly's settings of the axis.
    """

    field: str
    title: str
    shown: Callable[[float], float]
    text: str
    axis: dict[str, Any]


def _height_of_rho(rho: float) -> float:
    """``-log10(1 - rho)``, so that 0.9, 0.99 and 0.999 are equally far apart."""
    return -math.log10(1.0 - min(max(rho, 0.0), BEST_RHO))


LOG = {"type": "log", "dtick": "D2", "exponentformat": "none", "minexponent": 9}
ERROR = Score("error", "error", lambda v: v, "{:.2%}", LOG | {"tickformat": "~%"})
RHO = Score(
    "spearman",
    "rank correlation",
    _height_of_rho,
    "{:.3f}",
    {"tickvals": [_height_of_rho(t) for t in RHO_TICKS], "ticktext": [f"{t:g}" for t in RHO_TICKS]},
)
COVERAGE = Score(
    "coverage", "coverage", lambda v: v, "{:.0%}", {"tickformat": ".0%", "range": [-0.03, 1.03]}
)
SECONDS = Score("seconds", "CPU seconds", lambda v: v, "{:.3g} s", LOG | {"dtick": 1})


def against_runs(summaries: Sequence[Summary], score: Score) -> go.Figure:
    """A score against n: a panel for each swarm, a line for each law."""
    swarms = list(dict.fromkeys(s.swarm for s in summaries))
    laws = list(dict.fromkeys(s.law for s in summaries))
    columns = min(ABREAST, len(swarms))
    rows = -(-len(swarms) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[theme.label(s, 34) for s in swarms],
        horizontal_spacing=0.06, vertical_spacing=GAP / (rows * (PANEL + GAP)),
    )  # fmt: skip
    for law in sorted(laws, key=lambda name: name in MAIN):  # the main ones on top
        first = True
        for at, swarm in enumerate(swarms):
            found = [s for s in summaries if (s.swarm, s.law) == (swarm, law)]
            found = [s for s in found if math.isfinite(getattr(s, score.field))]
            if found:
                trace = _line(law, laws, found, score, first)
                figure.add_trace(trace, at // columns + 1, at % columns + 1)
                first = False
    return _framed(figure, rows, len(laws), score, sorted({s.n for s in summaries}))


def _line(
    law: str, laws: Sequence[str], found: Sequence[Summary], score: Score, legend: bool
) -> go.Scatter:
    """One law in one panel."""
    values = [float(getattr(s, score.field)) for s in found]
    return go.Scatter(
        x=[s.n for s in found],
        y=[score.shown(v) for v in values],
        mode="lines+markers",
        name=theme.label(law),
        legendgroup=law,
        legendrank=0 if law in MAIN else 1 + laws.index(law),
        showlegend=legend,
        text=[score.text.format(v) for v in values],
        hovertemplate=f"{theme.label(law)}, %{{x}} runs: %{{text}}<extra></extra>",
        **_style(law, laws),
    )


def _style(law: str, laws: Sequence[str]) -> dict[str, Any]:
    """The main law in front, the mean as a yardstick, the others told apart but muted."""
    if law in MAIN:
        dash = "solid" if law == MAIN[0] else "dot"
        line = {"color": theme.ACCENT, "width": 3.2, "dash": dash}
        return {"line": line, "marker": {"size": 8, "color": theme.ACCENT}}
    if law == "mean":
        line = {"color": theme.MUTED, "width": 1.5, "dash": "dash"}
        return {"line": line, "marker": {"size": 4, "color": theme.MUTED}}
    others = [name for name in laws if name not in (*MAIN, "mean")]
    at = others.index(law)
    colour = OTHERS[at % len(OTHERS)]
    dash = "solid" if at < len(OTHERS) else "dot"
    marker = {"size": 5, "color": colour, "symbol": SYMBOLS[at % len(SYMBOLS)]}
    return {
        "line": {"color": colour, "width": 1.3, "dash": dash},
        "marker": marker,
        "opacity": 0.62,
    }


def _framed(
    figure: go.Figure, rows: int, laws: int, score: Score, runs: Sequence[int]
) -> go.Figure:
    """The house style, the axes and the legend above the panels."""
    legend = LEGEND_LINE * -(-laws // LEGEND_NAMES) + 36
    height = rows * (PANEL + GAP) + legend
    frame = theme.figure([], height)
    figure.update_layout(
        template=frame.layout.template,
        height=height,
        margin={"t": legend, "l": 10, "r": 16, "b": 10},
        legend={"y": 1 + 30 / (height - legend), "entrywidth": 140, "font": {"size": 12}},
        hovermode="closest",
    )
    ticks = {"tickvals": list(runs), "ticktext": [str(n) for n in runs]}
    figure.update_xaxes(type="log", **ticks, tickfont={"size": 11})
    figure.update_yaxes(**score.axis, tickfont={"size": 11})
    figure.update_yaxes(title={"text": score.title, "font": {"size": 12}}, col=1)
    figure.update_xaxes(title={"text": "runs fitted", "font": {"size": 12}}, row=rows)
    figure.update_annotations(font={"size": 13}, yshift=2)
    if score is COVERAGE:
        band = {"fillcolor": theme.GOOD, "opacity": 0.14, "line_width": 0, "layer": "below"}
        figure.add_hrect(*BAND, row="all", col="all", **band)
    return figure
