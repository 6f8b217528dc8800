"""Figures of a contest of strategies."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go

from bimix_tune.benchmark.contest import style
from bimix_tune.benchmark.contest.metrics import Band, Standing
from bimix_tune.benchmark.contest.summary import Summary
from bimix_tune.benchmark.contest.tables import recommended
from bimix_tune.benchmark.plots import ABREAST
from bimix_tune.report import theme

NEAR = 8.0
"""Times the best regret at which a cell of the heat map is white."""
ROW = 24
"""Pixels of a strategy in figures with a row for each."""
NARROW = 9
"""Problems beyond which the cells of the heat map are small."""
WIDE = 300.0
"""Ratio of times beyond which an axis has room for powers of ten only."""
KINDS = {"best seen": "circle", "own": "diamond", "law": "x"}


def against_runs(summary: Summary) -> go.Figure:
    """Median regret after each run, a panel for each problem."""
    return _courses(summary, lambda s: s.by_run, "runs", "run")


def against_tokens(summary: Summary) -> go.Figure:
    """Median regret after the tokens of so many complete runs."""
    return _courses(summary, lambda s: s.by_tokens, "tokens, in complete runs", "tokens of run")


def _courses(summary: Summary, courses: Callable[[Standing], Band], x: str, word: str) -> go.Figure:
    names, problems = summary.strategies, summary.problems
    figure = style.panels(problems, len(names), x, "median regret")
    ahead = style.front(summary)
    for name in sorted(names, key=lambda n: n in ahead):  # ours on top
        first = True
        for at, problem in enumerate(problems):
            standing = summary.by_name.get((problem, name))
            if standing is None:
                continue
            row, column = at // ABREAST + 1, at % ABREAST + 1
            band = courses(standing)
            runs = np.arange(1, len(band.median) + 1)
            if name == ahead[0]:
                figure.add_trace(_band(runs, band, name), row, column)
            figure.add_trace(
                go.Scatter(
                    x=runs,
                    y=np.maximum(band.median, style.FLOOR),
                    customdata=band.median,
                    mode="lines",
                    name=theme.label(name),
                    legendgroup=name,
                    legendrank=names.index(name),
                    showlegend=first,
                    hovertemplate=f"{theme.label(name)}, {word} %{{x}}: %{{customdata:.4f}}"
                    "<extra></extra>",
                    **style.line(summary, name),
                ),
                row,
                column,
            )
            first = False
    return figure


def _band(runs: np.ndarray, band: Band, name: str) -> go.Scatter:
    """The quartiles of the strategy in front."""
    high, low = np.maximum(band.high, style.FLOOR), np.maximum(band.low, style.FLOOR)
    return go.Scatter(
        x=np.concatenate([runs, runs[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=theme.ACCENT,
        opacity=style.BAND_OPACITY,
        line={"width": 0},
        mode="lines",
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )


def heat_map(summary: Summary) -> go.Figure:
    """Mean final regret of strategies (rows) on problems (columns); blue is near the best."""
    names, problems = summary.strategies, summary.problems
    found = [[summary.by_name.get((p, n)) for p in problems] for n in names]
    values = np.array([[np.nan if s is None else s.final for s in row] for row in found])
    with np.errstate(invalid="ignore"):
        cost = np.maximum(values, style.FLOOR)
        nearness = 1.0 - np.log(cost / np.nanmin(cost, axis=0)) / math.log(NEAR)
    narrow = len(problems) > NARROW
    trace = go.Heatmap(
        z=nearness,
        x=list(range(len(problems))),
        y=list(range(len(names))),
        zmin=0,
        zmax=1,
        colorscale=theme.SEQUENTIAL,
        showscale=False,
        xgap=2,
        ygap=2,
        text=[[_cell(v, narrow) for v in row] for row in values],
        texttemplate="%{text}",
        textfont={"size": 10 if narrow else 11, "color": theme.INK},
        customdata=[[(theme.label(n, 40), theme.label(p, 60)) for p in problems] for n in names],
        hovertemplate="%{customdata[0]} on %{customdata[1]}: %{text}<extra></extra>",
    )
    labels = [theme.label(p, 24) for p in problems]
    longest = max(map(len, labels))
    steep = len(problems) > 4
    top = 20 + (int(5.2 * longest) if steep else 16)
    return theme.figure(
        [trace],
        height=ROW * len(names) + top + 20,
        margin={"t": top, "l": 10, "r": 60, "b": 10},
        xaxis={
            "tickvals": list(range(len(problems))),
            "ticktext": labels,
            "tickangle": -40 if steep else 0,
            "side": "top",
            "showgrid": False,
            "ticks": "",
        },
        yaxis=_rows(summary),
    )


def _cell(value: float, narrow: bool) -> str:
    """A regret; in narrow cells without its zero."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}".replace("0.", ".", 1) if narrow and value < 1 else f"{value:.3f}"


