"""Figures of the law: how well it predicts runs it has not seen, and what it learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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
    """Heat map of the worth of a domain for a target, its own domain being one.

    Args:
        matrix: (V, K); a target's own domain is 1.
        targets: Names of the rows, (V,).
        domains: Names of the columns, (K,).
    """
    said = "%{customdata[1]} is worth %{text} for %{customdata[0]}"
    scale = _Scale("worth", 0.0, max(1.0, float(matrix.max())), theme.SEQUENTIAL)
    return _by_domain(matrix, targets, domains, scale, said, _entries(matrix, 2))


def additive(matrix: Array, targets: Sequence[str], domains: Sequence[str]) -> go.Figure:
    """Heat map of W, what targets without own domain gain from each domain.

    Args:
        matrix: (V, K), relative losses.
        targets: Names of the rows, (V,).
        domains: Names of the columns, (K,).
    """
    said = "W of %{customdata[1]} for %{customdata[0]}: %{text}"
    scale = _Scale("W", 0.0, float(matrix.max()) or 1.0, theme.SEQUENTIAL)
    return _by_domain(matrix, targets, domains, scale, said, _entries(matrix, 3))


def linear(matrix: Array, targets: Sequence[str], domains: Sequence[str]) -> go.Figure:
    """Heat map of c, the change of targets' log losses by proportions; blue where they fall.

    Args:
        matrix: (V, K).
        targets: Names of the rows, (V,).
        domains: Names of the columns, (K,).
    """
    said = "c of %{customdata[1]} for %{customdata[0]}: %{text}"
    reach = float(np.abs(matrix).max()) or 1.0
    scale = _Scale("c", -reach, reach, FALLING)
    cells = [[theme.signed(v, 3) for v in row] for row in matrix]
    return _by_domain(matrix, targets, domains, scale, said, cells)


def effects(matrix: Array, targets: Sequence[str], domains: Sequence[str], unit: str) -> go.Figure:
    """Heat map of what one more percent of a domain does to each target; blue where it helps.

    Args:
        matrix: Changes of losses in thousandths, the objective first, (1 + V, K).
        targets: Names of the rows but the first, (V,).
        domains: Names of the columns, (K,).
        unit: Unit of the losses.
    """
    reach = float(np.abs(matrix).max()) or 1.0
    digits = 2 if reach < 10 else 1 if reach < 100 else 0
    said = "one more percent of %{customdata[1]}: %{text} thousandths for %{customdata[0]}"
    cells = [[theme.signed(v, digits) for v in row] for row in matrix]
    scale = _Scale(f"10⁻³ {theme.label(unit)}", -reach, reach, FALLING)
    figure = _by_domain(matrix, ["objective", *targets], domains, scale, said, cells)
    figure.add_hline(y=0.5, line={"color": theme.INK, "width": 1.5})
    return figure


FALLING = tuple((1.0 - at, colour) for at, colour in reversed(theme.DIVERGING))
"""A diverging scale that is blue for what is negative: a lower loss."""


class _Scale(NamedTuple):
    """Colours of a heat map: what they mean, their ends, and the colours."""

    name: str
    low: float
    high: float
    colours: Sequence[tuple[float, str]]


def _by_domain(
    matrix: Array,
    targets: Sequence[str],
    domains: Sequence[str],
    scale: _Scale,
    said: str,
    cells: Sequence[Sequence[str]],
) -> go.Figure:
    """Heat map of numbers by target and domain.

    Args:
        matrix: (V, K).
        targets: Names of the rows, (V,).
        domains: Names of the columns, (K,).
        scale: The colours.
        said: What a cell says when pointed at, in plotly's template language.
        cells: Texts of the cells, (V, K).
    """
    trace = go.Heatmap(
        z=matrix,
        x=list(range(len(domains))),
        y=list(range(len(targets))),
        zmin=scale.low,
        zmax=scale.high,
        colorscale=scale.colours,
        xgap=2,
        ygap=2,
        text=cells,
        textfont={"color": theme.INK},
        texttemplate="%{text}" if len(domains) <= 12 else None,
        customdata=[
            [(theme.label(target, 60), theme.label(domain, 60)) for domain in domains]
            for target in targets
        ],
        hovertemplate=f"{said}<extra></extra>",
        colorbar={
            "title": {"text": scale.name, "side": "right", "font": {"size": 13}},
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


def _entries(matrix: Array, digits: int) -> list[list[str]]:
    """Numbers >= 0, those that round to none as a bare zero."""
    none = 0.5 * 10**-digits
    return [["0" if v < none else f"{v:.{digits}f}" for v in row] for row in matrix]


def _names(names: Sequence[str], width: int) -> dict[str, Any]:
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [theme.label(name, width) for name in names],
        "showgrid": False,
        "ticks": "",
        "ticklabelstandoff": 5,
    }
