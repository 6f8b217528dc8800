"""What a law says, for the terminal: how the fit went, losses by target, effects of domains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bimix_tune.cli.tables import bar, percent
from bimix_tune.laws import Explanation, LawFit
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array

ROWS, COLUMNS = 12, 7
"""Of a grid before it is cut to what matters most."""
EQUAL = 0.01
"""Exchange rates that differ from one by less are one."""
WIDTH = 5
"""Least characters of a column's name."""
SENTENCES = 5
"""About proportions that no run tried, before the rest is counted."""


def law_summary(law: LawFit) -> RenderableType:
    """How the fit went, in words; its rungs; held-out errors and coefficients by target."""
    parts: list[RenderableType] = [Text(law.status), *notes(law.warnings)]
    if len(law.rungs) > 1:
        parts.append(rungs_table(law))
    parameters, rungs = law.parameters(), list(law.rungs)
    title = f"Coefficients of the part {rungs[0]}" if len(rungs) > 1 else "Law coefficients"
    table = _table(title, "target")
    errors = dict(zip(law.space.target_names, law.held_out.relative_error, strict=True))
    columns = _scalars(parameters)
    table.add_column("held-out error", justify="right")
    for column in columns:
        table.add_column(column, justify="right")
    for target, error in errors.items():
        values = parameters.get(target, {})
        shown = (_number(values.get(c)) for c in columns)
        table.add_row(target, f"{error:.2%}" if math.isfinite(error) else "–", *shown)
    parts.append(table)
    kinds = _kinds(parameters)
    if kinds:
        named = ", ".join(kinds)
        parts.append(Text(f"by domain too: {named} (bimix-tune explain shows them)", style="dim"))
    return Group(*parts)


def rungs_table(law: LawFit) -> Table:
    """The rungs of a blend and their shares of the prediction."""
    table = _table("What the prediction consists of", "law")
    table.add_column("share", justify="right")
    table.add_column("")
    for name, share in law.rungs.items():
        table.add_row(name, percent(share), bar(share, 20))
    return table


def notes(sentences: Sequence[str]) -> list[Text]:
    """Things to beware of."""
    return [Text(f"note: {sentence}", style="yellow") for sentence in sentences]


def outside_notes(sentences: Sequence[str]) -> list[Text]:
    """Proportions that no run tried, the first few."""
    rest = len(sentences) - SENTENCES
    more = [f"{rest} more proportions are outside what was tried"] if rest > 0 else []
    return notes([*sentences[:SENTENCES], *more])


def losses_table(
    law: LawFit, mixtures: Mapping[str, Mixture], tokens: float, extra: Mapping[str, Any]
) -> Table:
    """Predicted losses by target, and what is minimised.

    Args:
        law: The law.
        mixtures: By label.
        tokens: Training tokens.
        extra: Rows below the mean: a number for each mixture by name of the row.
    """
    table = _table(f"Predicted losses, {law.unit}", "target")
    for label in mixtures:
        table.add_column(label, justify="right")
    losses = law.predict(list(mixtures.values()), tokens)
    for target, row in zip(law.space.target_names, losses.T, strict=True):
        table.add_row(target, *(f"{v:.4f}" for v in row))
    table.add_section()
    table.add_row("mean by weight", *(f"{v:.4f}" for v in losses @ law.space.weights))
    for name, values in extra.items():
        table.add_row(name, *(f"{v:.4f}" for v in values))
    return table


def explanation(found: Explanation, width: int, everything: bool = False) -> RenderableType:
    """Effects of domains, exchange rates and coefficients by domain.

    Args:
        found: What a law says about a mixture.
        width: Columns of the terminal.
        everything: Show all domains and targets, however many.
    """
    law, weights = found.fit, found.fit.space.weights
    sizes = weights[:, None] * np.abs(found.effects)
    domains = _most(sizes.sum(axis=0), None if everything else ROWS)
    targets = _most(sizes.max(axis=1), None if everything else COLUMNS)
    columns = domains if everything else _among(sizes.sum(axis=0), domains, COLUMNS)
    domains = domains[np.argsort(found.objective[domains].round(5), kind="stable")]
    names, aims = law.space.names, law.space.target_names
    parts: list[RenderableType] = [
        Text(
            "Change of the losses, in thousandths of "
            f"{law.unit}, if one percent more of the tokens comes from a domain and all others "
            "give way in proportion (negative is better; ± one sd):"
        )
    ]
    lead = {
        "share": [percent(float(found.mixture[j])) for j in domains],
        "objective": [
            f"{_milli(found.objective[j])} ± {abs(1000 * found.deviation[j]):.2f}" for j in domains
        ],
    }
    rows = [names[j] for j in domains]
    parts += _grids(
        rows,
        [aims[v] for v in targets],
        lambda i, k: _milli(found.effects[targets[k], domains[i]]),
        width,
        lead,
    )
    parts += _cut(len(names) - len(domains), "domain", len(aims) - len(targets), "target")
    if np.allclose(found.exchange, 1.0, atol=EQUAL):
        parts.append(Text("A token of any domain is worth the same here: exchange rates are one."))
    elif np.isfinite(found.exchange).any():
        parts.append(Text("Tokens of the column's domain that are worth one token of the row's:"))
        parts += _grids(
            rows,
            [names[k] for k in columns],
            lambda i, k: _rate(float(found.exchange[domains[i], columns[k]])),
            width,
        )
        parts += _cut(len(names) - len(domains), "row", len(names) - len(columns), "column")
    parts += _coefficients(law, width, everything)
    return Group(*parts)


