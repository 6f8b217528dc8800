"""Tables for the terminal; each function returns something rich can print."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from bimix_tune.loop.result import RECOMMENDATION, Confirmation, SearchResult
from bimix_tune.mixture import Mixture

if TYPE_CHECKING:
    from bimix_tune.corpus import Corpus

BLOCKS = " ▏▎▍▌▋▊▉█"


def bar(share: float, width: int = 10) -> str:
    """A bar of block characters, ``share`` of ``width`` cells long."""
    eighths = round(max(0.0, min(share, 1.0)) * width * 8)
    return (BLOCKS[8] * (eighths // 8) + BLOCKS[eighths % 8].strip()).ljust(width)


def percent(share: float) -> str:
    """A proportion as a percentage that shows small ones too."""
    return f"{share:.1%}" if share >= 0.001 or share == 0 else "<0.1%"


def mixtures_table(mixtures: Mapping[str, Mixture], title: str) -> Table:
    """Mixtures side by side: domains down, mixtures across."""
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("domain")
    for label in mixtures:
        table.add_column(label, justify="right")
    names = next(iter(mixtures.values())).names if mixtures else ()
    for name in names:
        table.add_row(name, *(percent(m[name]) for m in mixtures.values()))
    return table


def corpus_table(corpus: Corpus) -> Table:
    """Tokens and bytes per token of each domain."""
    table = Table(title=f"Corpus {corpus.key}", title_justify="left", header_style="bold")
    for column in ("domain", "training tokens", "validation tokens", "bytes per token"):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for name in corpus.names:
        table.add_row(
            name,
            f"{corpus.count(name, 'train'):,}",
            f"{corpus.count(name, 'valid'):,}",
            f"{corpus.bytes_per_token(name):.2f}",
        )
    return table


def entropy_table(entropies: Mapping[str, Mapping[str, float]]) -> Table:
    """Entropies in nats, by kind and domain."""
    table = Table(title="Entropy, nats", title_justify="left", header_style="bold")
    table.add_column("domain")
    for kind in entropies:
        table.add_column(kind, justify="right")
    for name in next(iter(entropies.values()), {}):
        table.add_row(name, *(f"{values[name]:.3f}" for values in entropies.values()))
    return table


def recommendation_table(result: SearchResult) -> Table:
    """The recommended proportions against the natural ones."""
    natural = dict(zip(result.space.names, result.space.prior.tolist(), strict=True))
    table = Table(title="Recommended mixture", title_justify="left", header_style="bold")
    for column in ("domain", "share", "", "natural", "change"):
        table.add_column(column, justify="right" if column not in ("domain", "") else "left")
    for name, share in sorted(result.recommendation.items(), key=lambda kv: -kv[1]):
        factor = share / natural[name]
        table.add_row(
            name, percent(share), bar(share, 20), percent(natural[name]), f"x{factor:.2f}"
        )
    return table


def confirmation_table(confirmation: Confirmation, unit: str) -> Table:
    """Each baseline against the recommendation."""
    seeds = len(confirmation.seeds)
    count = f"{seeds} fresh seeds" if seeds > 1 else "one fresh seed"
    title = f"Confirmation, {count}, {unit}"
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in ("mixture", "mean loss", "worse by", "95 % interval"):
        table.add_column(column, justify="left" if column == "mixture" else "right")
    own = confirmation.objective[RECOMMENDATION]
    table.add_row("recommendation", f"{sum(own) / len(own):.4f}", "", "", style="bold")
    for c in confirmation.comparisons:
        runs = confirmation.objective[c.label]
        interval = "" if math.isnan(c.low) else f"{c.low:+.4f} to {c.high:+.4f}"
        table.add_row(c.label, f"{sum(runs) / len(runs):.4f}", f"{c.mean:+.4f}", interval)
    return table
