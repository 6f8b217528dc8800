"""The sections of the page: each is a function of the result that returns its content.

What a search lacks is said in its place rather than left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import plotly.graph_objects as go

from bimix_tune.laws import LawFit
from bimix_tune.loop.result import CONFIRMATION, RECOMMENDATION, SearchResult, search_records
from bimix_tune.report import plots_answer, plots_law, plots_search, tables, theme
from bimix_tune.report.losses import target_losses
from bimix_tune.report.markup import (
    Markup,
    caption,
    definitions,
    empty,
    escape,
    fold,
    many,
    note,
)
from bimix_tune.simplex import Array
from bimix_tune.space import Mixture

PLOT_CONFIG = {"responsive": True, "displayModeBar": False}


def today() -> str:
    """Date and time of writing."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def answer(result: SearchResult) -> str:
    """The recommended mixture, what to know before using it, and a copy for other programs."""
    named = tables.natural_name(result.space)
    words = "natural share" if named == "natural" else "equal share (no priors are given)"
    parts = [tables.recommendation(result), caption(f"The dark tick on a bar marks the {words}.")]
    if result.fit is not None:
        parts.append(caption(_expectation(result, result.fit)))
    parts += [note(text) for text in _cautions(result)]
    shares = json.dumps(dict(result.recommendation), indent=2, ensure_ascii=False)
    parts.append(fold("Copy as JSON", Markup(f"<pre>{escape(shares)}</pre>")))
    return "\n".join(parts)


def _expectation(result: SearchResult, fit: LawFit) -> str:
    """What the law expects of the recommendation and of the natural mixture."""
    mixtures = [result.recommendation, result.space.natural()]
    mean, sd = fit.objective(mixtures, result.target_tokens)
    return (
        f"The law expects a loss of {mean[0]:.4f} ± {sd[0]:.4f} {result.unit} (one standard "
        f"deviation of a run) at {theme.count(result.target_tokens)} tokens, and {mean[1]:.4f} "
        f"± {sd[1]:.4f} with {tables.natural_name(result.space)} shares."
    )


def _cautions(result: SearchResult) -> list[str]:
    """What bears on the answer: other scale, doubts of the law, a baseline recommended."""
    notes = []
    for name, mixture in result.baselines.items():
        if mixture.distance(result.recommendation) <= theme.NEGLIGIBLE:
            notes.append(f"The recommendation is the same mixture as the baseline {name}.")
    seen = max((float(r.curve.tokens[-1]) for r in result.records if r.curve), default=0.0)
    if seen and abs(result.target_tokens / seen - 1) > 0.05:
        notes.append(
            f"The runs saw at most {theme.count(seen)} tokens; for "
            f"{theme.count(result.target_tokens)} tokens the recommendation extrapolates, "
            "and the confirmation speaks for the runs' own length only."
        )
    if result.fit is not None:
        notes += [f"About the law: {warning}." for warning in result.fit.warnings]
    return notes


def _plot(figure: go.Figure, name: str) -> Markup:
    """A figure as a part of the page."""
    content = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"plot-{name}",
        config=PLOT_CONFIG,
        default_height=f"{figure.layout.height}px",
    )
    return Markup(f'<div class="plot">{content}</div>')


def _confirmation(result: SearchResult) -> str:
    found = result.confirmation
    if found is None or not found.comparisons:
        tried = [r for r in result.records if r.role == CONFIRMATION]
        if tried:
            return empty(
                f"{many(len(tried), 'confirmation run')} gave nothing to compare; see Runs."
            )
        return empty("No confirmation was made: there are no fresh paired runs.")
    seeds = len(found.seeds)
    noise = (
        f"Noise of one run: standard deviation {found.noise:.4f} {result.unit}."
        if np.isfinite(found.noise)
        else "The noise of a run cannot be told from one seed."
    )
    text = (
        f"Fresh runs of every mixture with {many(seeds, 'seed')}; runs that "
        "share a seed share initial weights and data order, and are compared in pairs. Right of "
        f"zero the recommendation is better. {noise}"
    )
    figure = plots_answer.forest(found, result.unit)
    key = "Squares: mean difference with 95 % interval, hollow if it contains zero. Ticks: pairs."
    shown = [caption(text), tables.confirmation(found, result.unit)]
    return "\n".join([*shown, _plot(figure, "confirmation"), caption(key)])


