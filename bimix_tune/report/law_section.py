"""The section of the page about the law: held-out predictions, effects, equations, coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bimix_tune.laws import LawFit
from bimix_tune.laws.peers import PEERS
from bimix_tune.loop.result import PROPOSAL, SearchResult
from bimix_tune.report import plots_law, tables, theme
from bimix_tune.report.law_effects import effects
from bimix_tune.report.losses import COMPLETE
from bimix_tune.report.markup import Markup, caption, empty, escape, fold, note, plot
from bimix_tune.simplex import Array

NORMAL_95 = 1.96
"""Standard deviations of a 95 % interval."""


def law(result: SearchResult) -> str:
    """What the law is, how well it predicts, what it says, and its coefficients."""
    fit = result.fit
    if fit is None:
        return empty("No law could be fitted to the runs.")
    parts = [Markup(f"<p>{escape(_sentence(fit.status))}</p>")]
    parts += [note(_sentence(warning)) for warning in fit.warnings]
    if len(fit.rungs) > 1:
        parts.append(tables.rungs(fit.rungs))
    if len(fit.held_out.runs):
        parts.append(
            caption(
                "Each point is a run that the law had not seen when it predicted it. On the "
                "line: predicted exactly. Error: mean of |predicted / observed − 1|; ranks: "
                "rank correlation."
            )
        )
        parts.append(_panels(fit))
    parts.append(caption(coverage(result, fit)))
    values = fit.parameters()
    parts += effects(result, fit)
    return "\n".join([*parts, *_coefficients(values, fit.space.names), _parameters(fit, values)])


def coverage(result: SearchResult, fit: LawFit) -> str:
    """What the intervals of the objective promise, and how they did so far."""
    if fit.law in PEERS:
        text = (
            "Intervals of the objective: this law does not say how uncertain it is; they are the "
            "scatter of the runs about it"
        )
    else:
        text = "Intervals of the objective: of a fresh run, from the law's doubt and a run's noise"
    if len(fit.held_out.runs):
        text += f", times {fit.inflation:.2f} to meet the errors on runs left out"
    else:
        text += "; no runs were left out to check them"
    pairs = [
        (r.objective, *r.predicted)
        for r in result.records
        if r.role == PROPOSAL and r.state == COMPLETE and r.predicted and r.objective is not None
    ]
    if not pairs:
        return f"{text}."
    inside = sum(abs(value - mean) <= NORMAL_95 * sd for value, mean, sd in pairs)
    return (
        f"{text}. Of the proposals that ran to the end, {inside} of {len(pairs)} ended in the "
        "95 % interval given before the run."
    )


def _parameters(fit: LawFit, values: dict[str, dict[str, Any]]) -> Markup:
    """Equations and coefficients in numbers; of a blend those of its first law."""
    rungs = list(fit.rungs)
    parts = [caption(text) for text in _equations(fit, values)]
    if len(rungs) > 1:
        parts.append(caption(f"The coefficients are those of the part {rungs[0]}."))
    parts.append(tables.parameters(values))
    for kind in dict.fromkeys(k for row in values.values() for k in row if _is_row(row[k])):
        if kind not in FIGURES:
            rows = {t: row[kind] for t, row in values.items() if kind in row}
            parts += [
                caption(f"{kind}, by target and domain:"),
                tables.by_domain(rows, fit.space.names),
            ]
    return fold("Equations and coefficients", Markup("".join(parts)))


def _coefficients(values: dict[str, dict[str, Any]], domains: tuple[str, ...]) -> list[Markup]:
    """A figure of each kind of coefficients by target and domain."""
    parts = []
    for kind, (heading, text, figure) in FIGURES.items():
        found = _rows(values, kind)
        if found is None or (kind == "transfer" and not any(map(_has_transfer, found[1]))):
            continue
        parts += [Markup(f"<h3>{heading}</h3>"), caption(text)]
        parts.append(plot(figure(found[1], found[0], domains), kind))
    return parts


FIGURES = {
    "transfer": (
        "What a domain is worth for another's loss",
        "T: what a domain counts for, against 1 for the target's own domain. A row of a target "
        "without own domain has no natural unit: compare within the row only.",
        plots_law.transfer,
    ),
    "additive": (
        "What targets without own domain gain from each domain",
        "W: about the part of the loss that e times as much of the domain removes; "
        "0 where the domain makes no difference.",
        plots_law.additive,
    ),
    "linear": (
        "How losses follow the proportions",
        "c: change of the log loss by the domain's proportion; only differences within a row "
        "count. Blue: more of the domain lowers the loss.",
        plots_law.linear,
    ),
}
"""By the kind of a row of coefficients: heading, how to read it, figure."""


_GROWTH = "times exp(−δ) at the end of the learning-rate decay; s: training tokens"
_PRODUCT = f"L = (ε + r′)^−α (B s^−β + C), {_GROWTH}, "
_FORMS = {
    "own": _PRODUCT + "r′: the own domain's proportion.",
    "transfer": _PRODUCT
    + "r′ = r_own^ρ + Σ T_j r_j^ρ: the own domain's proportion r_own plus what the others are "
    "worth.",
    "additive": (
        f"L = (B s^−β + C) (1 + Σ W h(r)), {_GROWTH}, "
        "h(r) = ((ε + r)^−α − (ε + 1)^−α) / α of each domain's proportion r."
    ),
    "linear": f"L = (B s^−β + C) exp(Σ c_j r_j), {_GROWTH}, r_j: the domains' proportions.",
}
"""By the form that a target follows."""
_ALONE = {
    "transported": (
        "log L = log(B s^−β + C) + α (log S(r) − mean log S), with S the law of the smaller model "
        "size and s the training tokens."
    ),
    "paper": "L = A r^−α (B s^−β + C), r: the own domain's proportion, s: training tokens.",
    "exponential": "L = c + k exp(Σ t_j r_j), r_j: the domains' proportions.",
    "log-linear": "L = exp(c + Σ A_j r_j), r_j: the domains' proportions.",
    "lightgbm": "Boosted trees on the proportions, without coefficients.",
    "scaling-additive": (
        "L = E + 1 / Σ C_j r_j^γ_j + B s^−β, r_j: the domains' proportions, s: training tokens."
    ),
}
"""Of laws that are the same for every target."""


def _equations(fit: LawFit, values: dict[str, dict[str, Any]]) -> list[str]:
    """The equation of every form of target, and if there are several, of which targets."""
    first = next(iter(fit.rungs), "")
    if first in _ALONE:
        return [_ALONE[first]]
    used: dict[str, list[str]] = {}
    for target, row in values.items():
        form = _form(row)
        if form:
            used.setdefault(form, []).append(target)
    if len(used) == 1:
        return [_FORMS[form] for form in used]
    return [f"{', '.join(names)}: {_FORMS[form]}" for form, names in used.items()]


def _form(row: dict[str, Any]) -> str:
    """Which of `_FORMS` the coefficients of a target belong to."""
    if "transfer" in row:
        return "transfer" if "rho" in row else "own"
    return next((form for form in ("additive", "linear") if form in row), "")


def _is_row(value: object) -> bool:
    return isinstance(value, Mapping)


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
