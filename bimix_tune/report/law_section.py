"""The section of the page about the law: held-out predictions, equations, coefficients."""

from __future__ import annotations

from typing import Any

import numpy as np

from bimix_tune.laws import LawFit
from bimix_tune.loop.result import SearchResult
from bimix_tune.report import plots_law, tables, theme
from bimix_tune.report.markup import Markup, caption, empty, escape, fold, note, plot
from bimix_tune.simplex import Array


def law(result: SearchResult) -> str:
    """What the law is, how well it predicts, and its coefficients."""
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
    return "\n".join([*parts, *_coefficients(values, result.space.names)])


def _coefficients(values: dict[str, dict[str, Any]], domains: tuple[str, ...]) -> list[Markup]:
    """A figure of each kind of coefficients by target and domain."""
    parts = []
    worth = _rows(values, "transfer")
    if worth is not None and any(_has_transfer(row) for row in worth[1]):
        parts.append(Markup("<h3>What a token of one domain is worth for another's loss</h3>"))
        text = "In tokens of the target's own domain (1). A row of a target without own domain "
        parts.append(caption(text + "has no natural unit: compare within the row only."))
        figure = plots_law.transfer(worth[1], worth[0], domains)
        parts.append(plot(figure, "transfer"))
    gains = _rows(values, "additive")
    if gains is not None:
        parts.append(Markup("<h3>What targets without own domain gain from each domain</h3>"))
        text = "W: about the part of the loss that e times as much of the domain removes; "
        parts.append(caption(text + "0 where the domain makes no difference."))
        figure = plots_law.additive(gains[1], gains[0], domains)
        parts.append(plot(figure, "additive"))
    return parts


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
            f"{plot(figure, f'law-{i}')}</figure>"
        )
    return Markup(f'<div class="panels">{"".join(panels)}</div>')


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
