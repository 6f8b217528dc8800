"""What the law says about the recommendation: effects of more of a domain, exchange rates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bimix_tune.laws import Explanation, LawFit, explain
from bimix_tune.loop.result import SearchResult
from bimix_tune.report import plots_law, tables, theme
from bimix_tune.report.markup import Markup, bullets, caption, empty, fold, note, plot

EQUAL = 0.01
"""Exchange rates that differ from one by less are one."""
SENTENCES = 5
"""About proportions that no run tried, before the rest is counted."""


def effects(result: SearchResult, fit: LawFit) -> list[Markup]:
    """A heat map, exchange rates, and proportions that no run tried."""
    tokens = result.target_tokens
    title = Markup("<h3>What a little more of a domain would do</h3>")
    if set(fit.space.names) != set(result.space.names):
        return []
    if fit.gradient(result.recommendation, tokens) is None:
        return [title, empty(f"The law {fit.law} has no derivatives, so this is not defined.")]
    found = explain(fit, result.recommendation, tokens)
    parts = [title, caption(_how_to_read(result, fit)), _heat_map(found)]
    parts += [note(f"{sentence}.") for sentence in found.outside[:SENTENCES]]
    rest = len(found.outside) - SENTENCES
    if rest > 0:
        parts.append(note(f"{rest} more proportions are outside what was tried."))
    name = tables.natural_name(result.space)
    natural = result.space.natural()
    return [*parts, *_exchange(found, lambda: explain(fit, natural, tokens), name)]


def _how_to_read(result: SearchResult, fit: LawFit) -> str:
    return (
        "From the recommendation at "
        f"{theme.count(result.target_tokens)} tokens: the change of each loss, in thousandths of "
        f"{fit.unit}, if one percent more of the tokens comes from the domain below and all "
        "others give way in proportion. Blue: the loss falls. At an optimum the objective no "
        "longer changes, unless a bound holds it, and targets trade off against each other."
    )


def _heat_map(found: Explanation) -> Markup:
    space = found.fit.space
    rows = 1000.0 * np.vstack([found.objective, found.effects])
    figure = plots_law.effects(rows, space.target_names, space.names, found.fit.unit)
    doubts = [
        f"{name}: {theme.signed(1000 * float(change), 2)} ± {1000 * float(sd):.2f}"
        for name, change, sd in zip(space.names, found.objective, found.deviation, strict=True)
    ]
    text = "The objective, with one standard deviation of the law"
    return Markup(plot(figure, "effects") + fold(text, bullets(doubts)))


def _exchange(found: Explanation, natural: Callable[[], Explanation], name: str) -> list[Markup]:
    """Exchange rates at the recommendation, or where those are all one, at the natural mixture."""
    text = "Exchange rates: tokens of the column's domain that lower the objective as much as one "
    text += "token of the row's. A dash: no more of it would lower the objective."
    where = "the recommendation"
    if np.allclose(found.exchange, 1.0, atol=EQUAL):
        text += (
            " At the recommendation all are one, as at every optimum within all bounds; these are "
            f"those of the {name} mixture."
        )
        found, where = natural(), f"the {name} mixture"
    if not np.isfinite(found.exchange).any():
        return []
    content = caption(text) + tables.exchange(found.exchange, found.fit.space.names)
    return [fold(f"Exchange rates between domains at {where}", Markup(content))]
