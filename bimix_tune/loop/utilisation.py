"""How busy the slots are and how fast they train, from when and where each run ran."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bimix_tune.loop.result import RunRecord

WINDOW_SECONDS = 600.0
"""How far back is looked: what was long ago says nothing about now."""


@dataclass(frozen=True)
class Utilisation:
    """What the slots did lately.

    Args:
        busy: Share of the time that each slot had a run, by slot. A slot counts from the first
            run that it had in the window.
        running: How many slots have a run.
        tokens_per_second: Training tokens of all slots together.
    """

    busy: Mapping[str, float]
    running: int
    tokens_per_second: float

    @property
    def mean(self) -> float:
        """Mean share over the slots; NaN without any."""
        return sum(self.busy.values()) / len(self.busy) if self.busy else math.nan


def utilisation(
    records: Iterable[RunRecord],
    now: float,
    tokens: Mapping[int, int] | None = None,
    window: float = WINDOW_SECONDS,
) -> Utilisation:
    """Utilisation of the slots in the time before a moment.

    A run is taken to train at a constant speed. A retried one counts from its last start.

    Args:
        records: Runs; those that never started do not matter.
        now: Seconds since 1970.
        tokens: What runs under way have seen, by number, where that is known better than from
            their last losses.
        window: How many seconds back.
    """
    first: dict[str, float] = {}
    busy: dict[str, float] = defaultdict(float)
    running: int = 0
    trained: float = 0.0
    for record in records:
        begin, end = record.started, _end(record, now)
        if math.isnan(begin) or end <= now - window or begin >= now:
            continue
        running += record.state == "RUNNING"
        since = max(begin, now - window)
        first[record.slot] = min(since, first.get(record.slot, now))
        busy[record.slot] += end - since
        trained += _tokens(record, tokens or {}) * (end - since) / (end - begin)
    shares = {slot: min(busy[slot] / (now - first[slot]), 1.0) for slot in sorted(first)}
    earliest = min(first.values(), default=now)
    return Utilisation(shares, running, trained / (now - earliest) if first else 0.0)


def _end(record: RunRecord, now: float) -> float:
    seconds = math.inf if math.isnan(record.seconds) else record.seconds
    return min(now, now if record.state == "RUNNING" else record.started + seconds)


def _tokens(record: RunRecord, live: Mapping[int, int]) -> int:
    seen = 0 if record.curve is None else int(record.curve.tokens[-1])
    return max(seen, live.get(record.number, 0))
