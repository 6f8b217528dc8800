"""Figures of the search: how the objective came down, and every run's loss curve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from bimix_tune.curves import LossCurve
from bimix_tune.loop.result import (
    BASELINE,
    CONFIRMATION,
    RECOMMENDATION,
    STARTUP,
    RunRecord,
    SearchResult,
    search_records,
)
from bimix_tune.report import theme
from bimix_tune.report.losses import COMPLETE, confirmation_runs, table, weighted
from bimix_tune.simplex import Array

ROLES = {
    BASELINE: ("baseline", "square", "#E69F00"),
    STARTUP: ("startup", "diamond", "#009E73"),
    "proposal": ("proposal", "circle", theme.ACCENT),
}
MOST_CURVES = 150
"""Grey curves drawn, evenly chosen from all: more are neither readable nor small."""
MOST_POINTS = 32
"""Checkpoints drawn of one curve."""


def progress(result: SearchResult) -> go.Figure:
    """Objective of each run of the search in order, with what the law expected of it."""
    records = search_records(result.records)
    ceiling = _ceiling(records)
    traces = [_predictions(records), _running_best(records, ceiling)]
    for role, (name, symbol, colour) in ROLES.items():
        for state, suffix in ((COMPLETE, ""), ("PRUNED", ", stopped")):
            some = [r for r in records if r.role == role and r.state == state]
            some = [r for r in some if r.objective is not None and math.isfinite(r.objective)]
            if some:
                style = (name + suffix, symbol, colour)
                traces += _markers(some, ceiling, *style, filled=state == COMPLETE)
    failed = [r for r in records if r.state == "FAIL"]
    if failed:
        traces.append(_failed(failed, ceiling))
    return theme.figure(
        [t for t in traces if t is not None],
        height=430,
        xaxis={"title": {"text": "run (trial number)"}},
        yaxis={"title": {"text": f"objective, {result.unit}"}},
    )


def _ceiling(records: Sequence[RunRecord]) -> float:
    """Where the axis ends: far outliers would flatten what the search is about.

    All baselines are in sight, and four times the distance from the best run to the median.
    """
    known = [(r, r.objective) for r in records if r.objective and math.isfinite(r.objective)]
    values = np.array([v for _, v in known])
    if not values.size:
        return 1.0
    complete = np.array([v for r, v in known if r.state == COMPLETE])
    base = complete if complete.size else values
    best = float(base.min())
    rivals = [v - best for r, v in known if r.role == BASELINE and r.state == COMPLETE]
    reach = max([4 * (float(np.median(base)) - best), *(1.2 * v for v in rivals)])
    return min(float(values.max()), best + (reach or 0.05 * abs(best)))


def _markers(
    records: Sequence[RunRecord],
    ceiling: float,
    name: str,
    symbol: str,
    colour: str,
    *,
    filled: bool,
) -> list[go.Scatter]:
    """Runs of one kind: those in sight, and triangles at the ceiling for those beyond."""
    looks = {"color": colour if filled else "white", "line": {"color": colour, "width": 1.8}}
    inside = [r for r in records if (r.objective or 0.0) <= ceiling]
    beyond = [r for r in records if (r.objective or 0.0) > ceiling]
    traces = []
    for some, sign, shown in ((inside, symbol, True), (beyond, "triangle-up", False)):
        traces.append(
            go.Scatter(
                # Without a point plotly would leave the name out of the legend.
                x=[float(r.number) for r in some] or [math.nan],
                y=[min(r.objective or 0.0, ceiling) for r in some] or [math.nan],
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=shown,
                marker={"symbol": sign, "size": 9, **looks},
                text=[_describe(r) for r in some],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return traces


def _describe(record: RunRecord) -> str:
    """Hover text of a run: state, losses, and its largest proportions."""
    lines = [f"run {record.number}, {record.role} {theme.label(record.label)}".rstrip()]
    lines.append(f"{record.state.lower()}, objective {theme.loss(record.objective)}")
    if record.curve is not None:
        lines[-1] += f" at {theme.count(float(record.curve.tokens[-1]))} tokens"
    if record.predicted is not None:
        mean, sd = record.predicted
        lines.append(f"expected {theme.loss(mean)} ± {theme.loss(sd)}")
    if record.cause:
        lines.append(theme.label(record.cause, 90))
    top = sorted((record.mixture or {}).items(), key=lambda item: -item[1])
    lines += [f"{theme.percent(share)} {theme.label(name)}" for name, share in top[:6]]
    if len(top) > 6:
        lines.append(f"and {len(top) - 6} more")
    return "<br>".join(lines)


def _running_best(records: Sequence[RunRecord], ceiling: float) -> go.Scatter | None:
    """Lowest objective of the complete runs so far; stopped runs saw fewer tokens."""
    done = [
        (r.number, r.objective)
        for r in records
        if r.state == COMPLETE and r.objective is not None and math.isfinite(r.objective)
    ]
    if not done:
        return None
    numbers, values = zip(*done, strict=True)
    last = max(r.number for r in records)
    best = np.minimum(np.minimum.accumulate(np.array(values)), ceiling)
    return go.Scatter(
        x=[*numbers, last],
        y=[*best.tolist(), float(best[-1])],
        mode="lines",
        line={"shape": "hv", "color": theme.INK, "width": 1.5},
        name="best so far",
        hoverinfo="skip",
    )


def _predictions(records: Sequence[RunRecord]) -> go.Scatter | None:
    known = [(r.number, *r.predicted) for r in records if r.predicted is not None]
    known = [k for k in known if all(math.isfinite(v) for v in k)]
    if not known:
        return None
    numbers, means, sds = zip(*known, strict=True)
    return go.Scatter(
        x=numbers,
        y=means,
        error_y={"array": sds, "color": "#9AA5B1", "thickness": 5, "width": 0},
        mode="markers",
        marker={"symbol": "line-ew-open", "size": 12, "color": theme.MUTED, "line": {"width": 2}},
        name="expected by the law (± 1 sd)",
        hovertemplate="run %{x}: expected %{y:.4f}<extra></extra>",
    )


def _failed(records: Sequence[RunRecord], ceiling: float) -> go.Scatter:
    """Failed runs as crosses at the top, whatever their last loss was."""
    return go.Scatter(
        x=[r.number for r in records],
        y=[ceiling] * len(records),
        mode="markers",
        name="failed (no result)",
        marker={"symbol": "x-thin-open", "size": 10, "color": theme.BAD, "line": {"width": 2.5}},
        text=[_describe(r) for r in records],
        hovertemplate="%{text}<extra></extra>",
    )


@dataclass(frozen=True)
class _Group:
    """Curves drawn alike."""

    name: str
    curves: tuple[LossCurve, ...]
    line: dict[str, Any]


def curves(result: SearchResult) -> go.Figure:
    """Loss against tokens of all runs, one target (or the objective) at a time."""
    groups = _groups(result)
    names = ["objective", *result.space.target_names]
    traces = [_lines(g, result, column) for column in range(len(names)) for g in groups]
    buttons = []
    for column, name in enumerate(names):
        visible = [column == other for other in range(len(names)) for _ in groups]
        title = {"yaxis.title.text": f"{theme.label(name)}, {result.unit}"}
        change = [{"visible": visible}, title]
        buttons.append({"label": theme.label(name), "method": "update", "args": change})
    menu = {"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}
    return theme.figure(
        traces,
        height=480,
        xaxis={
            "type": "log",
            "title": {"text": "training tokens seen (logarithmic)"},
            **_ticks(groups),
        },
        yaxis={"title": {"text": f"objective, {result.unit}"}},
        updatemenus=[menu | {"showactive": True, "bgcolor": "white", "bordercolor": theme.FAINT}],
        legend={"y": -0.2, "yanchor": "top"},
        margin={"t": 50},
    )


def _ticks(groups: Iterable[_Group]) -> dict[str, Any]:
    """Ticks at 1, 2, 5 of each decade where there are few decades, else at each decade."""
    ends = [t for g in groups for c in g.curves for t in (c.tokens[0], c.tokens[-1])]
    if not ends or max(ends) / min(ends) > 300:
        return {"dtick": 1, "exponentformat": "SI"}
    decades = range(math.floor(math.log10(min(ends))), math.ceil(math.log10(max(ends))) + 1)
    values = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return {"tickvals": values, "ticktext": [theme.count(v) for v in values]}


def _groups(result: SearchResult) -> list[_Group]:
    """Grey for all runs, one colour per baseline, the accent for the recommendation.

    The confirmation's runs stand for a mixture where there are any, else those of the search.
    """
    runs = [r for r in result.records if r.curve is not None]
    confirmed = confirmation_runs(result)
    groups = []
    grey = [r.curve for r in runs if r.role not in (BASELINE, CONFIRMATION) and r.curve]
    if grey:
        chosen = np.unique(np.linspace(0, len(grey) - 1, min(MOST_CURVES, len(grey))).round())
        line = {"color": theme.FAINT, "width": 1}
        some = tuple(grey[int(i)] for i in chosen)
        groups.append(_Group(f"runs of the search ({len(some)})", some, line))
    for position, name in enumerate(result.baselines):
        own = _curves_of(confirmed, name)
        own = own or _curves_of([r for r in runs if r.role == BASELINE], name)
        if own:
            line = {"color": theme.baseline_colour(position), "width": 1.8}
            line["dash"] = ("solid", "dash", "dot")[position // 3 % 3]
            groups.append(_Group(theme.label(name), own, line))
    own = _curves_of(confirmed, RECOMMENDATION)
    if own:
        groups.append(_Group("recommendation", own, {"color": theme.ACCENT, "width": 3}))
    return groups


def _curves_of(runs: Iterable[RunRecord], name: str) -> tuple[LossCurve, ...]:
    return tuple(r.curve for r in runs if r.label == name and r.curve is not None)


def _lines(group: _Group, result: SearchResult, column: int) -> go.Scatter:
    """All curves of a group as one trace, with gaps between; column 0 is the objective."""
    pieces_x: list[Array] = []
    pieces_y: list[Array] = []
    gap = np.array([np.nan])
    for curve in group.curves:
        s = len(curve.tokens)
        keep = np.unique(np.linspace(0, s - 1, min(s, MOST_POINTS)).round().astype(int))
        losses = table(curve, result.space)[keep]
        y = weighted(losses, result.space) if column == 0 else losses[:, column - 1]
        pieces_x += [curve.tokens[keep], gap]
        pieces_y += [y, gap]
    return go.Scatter(
        x=np.concatenate(pieces_x).astype(np.float32),
        y=np.concatenate(pieces_y).astype(np.float32),
        mode="lines+markers",
        marker={"size": 3 if group.line["width"] == 1 else 5},
        line=group.line,
        name=group.name,
        visible=column == 0,
        hovertemplate=f"{group.name}<br>%{{x:.3s}} tokens: %{{y:.4f}}<extra></extra>",
    )
