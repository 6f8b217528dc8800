"""How many trainings to hand over before a slot is free for them.

A slot that waits for the sampler is idle; a proposal made ahead has not seen the newest results.
With n slots, runs of t seconds and asks of a seconds, ``n a / t`` slots come free while one
proposal is thought out, so that

    ahead = ceil(n a / t)   where a slot would else wait for longer than is worth a proposal,

and 0 elsewhere. Among many slots a proposal misses the runs of all others anyway, and one more
matters little: no slot is to wait for more than 50 ms, nor for more than 1 % of a run. A lone slot
knows every result before it goes on, which is worth waiting for: up to 10 % of a run. In haste
(`Pace.overrun`) proposals rest on a law of some time ago anyway: each slot has its next job ready.
"""

from __future__ import annotations

import math
from collections import deque

WAIT_SECONDS = 0.05
WAIT_SHARE, LONE_SHARE = 0.01, 0.1
"""How much of a run a slot may wait: one of several, and a lone one."""
RECENT = 32
"""Asks and runs that are remembered: one ask in so many may fit a law anew."""
MOST_AHEAD = 8
"""Jobs ahead for each slot at most: where asks are slower than slots, more do not help."""

BUSY_SHARE = 0.5
"""How much of its time a driver may spend on proposals; it has events to handle, too."""


class Pace:
    """Measures asks and runs, and says how many jobs to prepare ahead."""

    def __init__(self) -> None:
        self._asks: deque[float] = deque(maxlen=RECENT)
        self._runs: deque[float] = deque(maxlen=RECENT)
        self._careful: deque[float] = deque(maxlen=RECENT)

    def asked(self, seconds: float, careful: bool) -> None:
        """Note how long an ask took.

        Args:
            seconds: Of the ask.
            careful: Whether a law was behind the proposal, and no haste.
        """
        self._asks.append(seconds)
        if careful:
            self._careful.append(seconds)

    def ran(self, seconds: float) -> None:
        """Note how long a run took."""
        self._runs.append(seconds)

    def ahead(self, slots: int) -> int:
        """How many jobs beyond those that run should be handed over, for ``slots`` slots."""
        if not self._asks or not self._runs:
            return 0
        ask, run = max(self._asks), _mean(self._runs)
        least = slots if self.overrun(slots) else 0
        worth = LONE_SHARE * run if slots == 1 else min(WAIT_SECONDS, WAIT_SHARE * run)
        if ask <= worth:
            return least
        return min(max(least, math.ceil(slots * ask / run)), MOST_AHEAD * slots)

    def overrun(self, slots: int) -> bool:
        """Whether careful proposals would keep the driver too busy to serve so many slots."""
        if not self._careful or not self._runs:
            return False
        return slots * _mean(self._careful) > BUSY_SHARE * _mean(self._runs)


def _mean(seconds: deque[float]) -> float:
    return max(sum(seconds) / len(seconds), 1e-6)
