"""Figures of the law: how well it predicts runs it has not seen, and what it learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from scipy import stats

from bimix_tune.report import theme
from bimix_tune.simplex import Array

PANEL = 190
"""Pixels of the height of one small panel."""


def held_out(
    runs: Sequence[str], predicted: Array, observed: Array, unit: str, colour: str
) -> go.Figure:
    """Observed against predicted losses of runs that a fit did not see, for one target.

    Args:
        runs: Names, N.
        predicted: (N,).
        observed: (N,); NaN where not measured.
        unit: Unit of both.
        colour: Of the points.
    """
    both = np.isfinite(predicted) & np.isfinite(observed)
    values = np.concatenate([predicted[both], observed[both]])
    ends = [float(values.min()), float(values.max())] if values.size else []
    line = {"color": theme.FAINT, "width": 1.5}
    diagonal = go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip")
    points = go.Scatter(
        x=predicted[both],
        y=observed[both],
        mode="markers",
        marker={"size": 6, "color": colour, "line": {"color": "white", "width": 0.5}},
        text=[theme.label(run, 50) for run, known in zip(runs, both, strict=True) if known],
        hovertemplate="run %{text}<br>predicted %{x:.4f}<br>observed %{y:.4f}<extra></extra>",
    )
    small = {"nticks": 5, "tickangle": 0, "tickfont": {"size": 11}}
    return theme.figure(
        [diagonal, points],
        height=PANEL,
        showlegend=False,
        xaxis=small | {"title": {"text": f"predicted, {unit}", "font": {"size": 11}}},
        yaxis=small | {"title": {"text": "observed", "font": {"size": 11}}},
        margin={"t": 4, "r": 8},
    )


def agreement(predicted: Array, observed: Array) -> str:
    """Mean relative error and rank correlation, in words."""
    both = np.isfinite(predicted) & np.isfinite(observed)
    p, o = predicted[both], observed[both]
    if not p.size:
        return "not measured"
    text = f"error {100 * np.mean(np.abs(p / o - 1)):.2g} %"
    if p.size > 2 and np.ptp(p) > 0 and np.ptp(o) > 0:
        text += f", ranks {stats.spearmanr(p, o).statistic:.2f}"
    return text


def transfer(matrix: Array, targets: Sequence[str], domains: Sequence[str]) -> go.Figure:
    """Heat map of the worth of a domain's token for a target, in tokens of its own domain.

    Args:
        matrix: (V, K); a target's own domain is 1.
        targets: Names of the rows, (V,).
        domains: Names of the columns, (K,).
    """
    said = "a token of %{customdata[1]} is worth %{text} for %{customdata[0]}"
    return _by_domain(matrix, targets, domains, "worth", said, max(1.0, float(matrix.max())), 2)


def additive(matrix: Array, targets: Sequence[str], domains: Sequence[str]) -> go.Figure:
    """Heat map of W, what targets without own domain gain from each domain.

    Args:
        matrix: (V, K), relative losses.
        targets: Names of the rows, (V,).
        domains: Names of the columns, (K,).
    """
    said = "W of %{customdata[1]} for %{customdata[0]}: %{text}"
    return _by_domain(matrix, targets, domains, "W", said, float(matrix.max()) or 1.0, 3)


def _by_domain(
    matrix: Array,
    targets: Sequence[str],
    domains: Sequence[str],
    name: str,
    said: str,
    reach: float,
    digits: int,
) -> go.Figure:
    """Heat map of coefficients by target and domain.

    Args:
        matrix: (V, K), not negative.
        targets: Names of the rows, (V,).
        domains: Names of the columns, (K,).
        name: Of the coefficients.
        said: What a cell says when pointed at, in plotly's template language.
        reach: End of the colour scale.
        digits: Decimals of a cell.
    """
    trace = go.Heatmap(
        z=matrix,
        x=list(range(len(domains))),
        y=list(range(len(targets))),
        zmin=0,
        zmax=reach,
        colorscale=theme.SEQUENTIAL,
        xgap=2,
        ygap=2,
        text=[[_entry(v, digits) for v in row] for row in matrix],
        textfont={"color": theme.INK},
        texttemplate="%{text}" if len(domains) <= 12 else None,
        customdata=[
            [(theme.label(target, 60), theme.label(domain, 60)) for domain in domains]
            for target in targets
        ],
        hovertemplate=f"{said}<extra></extra>",
        colorbar={
            "title": {"text": name, "side": "right", "font": {"size": 13}},
            "thickness": 12,
            "outlinewidth": 0,
        },
    )
    return theme.figure(
        [trace],
        height=26 * len(targets) + 150,
        xaxis=_names(domains, 18) | {"tickangle": -40, "title": {"text": "training domain"}},
        yaxis=_names(targets, 26) | {"autorange": "reversed", "title": {"text": "target"}},
    )


def _entry(value: float, digits: int) -> str:
    return "0" if value < 0.5 * 10**-digits else f"{value:.{digits}f}"


def _names(names: Sequence[str], width: int) -> dict[str, Any]:
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [theme.label(name, width) for name in names],
        "showgrid": False,
        "ticks": "",
        "ticklabelstandoff": 5,
    }