def recommendations(summary: Summary) -> go.Figure:
    """Mean regret over problems of three ways to choose in the end."""
    names = summary.strategies
    traces = []
    for position, (kind, symbol) in enumerate(KINDS.items()):
        values = [recommended(summary, n, kind) for n in names]
        traces.append(
            go.Scatter(
                x=np.maximum(values, style.FLOOR),
                y=list(range(len(names))),
                customdata=values,
                mode="markers",
                name=kind,
                marker={
                    "symbol": symbol,
                    "size": 10,
                    "color": theme.COLOURS[position],
                    "opacity": 0.9,
                },
                hovertemplate=f"{kind}: %{{customdata:.4f}}<extra></extra>",
            )
        )
    return theme.figure(
        traces,
        height=ROW * len(names) + 110,
        margin={"t": 40, "l": 10, "r": 16, "b": 10},
        xaxis={**style.regret_axis((1, 2, 5)), "title": {"text": "mean regret"}},
        yaxis=_rows(summary) | {"showgrid": True},
    )


def times(summary: Summary) -> go.Figure:
    """Seconds of thinking for a run: a small mark for each problem, a large one for the median."""
    names = summary.strategies
    groups = [[s for s in summary.standings if s.strategy == n] for n in names]
    least = 1e-6  # a clock's grain: a logarithm needs something
    known = [s.seconds for s in summary.standings if s.seconds > 0]
    wide = known and max(known) > WIDE * min(known)
    small = [(max(s.seconds, least), i, s.problem) for i, g in enumerate(groups) for s in g]
    middle = [max(float(np.median([s.seconds for s in g])), least) for g in groups]
    colours = [style.colour(summary, n) for n in names]
    traces = [
        go.Scatter(
            x=[s for s, _, _ in small],
            y=[i for _, i, _ in small],
            text=[theme.label(p, 40) for _, _, p in small],
            mode="markers",
            showlegend=False,
            marker={"size": 6, "color": theme.FAINT},
            hovertemplate="%{text}: %{x:.3g} s<extra></extra>",
        ),
        go.Scatter(
            x=middle,
            y=list(range(len(names))),
            mode="markers",
            showlegend=False,
            marker={
                "size": 11,
                "color": colours,
                "symbol": [style.symbol(summary, n) for n in names],
            },
            hovertemplate="median over problems: %{x:.3g} s<extra></extra>",
        ),
    ]
    return theme.figure(
        traces,
        height=ROW * len(names) + 80,
        xaxis={
            "type": "log",
            "dtick": 1 if wide else "D2",
            "exponentformat": "none",
            "minexponent": 9,
            "title": {"text": "seconds for each run"},
        },
        yaxis=_rows(summary) | {"showgrid": True},
    )


def _rows(summary: Summary) -> dict[str, object]:
    """An axis with a row for each strategy, the best on top."""
    names = summary.strategies
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [f"{style.bold(summary, n)} " for n in names],
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "ticks": "",
    }
