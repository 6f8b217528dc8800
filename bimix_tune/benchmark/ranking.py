"""All laws against each other: one number for each, and the cells of a table of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from bimix_tune.benchmark.summary import Summary
from bimix_tune.simplex import Array


@dataclass(frozen=True, eq=False)
class Ranking:
    """One score of L laws in C columns, the best law first.

    Args:
        laws: Names, (L,).
        columns: Swarm and number of runs, (C,).
        values: The score, (L, C); NaN where a law has none.
        mean_rank: Mean over the columns in which a law has a score, 1 at best, (L,).
    """

    laws: tuple[str, ...]
    columns: tuple[tuple[str, int], ...]
    values: Array
    mean_rank: Array


def rank(summaries: Iterable[Summary], score: str, greater_is_better: bool = False) -> Ranking:
    """Rank the laws of one task.

    Args:
        summaries: Of one task.
        score: Name of the score in `Summary`.
        greater_is_better: The direction.
    """
    found = {(s.law, s.swarm, s.n): float(getattr(s, score)) for s in summaries}
    laws = list(dict.fromkeys(law for law, _, _ in found))
    columns = list(dict.fromkeys((swarm, n) for _, swarm, n in found))
    values = np.array([[found.get((law, *c), np.nan) for c in columns] for law in laws])
    some = np.isfinite(values).any(axis=1)
    laws, values = [law for law, s in zip(laws, some, strict=True) if s], values[some]
    mean_rank = _mean_rank(-values if greater_is_better else values)
    order = np.argsort(mean_rank, kind="stable")
    return Ranking(tuple(laws[i] for i in order), tuple(columns), values[order], mean_rank[order])


def _mean_rank(costs: Array) -> Array:
    """Mean rank of each row among the rows that have a value in a column."""
    ranks = np.full(costs.shape, np.nan)
    for column in range(costs.shape[1]):
        known = np.isfinite(costs[:, column])
        ranks[known, column] = rankdata(costs[known, column])
    return np.asarray(np.nanmean(ranks, axis=1)) if costs.size else np.zeros(len(costs))


def swarm_blocks(columns: Sequence[tuple[str, int]]) -> list[tuple[str, int, int]]:
    """Runs of neighbouring columns of one swarm: its name, first and last position.

    >>> swarm_blocks([("a", 8), ("a", 16), ("b", 8)])
    [('a', 0, 1), ('b', 2, 2)]
    """
    blocks: list[tuple[str, int, int]] = []
    for at, (swarm, _) in enumerate(columns):
        if blocks and blocks[-1][0] == swarm:
            blocks[-1] = (swarm, blocks[-1][1], at)
        else:
            blocks.append((swarm, at, at))
    return blocks
