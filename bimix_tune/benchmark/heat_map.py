"""The ranking of all laws as a heat map, which shows where a law is good and where not."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go

from bimix_tune.benchmark.plots import ERROR, MAIN, Score
from bimix_tune.benchmark.ranking import Ranking, swarm_blocks
from bimix_tune.report import theme

WIDE = 18
"""Columns of a heat map beyond which the cells are narrow."""
FADED = 4.0
"""Times the best error at which a cell of a heat map is white."""


def heat_map(ranking: Ranking, score: Score) -> go.Figure:
    """Scores of all laws (rows, the best first) on all swarms and numbers of runs (columns).

    Blue is the best of its column; errors fade to white at `FADED` times the least one, rank
    correlations at so many times its distance from one.
    """
    values = ranking.values
    cost = np.maximum(values if score is ERROR else 1.0 - values, 1e-6)
    with np.errstate(invalid="ignore"):
        nearness = 1.0 - np.log(cost / np.nanmin(cost, axis=0)) / math.log(FADED)
    narrow = values.shape[1] > WIDE
    text = [[_cell(v, score, narrow) for v in row] for row in values]
    trace = go.Heatmap(
        z=nearness,
        x=list(range(values.shape[1])),
        y=list(range(len(ranking.laws))),
        zmin=0,
        zmax=1,
        colorscale=theme.SEQUENTIAL,
        showscale=False,
        xgap=2,
        ygap=2,
        text=text,
        texttemplate="%{text}",
        textfont={"size": 10 if narrow else 11, "color": theme.INK},
        customdata=[
            [(theme.label(law, 40), theme.label(swarm, 60), n) for swarm, n in ranking.columns]
            for law in ranking.laws
        ],
        hovertemplate="%{customdata[0]}, %{customdata[2]} runs of %{customdata[1]}: %{text}"
        "<extra></extra>",
    )
    return _heat_frame(trace, ranking)


def _heat_frame(trace: go.Heatmap, ranking: Ranking) -> go.Figure:
    """Names of the laws with their mean rank on the left, swarms above, runs below."""
    blocks = swarm_blocks(ranking.columns)
    size = 9 if len(ranking.columns) > WIDE else 11
    names = [
        f"<b>{theme.label(law)}</b>" if law in MAIN else theme.label(law) for law in ranking.laws
    ]
    labels = [f"{name}   {rank:.1f} " for name, rank in zip(names, ranking.mean_rank, strict=True)]
    figure = theme.figure(
        [trace],
        height=24 * len(names) + 120,
        margin={"t": 66},
        xaxis={
            "tickvals": list(range(len(ranking.columns))),
            "ticktext": [str(n) for _, n in ranking.columns],
            "tickfont": {"size": size + 1},
            "showgrid": False,
            "ticks": "",
            "title": {"text": "runs fitted", "font": {"size": 12}},
        },
        yaxis={
            "tickvals": list(range(len(names))),
            "ticktext": labels,
            "autorange": "reversed",
            "showgrid": False,
            "ticks": "",
        },
    )
    for name, first, last in blocks:
        figure.add_annotation(
            x=(first + last) / 2, y=1, yref="paper", yanchor="bottom", showarrow=False,
            text=_wrapped(name), font={"size": size, "color": theme.MUTED},
        )  # fmt: skip
        if first:
            figure.add_vline(first - 0.5, line={"color": "white", "width": 8})
    return figure


def _wrapped(name: str) -> str:
    """One word a line: a block of two columns is narrow."""
    return theme.label(name, 40).replace(" to ", "–").replace("_", "<br>").replace(" ", "<br>")


def _cell(value: float, score: Score, narrow: bool) -> str:
    """An error in %, or a rank correlation; in narrow cells with a digit less."""
    if not math.isfinite(value):
        return "–"
    if score is ERROR:
        percent = 100 * value
        digits = max(0, 2 - narrow * (percent >= 0.995) - (percent >= 9.95) * 2)
        return f"{percent:.{digits}f}"
    text = f"{value:.2f}" if value < 0.995 else f"{value:.3f}"
    return text.replace("0.", ".", 1) if narrow else text
