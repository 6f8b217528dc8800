"""Figures of the answer: the mixtures, the confirmation, and where the gain comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from bimix_tune.loop.result import Comparison, Confirmation
from bimix_tune.mixture import Mixture
from bimix_tune.report import theme
from bimix_tune.report.losses import TargetLosses, weighted
from bimix_tune.report.verdict import BETTER, WORSE, decimals, judge
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

ROW = 34
"""Pixels of a row of bars or points."""


def mixtures(space: SearchSpace, shown: Mapping[str, Mixture]) -> go.Figure:
    """Stacked horizontal bars, one per mixture, one colour (and hatching) per domain.

    Args:
        space: The domains, in the order of the stack.
        shown: Mixtures by label, top to bottom.
    """
    shares = space.matrix(shown.values())
    left = np.cumsum(shares, axis=1) - shares
    rows = list(range(len(shown)))
    traces = []
    for i, name in enumerate(space.names):
        traces.append(
            go.Bar(
                x=100 * shares[:, i],
                base=100 * left[:, i],
                y=rows,
                orientation="h",
                name=theme.label(name),
                width=0.72,
                marker={
                    "color": theme.colour(i),
                    "pattern": {
                        "shape": theme.hatch(i),
                        "fillmode": "overlay",
                        "fgcolor": "white",
                        "size": 6,
                        "solidity": 0.18,
                    },
                    "line": {"color": "white", "width": 1},
                },
                text=[f"{100 * v:.0f}" if v >= 0.045 else "" for v in shares[:, i]],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                customdata=[
                    (theme.label(label, 60), theme.percent(v))
                    for label, v in zip(shown, shares[:, i], strict=True)
                ],
                hovertemplate=f"%{{customdata[0]}}<br>{theme.label(name, 60)}: "
                "%{customdata[1]}<extra></extra>",
            )
        )
    return theme.figure(
        traces,
        height=ROW * len(rows) + 76,
        barmode="overlay",
        showlegend=False,
        xaxis={"title": {"text": "share of the training tokens, %"}, "range": [0, 100]},
        yaxis=_rows(list(shown)),
    )


def forest(confirmation: Confirmation, unit: str) -> go.Figure:
    """Each other mixture minus the recommendation with its 95 % interval, and the zero line."""
    shown = confirmation.comparisons
    traces: list[Any] = [_pairs(shown), *(_interval(i, c, unit) for i, c in enumerate(shown))]
    figure = theme.figure(
        traces,
        height=ROW * len(shown) + 74,
        showlegend=False,
        xaxis={
            "title": {"text": f"loss of the mixture − loss of the recommendation, {unit}"},
            "range": _reach(shown),
        },
        yaxis=_rows([c.label for c in shown]),
    )
    figure.add_vline(x=0, line={"color": theme.INK, "width": 1.5})
    return figure


def _reach(shown: Sequence[Comparison]) -> list[float] | None:
    """An axis with all intervals, all pairs and zero, and some room; None leaves it to plotly."""
    values = np.array([0.0, *(v for c in shown for v in (c.mean, c.low, c.high, *c.pairs))])
    values = values[np.isfinite(values)]
    room = 0.05 * float(np.ptp(values))
    return [float(values.min()) - room, float(values.max()) + room] if room else None


def _pairs(shown: Sequence[Comparison]) -> go.Scatter:
    """The single differences behind the means."""
    return go.Scatter(
        x=[d for c in shown for d in c.pairs],
        y=[i + 0.22 for i, c in enumerate(shown) for _ in c.pairs],
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 8, "color": theme.MUTED},
        hovertemplate="one pair of runs: %{x:+.4f}<extra></extra>",
    )


def _interval(row: int, comparison: Comparison, unit: str) -> go.Scatter:
    kind = judge(comparison)
    colour = {BETTER: theme.GOOD, WORSE: theme.BAD}.get(kind, theme.MUTED)
    half = (comparison.high - comparison.low) / 2
    number = theme.signed(comparison.mean, decimals(comparison))
    spread = f" ± {half:.{decimals(comparison)}f}" if np.isfinite(half) else ", no interval"
    return go.Scatter(
        x=[comparison.mean],
        y=[row],
        mode="markers",
        marker={
            "size": 11,
            "color": colour if kind in (BETTER, WORSE) else "white",
            "line": {"color": colour, "width": 2},
            "symbol": "square",
        },
        error_x={"array": [half if np.isfinite(half) else 0], "color": colour, "thickness": 2},
        hovertemplate=f"{theme.label(comparison.label, 60)}: {number}{spread} {unit}"
        "<extra></extra>",
    )


def gains(losses: TargetLosses, space: SearchSpace, unit: str) -> go.Figure:
    """Heat map of what the recommendation gains on each target against each other mixture.

    The first row is the objective; blue means that the recommendation's loss is lower.
    """
    names = ["objective", *space.target_names]
    difference = _with_objective(losses, space)
    finite = np.abs(difference[np.isfinite(difference)])
    reach = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    digits = 3 if reach >= 0.02 else 4
    cells = _cells(difference, losses.beyond, digits)
    trace = go.Heatmap(
        z=difference,
        x=list(range(len(losses.others))),
        y=list(range(len(names))),
        zmin=-reach,
        zmax=reach,
        colorscale=theme.DIVERGING,
        xgap=2,
        ygap=2,
        text=cells,
        textfont={"color": theme.INK},
        texttemplate="%{text}" if len(losses.others) <= 12 else None,
        customdata=[
            [(theme.label(name, 60), theme.label(other, 60)) for other in losses.others]
            for name in names
        ],
        hovertemplate="%{customdata[0]}: %{customdata[1]} − recommendation = %{text} "
        f"{unit}<extra></extra>",
        colorbar={
            "title": {"text": f"gain, {unit}", "side": "right", "font": {"size": 13}},
            "thickness": 12,
            "outlinewidth": 0,
        },
    )
    figure = theme.figure(
        [trace],
        height=26 * len(names) + 70,
        xaxis={
            "tickvals": list(range(len(losses.others))),
            "ticktext": [theme.label(name, 16) for name in losses.others],
            "side": "top",
            "showgrid": False,
        },
        yaxis=_rows(names) | {"showgrid": False},
    )
    figure.add_hline(y=0.5, line={"color": theme.INK, "width": 1.5})
    return figure


def _cells(difference: Array, beyond: NDArray[np.bool_] | None, digits: int) -> list[list[str]]:
    """Texts of the cells; what is not beyond noise is in brackets."""
    texts = []
    for i, row in enumerate(difference):
        texts.append([theme.signed(v, digits) if np.isfinite(v) else "–" for v in row])
        if beyond is not None:
            pairs = zip(texts[i], beyond[i], strict=True)
            texts[i] = [text if sure else f"({text})" for text, sure in pairs]
    return texts


def _with_objective(losses: TargetLosses, space: SearchSpace) -> Array:
    """Other minus recommendation, the objective first, (1 + V, M)."""
    rows = np.stack(list(losses.others.values()))
    rows = np.column_stack([weighted(rows, space), rows])
    own = losses.recommendation
    return np.asarray((rows - np.concatenate([[weighted(own, space)], own])).T)


def _rows(names: Sequence[str]) -> dict[str, Any]:
    """An axis of names, the first at the top; names that look alike stay apart."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [theme.label(name) for name in names],
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "ticks": "",
        "ticklabelstandoff": 6,
    }
