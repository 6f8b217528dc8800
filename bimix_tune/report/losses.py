"""Losses by target, from what a search left: measured where it can be, else by the law."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bimix_tune.curves import LossCurve
from bimix_tune.loop.result import (
    CONFIRMATION,
    RECOMMENDATION,
    RunRecord,
    SearchResult,
    compare,
    search_records,
)
from bimix_tune.mixture import SAME_MIXTURE, Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

COMPLETE = "COMPLETE"


def table(curve: LossCurve, space: SearchSpace) -> Array:
    """Losses in the order of the space's targets, NaN where not measured, (S, V)."""
    at = {name: i for i, name in enumerate(curve.targets)}
    missing = np.full(len(curve.tokens), np.nan)
    columns = [curve.losses[:, at[t]] if t in at else missing for t in space.target_names]
    return np.stack(columns, axis=1)


def weighted(losses: Array, space: SearchSpace) -> Array:
    """The objective, the mean by target weights of (..., V); targets of no weight may be NaN."""
    used = space.weights > 0
    return np.asarray(losses[..., used] @ space.weights[used])


@dataclass(frozen=True, eq=False)
class TargetLosses:
    """Losses of mixtures by target.

    Args:
        source: Where they come from, in words.
        recommendation: Losses of the recommendation, (V,).
        others: Losses of the other mixtures by label, (V,).
        beyond: Whether a difference is beyond noise (its 95 % interval excludes zero), for the
            objective and each target against each other mixture, (1 + V, M); None if unknown.
    """

    source: str
    recommendation: Array
    others: Mapping[str, Array]
    beyond: NDArray[np.bool_] | None = None


def target_losses(result: SearchResult) -> TargetLosses | None:
    """The recommendation and its baselines: confirmed, else by the law, else as searched."""
    for losses in (_confirmed(result), _predicted(result), _searched(result)):
        if losses is not None and losses.others:
            return losses
    return None


def confirmation_runs(result: SearchResult) -> list[RunRecord]:
    """Complete runs of the confirmation, without those of an earlier recommendation.

    A search that is continued in its folder recommends anew; the old runs stay in the study.
    """
    runs = [r for r in result.records if r.role == CONFIRMATION and _complete(r)]
    return [r for r in runs if r.label != RECOMMENDATION or _is_of(r, result.recommendation)]


def _is_of(record: RunRecord, mixture: Mixture) -> bool:
    return record.mixture is not None and record.mixture.distance(mixture) <= SAME_MIXTURE


def _complete(record: RunRecord) -> bool:
    return record.state == COMPLETE and record.curve is not None


def _confirmed(result: SearchResult) -> TargetLosses | None:
    if result.confirmation is None:
        return None
    seeds = result.confirmation.seeds
    runs: dict[str, dict[int, Array]] = defaultdict(dict)
    for r in confirmation_runs(result):
        if r.seed in seeds and r.curve is not None:
            losses = table(r.curve, result.space)[-1]
            runs[r.label][r.seed] = np.concatenate([[weighted(losses, result.space)], losses])
    complete = {name: rows for name, rows in runs.items() if len(rows) == len(seeds)}
    if RECOMMENDATION not in complete:
        return None
    means = {n: np.stack(list(rows.values())).mean(axis=0)[1:] for n, rows in complete.items()}
    own = means.pop(RECOMMENDATION)
    ordered = [c.label for c in result.confirmation.comparisons if c.label in means]
    text = "Measured: final losses of the confirmation runs"
    text += f", mean of {len(seeds)} seeds." if len(seeds) > 1 else " of one seed."
    others = {name: means[name] for name in ordered}
    return TargetLosses(text, own, others, _beyond(complete, ordered) if len(seeds) > 1 else None)


def _beyond(runs: Mapping[str, Mapping[int, Array]], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Which differences to the recommendation have intervals without zero, (1 + V, M)."""
    rows = []
    for i in range(len(next(iter(runs[RECOMMENDATION].values())))):
        values = {n: {s: float(row[i]) for s, row in by.items()} for n, by in runs.items()}
        found = compare(values)
        intervals = {c.label: c.low > 0 or c.high < 0 for c in found.comparisons} if found else {}
        rows.append([intervals.get(name, False) for name in labels])
    return np.array(rows, dtype=bool).reshape(len(rows), len(labels))


def _predicted(result: SearchResult) -> TargetLosses | None:
    if result.fit is None or not result.baselines:
        return None
    mixtures = [result.recommendation, *result.baselines.values()]
    losses = result.fit.predict(mixtures, result.target_tokens)
    text = "Predicted by the law for every mixture, not measured: there are no confirmation runs."
    return TargetLosses(text, losses[0], dict(zip(result.baselines, losses[1:], strict=True)))


def _searched(result: SearchResult) -> TargetLosses | None:
    own = _final(result, result.recommendation)
    if own is None:
        return None
    found = {name: _final(result, mixture) for name, mixture in result.baselines.items()}
    others = {name: row for name, row in found.items() if row is not None}
    return TargetLosses("Measured: one run of each mixture during the search.", own, others)


def _final(result: SearchResult, mixture: Mixture) -> Array | None:
    """Final losses of the first complete run of a mixture in the search, (V,)."""
    for r in search_records(result.records):
        if r.curve is not None and _complete(r) and _is_of(r, mixture):
            return np.asarray(table(r.curve, result.space)[-1])
    return None
