"""The critical-difference diagram of Demsar (2006): mean ranks, and who cannot be told apart."""

from __future__ import annotations

import plotly.graph_objects as go

from bimix_tune.benchmark.contest import style
from bimix_tune.benchmark.contest.statistics import Comparison
from bimix_tune.benchmark.contest.summary import Summary
from bimix_tune.report import theme

LINE = 24
"""Pixels between two names."""
BAR = 11
"""Pixels between two bars that join strategies."""


def diagram(summary: Summary, comparison: Comparison) -> go.Figure:
    """Ranks on an axis, the best on the left; thick bars join those that do not differ.

    Heights are in pixels below the axis, so that neither names nor bars can overlap.
    """
    count = len(comparison.strategies)
    left = (count + 1) // 2
    bars = comparison.alike
    start = 16 + BAR * len(bars) + 10
    height = start + LINE * (max(left, count - left) - 1) + 16
    margin = 0.04 * (count - 1)
    first, last = 1 - margin, count + margin
    figure = theme.figure(
        [],
        height=height + 64,
        margin={"t": 8, "b": 8, "l": 8, "r": 8},
        showlegend=False,
        xaxis={
            "range": [1 - 0.36 * (count - 1), count + 0.36 * (count - 1)],
            "visible": False,
            "fixedrange": True,
        },
        yaxis={"range": [height, -56], "visible": False, "fixedrange": True},
    )
    _axis(figure, count)
    _yardstick(figure, comparison.critical, count)
    for at, (begin, end) in enumerate(bars):
        y = 14 + BAR * at
        overhang = 0.008 * (count - 1)
        x = [comparison.ranks[begin] - overhang, comparison.ranks[end] + overhang]
        _line(figure, x, [y, y], theme.INK, 5)
    for at, name in enumerate(comparison.strategies):
        on_left = at < left
        y = start + LINE * (at if on_left else count - 1 - at)
        rank = float(comparison.ranks[at])
        edge = first if on_left else last
        colour = theme.ACCENT if name in style.front(summary) else theme.MUTED
        _line(figure, [rank, rank, edge], [0, y, y], colour, 1.6)
        figure.add_annotation(
            x=edge,
            y=y,
            text=f"{style.bold(summary, name)}  {rank:.2f}",
            showarrow=False,
            xanchor="right" if on_left else "left",
            xshift=-6 if on_left else 6,
            font={"size": 13},
        )
    return figure


def _axis(figure: go.Figure, count: int) -> None:
    """The line of ranks with its numbers above."""
    _line(figure, [1, count], [0, 0], theme.INK, 1.5)
    step = max(1, round(count / 12))
    for rank in range(1, count + 1, step):
        _line(figure, [rank, rank], [0, -5], theme.INK, 1.5)
        figure.add_annotation(
            x=rank, y=-13, text=str(rank), showarrow=False,
            font={"size": 12, "color": theme.MUTED},
        )  # fmt: skip


def _yardstick(figure: go.Figure, critical: float, count: int) -> None:
    """How long the critical difference is, above the axis; cut where the axis ends."""
    end = min(1 + critical, count)
    _line(figure, [1, end], [-32, -32], theme.INK, 2)
    for x in (1, end):
        _line(figure, [x, x], [-36, -28], theme.INK, 2)
    more = " (longer than the axis)" if 1 + critical > count else ""
    figure.add_annotation(
        x=end, y=-32, text=f"critical difference {critical:.2f}{more}", showarrow=False,
        xanchor="left", xshift=8, font={"size": 12, "color": theme.MUTED},
    )  # fmt: skip


def _line(figure: go.Figure, x: list[float], y: list[float], colour: str, width: float) -> None:
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="lines", line={"color": colour, "width": width}, hoverinfo="skip")
    )
