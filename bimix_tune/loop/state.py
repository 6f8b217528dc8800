"""A moment of a running search, for those who watch it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bimix_tune.laws import LawFit
from bimix_tune.loop.driver import Running
from bimix_tune.loop.outcome import best_of
from bimix_tune.loop.result import RunRecord
from bimix_tune.mixture import Mixture


@dataclass(frozen=True)
class SearchState:
    """A moment of a running search, for a display.

    Args:
        phase: ``"search"`` or ``"confirmation"``.
        done: Runs of the phase that have ended.
        total: Runs of the phase.
        slots: Runs that the executor can take at once.
        running: Runs under way.
        records: All runs so far.
        law: The law fitted to all finished runs, if there is one.
        optimum: Its optimum with the predicted (mean, sd) of the objective.
        tokens: Training tokens of a complete run.
        silent: Seconds since the last sign of life of a driver, where no driver seems to live and
            the search has not ended; None otherwise.
    """

    phase: str
    done: int
    total: int
    slots: int
    running: tuple[Running, ...]
    records: tuple[RunRecord, ...]
    law: LawFit | None
    optimum: tuple[Mixture, float, float] | None
    tokens: int
    silent: float | None = None

    @property
    def best(self) -> RunRecord | None:
        """The complete run of the search with the least objective."""
        return best_of(self.records)

    @property
    def eta(self) -> float:
        """Seconds until the phase ends, from the mean time of complete runs; NaN without any."""
        times = [r.seconds for r in self.records if r.state == "COMPLETE" and r.seconds > 0]
        if not times:
            return math.nan
        curves = [r.curve for r in self.records if r.state == "RUNNING" and r.curve is not None]
        left = self.total - self.done - sum(c.tokens[-1] / self.tokens for c in curves)
        return max(float(left), 0.0) * sum(times) / len(times) / max(self.slots, 1)