def _shown(result: SearchResult) -> dict[str, Mixture]:
    return {RECOMMENDATION: result.recommendation, **result.baselines}


def _mixtures(result: SearchResult) -> str:
    shown = _shown(result)
    figure = plots_answer.mixtures(result.space, shown)
    numbers = fold("All proportions in numbers", tables.mixtures(result.space, shown))
    return "\n".join([tables.swatches(result.space), _plot(figure, "mixtures"), numbers])


def _gains(result: SearchResult) -> str:
    losses = target_losses(result)
    if losses is None:
        return empty("There are no losses of the recommendation and of a baseline to compare.")
    text = (
        f"{losses.source} A cell is the loss of the mixture above minus that of the "
        f"recommendation, in {result.unit}: blue and positive where the recommendation is "
        "better, orange and negative where the mixture is."
    )
    if losses.beyond is not None:
        text += " In brackets: no difference beyond noise (the 95 % interval contains zero)."
    figure = plots_answer.gains(losses, result.space, result.unit)
    return "\n".join([caption(text), _plot(figure, "gains")])


def _progress(result: SearchResult) -> str:
    if not search_records(result.records):
        return empty("No run was recorded.")
    text = (
        "Objective of each run at its last checkpoint; hollow runs were stopped early and so "
        "saw fewer tokens. Triangles at the top are runs beyond the axis. Grey: what the law "
        "expected before the run, with one standard deviation."
    )
    return "\n".join([caption(text), _plot(plots_search.progress(result), "progress")])


def _curves(result: SearchResult) -> str:
    if not any(r.curve is not None for r in result.records):
        return empty("No run left a loss curve.")
    text = "Choose the objective or a target at the top right; click a name below to hide it."
    return "\n".join([caption(text), _plot(plots_search.curves(result), "curves")])


def _law(result: SearchResult) -> str:
    fit = result.fit
    if fit is None:
        return empty("No law could be fitted to the runs.")
    parts = [Markup(f"<p>{escape(_sentence(fit.status))}</p>")]
    parts += [note(_sentence(warning)) for warning in fit.warnings]
    if len(fit.held_out.runs):
        parts.append(
            caption(
                "Each point is a run that the law had not seen when it predicted it. On the "
                "line: predicted exactly. Error: mean of |predicted / observed − 1|; ranks: "
                "rank correlation."
            )
        )
        parts.append(_panels(fit))
    values = fit.parameters()
    equations = "".join(caption(text) for text in _equations(values))
    parts.append(fold("Parameters", Markup(equations + tables.parameters(values))))
    worth = _rows(values, "transfer")
    if worth is not None and any(_has_transfer(row) for row in worth[1]):
        parts.append(Markup("<h3>What a token of one domain is worth for another's loss</h3>"))
        text = "In tokens of the target's own domain (1). A row of a target without own domain "
        parts.append(caption(text + "has no natural unit: compare within the row only."))
        figure = plots_law.transfer(worth[1], worth[0], result.space.names)
        parts.append(_plot(figure, "transfer"))
    gains = _rows(values, "additive")
    if gains is not None:
        parts.append(Markup("<h3>What targets without own domain gain from each domain</h3>"))
        text = "W: about the part of the loss that e times as much of the domain removes; "
        parts.append(caption(text + "0 where the domain makes no difference."))
        figure = plots_law.additive(gains[1], gains[0], result.space.names)
        parts.append(_plot(figure, "additive"))
    return "\n".join(parts)