def _coefficients(law: LawFit, width: int, everything: bool) -> list[RenderableType]:
    """Grids of the coefficients by target and domain."""
    parts: list[RenderableType] = []
    parameters = law.parameters()
    names, aims = law.space.names, law.space.target_names
    every = np.arange(len(names))
    for kind in _kinds(parameters):
        rows = {t: row[kind] for t, row in parameters.items() if kind in row}
        matrix = np.array([[values[name] for name in names] for values in rows.values()])
        if kind == "transfer" and (np.count_nonzero(matrix, axis=1) < 2).all():
            continue  # the own domain only
        own = np.array([[law.space.own[aims.index(t)] == j for j in every] for t in rows])
        others = np.abs(matrix * ~own)
        shown = every if everything else _most(others.sum(axis=0), COLUMNS)
        order = np.arange(len(rows)) if everything else _most(others.max(axis=1), ROWS)
        parts.append(Text(MEANINGS.get(kind, f"Coefficients {kind} by target and domain:")))
        labels, part = list(rows), matrix[np.ix_(order, shown)]
        parts += _grids([labels[v] for v in order], [names[j] for j in shown], _cells(part), width)
        parts += _cut(len(rows) - len(order), "target", len(names) - len(shown), "domain")
    return parts


MEANINGS = {
    "transfer": "Transfer: what a domain is worth to a target (rows), its own domain being 1:",
    "additive": "W: about the part of a target's loss (rows) that e times as much of a domain "
    "removes:",
    "linear": "Change of the log loss of a target (rows) by a domain's proportion:",
}
"""Of the kinds of coefficients by domain; others are named only."""


def _grids(
    rows: Sequence[str],
    columns: Sequence[str],
    cell: Callable[[int, int], str],
    width: int,
    lead: Mapping[str, Sequence[str]] | None = None,
) -> list[Table]:
    """A table of numbers, in several if there are more than `COLUMNS` columns."""
    lead = lead or {}
    tables = []
    for first in range(0, len(columns), COLUMNS):
        part = range(first, min(first + COLUMNS, len(columns)))
        room = width - min(max(map(len, rows), default=0), 24) - 2 - 24 * bool(lead)
        each = min(max(room // len(part) - 2, WIDTH), 14)
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 1))
        table.add_column("", no_wrap=True, max_width=24)
        for name in lead:
            table.add_column(name, justify="right", no_wrap=True)
        for k in part:
            table.add_column(Text(_short(columns[k], each)), justify="right", no_wrap=True)
        for i, name in enumerate(rows):
            values = (cell(i, k) for k in part)
            table.add_row(Text(_short(name, 24)), *(lead[n][i] for n in lead), *values)
        tables.append(table)
    return tables


def _cells(matrix: Array) -> Callable[[int, int], str]:
    return lambda i, k: f"{matrix[i, k]:.2f}"


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column(first)
    return table


def _most(sizes: Any, limit: int | None) -> NDArray[np.int64]:
    """Positions of the greatest, in their order."""
    order = np.argsort(-np.asarray(sizes), kind="stable")
    return np.sort(order[:limit])


def _among(sizes: Any, positions: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    return np.sort(positions[_most(np.asarray(sizes)[positions], limit)])


def _cut(first: int, noun: str, second: int, other: str) -> list[Text]:
    """What a grid left out, if anything."""
    counts = ((first, noun), (second, other))
    parts = [f"{n} more {word}{'' if n == 1 else 's'}" for n, word in counts if n]
    text = f"{' and '.join(parts)} matter less: --all shows them"
    return [Text(text, style="dim")] if parts else []


def _scalars(parameters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the coefficients that are numbers, of any target."""
    rows = parameters.values()
    return list(dict.fromkeys(k for row in rows for k, v in row.items() if not _by_domain(v)))


def _kinds(parameters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the coefficients by domain, of any target."""
    rows = parameters.values()
    return list(dict.fromkeys(k for row in rows for k, v in row.items() if _by_domain(v)))


def _by_domain(value: object) -> bool:
    return isinstance(value, Mapping)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–"


def _milli(value: float) -> str:
    """In thousandths, with a sign unless it rounds to none; at most six characters below 10^5."""
    milli = 1000 * value
    digits = 2 if abs(milli) < 9.995 else 1 if abs(milli) < 99.95 else 0
    text = f"{milli:+.{digits}f}"
    return text if float(text) else "0"


def _rate(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.2f}" if value < 9.995 else f"{value:.0f}" if value < 999.5 else ">999"


def _short(name: str, width: int) -> str:
    """A name, shortened in the middle."""
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"
