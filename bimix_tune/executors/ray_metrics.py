"""Prometheus metrics of a search, exported by Ray's own agents beside Ray's metrics."""

from __future__ import annotations

import math
import time
from collections import deque

from bimix_tune.executors.ray_cluster import ray
from bimix_tune.observing import (
    RunCheckpoint,
    RunEnded,
    RunRetried,
    RunStarted,
    SearchEvent,
    SlotsChanged,
)

WINDOW_SECONDS = 60.0
"""Tokens per second are a mean over this time."""


class RayMetrics:
    """Sets ``ray_bimix_*`` metrics; an `Observer`. Needs a connection to Ray.

    Args:
        search: Value of the tag ``search``, such as the name of the run folder.
    """

    name = "the Prometheus metrics"

    def __init__(self, search: str) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        tags = {"search": search}
        told = {"tag_keys": ("search",)}
        by_state = {"tag_keys": ("search", "state")}
        self._ended = Counter("bimix_runs_ended", "Runs that have ended", **by_state)
        self._retries = Counter("bimix_run_retries", "Runs that were tried again", **told)
        self._tokens = Counter("bimix_tokens", "Training tokens of all runs", **told)
        self._speed = Gauge("bimix_tokens_per_second", "Over the last minute", **told)
        self._busy = Gauge("bimix_slots_busy", "Slots with a run", **told)
        self._total = Gauge("bimix_slots", "Slots of the executor", **told)
        self._best = Gauge("bimix_best_objective", "Least objective of a run", **told)
        bounds = [1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0]
        self._seconds = Histogram(
            "bimix_run_seconds", "Wall time of runs", boundaries=bounds, **told
        )
        for metric in (self._ended, self._retries, self._tokens, self._speed, self._seconds):
            metric.set_default_tags(tags)
        for gauge in (self._busy, self._total, self._best):
            gauge.set_default_tags(tags)
        self._least = math.inf
        self._seen: dict[int, int] = {}  # tokens by run under way
        self._recent: deque[tuple[float, int]] = deque()

    def __call__(self, event: SearchEvent) -> None:
        """Count an event."""
        if isinstance(event, SlotsChanged):
            self._total.set(event.total)
        elif isinstance(event, RunStarted):
            self._seen[event.run] = 0
            self._busy.set(len(self._seen))
        elif isinstance(event, RunCheckpoint):
            self._count_tokens(event.run, event.tokens)
        elif isinstance(event, RunRetried):
            self._retries.inc()
            self._seen.pop(event.run, None)
            self._busy.set(len(self._seen))
        elif isinstance(event, RunEnded):
            self._end(event)

    def close(self) -> None:
        """No slot is busy any more."""
        self._busy.set(0)
        self._speed.set(0)

    def _end(self, event: RunEnded) -> None:
        self._count_tokens(event.run, event.tokens)
        self._seen.pop(event.run, None)
        self._busy.set(len(self._seen))
        self._ended.inc(tags={"state": event.state.lower()})
        self._seconds.observe(event.seconds)
        if event.state == "COMPLETE" and event.objective is not None:
            self._least = min(event.objective, self._least)
            self._best.set(self._least)

    def _count_tokens(self, run: int, tokens: int) -> None:
        """Count what a run has seen since it was last heard of."""
        more = tokens - self._seen.get(run, 0)
        if more > 0:
            self._seen[run] = tokens
            self._tokens.inc(more)
            self._recent.append((time.monotonic(), more))
        now = time.monotonic()
        while self._recent and now - self._recent[0][0] > WINDOW_SECONDS:
            self._recent.popleft()
        self._speed.set(sum(n for _, n in self._recent) / WINDOW_SECONDS)


def dashboard_url() -> str | None:
    """Address of the dashboard of the cluster that this process is connected to, or None."""
    from urllib.parse import urlsplit

    if not ray.is_initialized():
        return None
    url = ray._private.worker.get_dashboard_url()
    return None if not url else url if urlsplit(url).scheme else f"http://{url}"