EQUATIONS = {
    "transfer": (
        "L = (ε + r′)^−α (B s^−β + C), times exp(−δ) at the end of the learning-rate decay; "
        "s: training tokens, r′: the own domain's proportion plus what other domains are worth."
    ),
    "additive": (
        "L = (B s^−β + C) (1 + Σ W h(r)), times exp(−δ) at the end of the learning-rate decay; "
        "s: training tokens, h(r) = ((ε + r)^−α − (ε + 1)^−α) / α of each domain's proportion r."
    ),
}
"""By the kind of a target's row of coefficients; see `LawFit.parameters`."""


def _equations(values: dict[str, dict[str, Any]]) -> list[str]:
    """The equation of every kind of target, and if there are several, of which targets."""
    kinds = {kind: [t for t, row in values.items() if kind in row] for kind in EQUATIONS}
    used = {kind: names for kind, names in kinds.items() if names}
    if len(used) == 1:
        return [EQUATIONS[kind] for kind in used]
    return [f"{', '.join(names)}: {EQUATIONS[kind]}" for kind, names in used.items()]


def _rows(values: dict[str, dict[str, Any]], kind: str) -> tuple[list[str], Array] | None:
    """The targets with coefficients of a kind, and these, (V, K); None if there are none."""
    rows = {target: list(row[kind].values()) for target, row in values.items() if kind in row}
    return (list(rows), np.array(list(rows.values()), float)) if rows else None


def _has_transfer(row: Array) -> bool:
    """Whether several domains are worth something for a target, and not all the same."""
    return bool(np.count_nonzero(row) > 1 and row.std() >= 1e-12)


def _panels(fit: LawFit) -> Markup:
    """Predicted against observed, the objective first and then each target."""
    seen = fit.held_out
    values = [("objective", seen.objective_predicted, seen.objective_observed)]
    values += [
        (name, seen.predicted[:, v], seen.observed[:, v])
        for v, name in enumerate(fit.space.target_names)
    ]
    panels = []
    for i, (name, predicted, observed) in enumerate(values):
        colour = theme.ACCENT if i else theme.INK
        figure = plots_law.held_out(seen.runs, predicted, observed, fit.unit, colour)
        said = plots_law.agreement(predicted, observed)
        panels.append(
            f"<figure><figcaption><strong>{escape(name)}</strong><br>{escape(said)}</figcaption>"
            f"{_plot(figure, f'law-{i}')}</figure>"
        )
    return Markup(f'<div class="panels">{"".join(panels)}</div>')


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _runs(result: SearchResult) -> str:
    records = result.records
    if not records:
        return empty("No run was recorded.")
    failed = tables.failures(records)
    parts = [tables.states(records)]
    if failed:
        parts += [Markup("<h3>Failures</h3>"), failed]
    parts.append(fold(f"All {len(records)} runs", tables.runs(records)))
    return "\n".join(parts)


def _settings(result: SearchResult) -> str:
    seconds = [r.seconds for r in result.records if np.isfinite(r.seconds)]
    facts = {
        "folder": str(result.folder),
        "space": result.space.source or "not described",
        "unit of losses": result.unit,
        "target tokens": f"{theme.count(result.target_tokens)} ({result.target_tokens:,})",
        "training time": f"{theme.duration(sum(seconds))}, all runs together" if seconds else "–",
        "law": result.fit.law if result.fit else "none",
        "written": today(),
        "versions": tables.versions(),
    }
    parts = [definitions(facts)]
    notes = tables.notes(result.records)
    if notes:
        parts += [Markup("<h3>Noted by the trainings</h3>"), definitions(notes)]
    parts.append(fold("The space: bounds and weights", tables.space_tables(result.space)))
    return "\n".join(parts)


SECTIONS: tuple[tuple[str, str, Callable[[SearchResult], str]], ...] = (
    ("confirmation", "Confirmation", _confirmation),
    ("mixtures", "Mixtures side by side", _mixtures),
    ("gains", "Where the gain comes from", _gains),
    ("progress", "Progress of the search", _progress),
    ("law", "How well the law predicts", _law),
    ("curves", "Loss curves", _curves),
    ("runs", "Runs", _runs),
    ("settings", "Settings and provenance", _settings),
)
"""The sections after the answer, in order: id, heading, content."""
