"""How strategies look in all figures: ours in front, the others told apart but muted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bimix_tune.benchmark.contest.summary import Summary
from bimix_tune.benchmark.plots import (
    ABREAST,
    GAP,
    LEGEND_LINE,
    LEGEND_NAMES,
    OTHERS,
    PANEL,
    SYMBOLS,
)
from bimix_tune.report import theme

BAND_OPACITY = 0.16
FLOOR = 1e-3
"""Regrets below it are drawn there: a thousandth of a typical mixture's is nothing."""
DASHES = ("solid", "dash", "dot", "dashdot")


def regret_axis(per_decade: tuple[int, ...]) -> dict[str, Any]:
    """A logarithmic axis down to `FLOOR`, with ticks at such multiples of powers of ten."""
    ticks = [FLOOR * 10**power * factor for power in range(5) for factor in per_decade]
    names = ["≤ 0.001", *(f"{tick:g}" for tick in ticks[1:])]
    return {"type": "log", "tickvals": ticks, "ticktext": names}


def front(summary: Summary) -> list[str]:
    """Strategies in front: ours, or the best one if none is."""
    return summary.ours or summary.strategies[:1]


def colour(summary: Summary, name: str) -> str:
    """Of a strategy: the accent in front, muted grey for the reference."""
    if name in front(summary):
        return theme.ACCENT
    if name == summary.reference:
        return theme.INK
    return OTHERS[_place(summary, name) % len(OTHERS)]


def line(summary: Summary, name: str) -> dict[str, Any]:
    """Line and opacity of a strategy."""
    ahead = front(summary)
    if name in ahead:
        dash = DASHES[ahead.index(name) % len(DASHES)]
        return {"line": {"color": theme.ACCENT, "width": 3.0, "dash": dash}}
    if name == summary.reference:
        return {"line": {"color": theme.INK, "width": 1.8, "dash": "dash"}}
    dash = DASHES[_place(summary, name) // len(OTHERS) % len(DASHES)]
    width = {"color": colour(summary, name), "width": 1.3, "dash": dash}
    return {"line": width, "opacity": 0.7}


def symbol(summary: Summary, name: str) -> str:
    """Of a strategy's markers: colours alone say nothing."""
    ahead = front(summary)
    return "circle" if name in ahead else SYMBOLS[_place(summary, name) % len(SYMBOLS)]


def _place(summary: Summary, name: str) -> int:
    ahead = front(summary)
    others = [n for n in summary.strategies if n not in ahead and n != summary.reference]
    return others.index(name) if name in others else 0


def bold(summary: Summary, name: str) -> str:
    """The name as plotly text, ours in bold."""
    text = theme.label(name)
    return f"<b>{text}</b>" if name in summary.ours else text


def panels(problems: Sequence[str], strategies: int, x: str, y: str) -> go.Figure:
    """Empty panels, one for each problem, with room for the legend above."""
    columns = min(ABREAST, len(problems))
    rows = -(-len(problems) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[theme.label(p, 34) for p in problems],
        horizontal_spacing=0.06, vertical_spacing=GAP / (rows * (PANEL + GAP)),
    )  # fmt: skip
    legend = LEGEND_LINE * -(-strategies // LEGEND_NAMES) + 36
    height = rows * (PANEL + GAP) + legend
    figure.update_layout(
        template=theme.figure([], height).layout.template,
        height=height,
        margin={"t": legend, "l": 10, "r": 16, "b": 10},
        legend={"y": 1 + 30 / (height - legend), "entrywidth": 150, "font": {"size": 12}},
        hovermode="closest",
    )
    figure.update_xaxes(tickfont={"size": 11})
    figure.update_yaxes(**regret_axis((1, 3)), tickfont={"size": 11})
    figure.update_yaxes(title={"text": y, "font": {"size": 12}}, col=1)
    for at in range(len(problems)):  # below the last panel of each column
        if at + columns >= len(problems):
            figure.update_xaxes(
                title={"text": x, "font": {"size": 12}},
                row=at // columns + 1,
                col=at % columns + 1,
            )
    figure.update_annotations(font={"size": 13}, yshift=2)
    return figure
