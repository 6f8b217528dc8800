"""Slots that only keep time: an executor for measuring the driver, and nothing but the driver.

Each slot begins the next job that waits the moment its last one has ended, whether the driver
looks or not; so a slot is idle exactly while no job waits for it.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest import mock

from bimix_tune.errors import one_line
from bimix_tune.executors.base import Event, Failed, Finished, Job, Progress, Started
from bimix_tune.training.base import Checkpoint, Trainer

MOMENT = 0.001
WORK = 1e-4
"""A process that works less than so long in a moment waits."""


class DriverTime:
    """A clock that goes on while this process works, and jumps where it would only wait.

    On a busy machine the seconds that others take do not count: times are those of a machine with
    one core for the driver and all its threads. Waits for a disk do not count either.
    """

    def __init__(self) -> None:
        self._skipped = 0.0
        self._really_sleep = time.sleep

    def __call__(self) -> float:
        return time.process_time() + self._skipped

    def sleep(self, seconds: float) -> None:
        """Wait, in the time of this clock: other threads may work, then the rest is skipped."""
        until, worked = self() + seconds, True
        while worked and self() < until:
            before = self()
            self._really_sleep(MOMENT)
            worked = self() - before > WORK
        self._skipped += max(until - self(), 0.0)

    @contextlib.contextmanager
    def everywhere(self) -> Iterator[None]:
        """Let all Python code of this process live in this time."""
        with (
            mock.patch.object(time, "monotonic", self),
            mock.patch.object(time, "sleep", self.sleep),
        ):
            yield


@dataclass
class _Busy:
    """What a slot does."""

    job: Job
    training: Iterator[Checkpoint]
    next: Checkpoint | None = None  # to be told at the next moment of the slot


@dataclass
class Use:
    """How a slot was used.

    Args:
        busy: Seconds with a job.
        waits: Seconds without one, before each job but its first.
        since: When its last job ended; None before.
    """

    busy: float = 0.0
    waits: list[float] = field(default_factory=list)
    since: float | None = None


class SimulatedExecutor:
    """Runs trainings that cost no time as if each took ``seconds``; see `Executor`.

    Args:
        trainer: What every job runs; it must not take time itself.
        slots: How many jobs at once.
        seconds: Of a complete run; a checkpoint comes after its share of the tokens.
    """

    def __init__(self, trainer: Trainer, slots: int, seconds: float) -> None:
        self._trainer, self._slots, self._seconds = trainer, slots, seconds
        self._waiting: deque[Job] = deque()
        self._busy: dict[int, _Busy] = {}
        self._free = list(range(slots))
        self._moments: list[tuple[float, int]] = []  # (time, slot)
        self._out: list[Event] = []
        self._stopped: set[int] = set()
        self.use = [Use() for _ in range(slots)]
        self.first, self.last = float("inf"), -float("inf")  # start of a run, end of a run

    @property
    def slots(self) -> int:
        return self._slots

    def submit(self, job: Job) -> None:
        self._advance(time.monotonic())
        self._waiting.append(job)
        self._assign(time.monotonic())

    def events(self, timeout: float) -> list[Event]:
        until = time.monotonic() + timeout
        self._advance(time.monotonic())
        while not self._out and self._moments and time.monotonic() < until:
            time.sleep(max(0.0, min(self._moments[0][0], until) - time.monotonic()))
            self._advance(time.monotonic())
        out, self._out = self._out, []
        return out

    def stop(self, job_id: int) -> None:
        if any(busy.job.id == job_id for busy in self._busy.values()):
            self._stopped.add(job_id)
        elif any(job.id == job_id for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if job.id != job_id)
            self._out.append(Finished(job_id, stopped=True))

    def close(self) -> None:
        self._waiting.clear()
        self._busy.clear()
        self._moments.clear()
        self._out.clear()

    def __enter__(self) -> SimulatedExecutor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _assign(self, now: float) -> None:
        while self._waiting and self._free:
            slot, job = self._free.pop(0), self._waiting.popleft()
            use = self.use[slot]
            if use.since is not None:
                use.waits.append(now - use.since)
            use.since = now
            self.first = min(self.first, now)
            self._busy[slot] = _Busy(job, iter(self._trainer.run(job.mixture, job.seed)))
            self._out.append(Started(job.id, f"simulated/{slot}"))
            self._prepare(slot, now, 0)

    def _prepare(self, slot: int, now: float, tokens: int) -> None:
        """Take the training to its next checkpoint, which is told when its time has come."""
        busy = self._busy[slot]
        try:
            busy.next = next(busy.training)
        except StopIteration:
            self._end(slot, now, Finished(busy.job.id))
        except Exception as error:  # noqa: BLE001 - a trainer may raise anything
            self._end(slot, now, Failed(busy.job.id, one_line(error)))
        else:
            share = (busy.next.tokens - tokens) / self._trainer.tokens
            heapq.heappush(self._moments, (now + share * self._seconds, slot))

    def _advance(self, now: float) -> None:
        """Let everything happen that should have happened by now, in order."""
        while self._moments and self._moments[0][0] <= now:
            moment, slot = heapq.heappop(self._moments)
            busy = self._busy[slot]
            assert busy.next is not None
            self._out.append(Progress(busy.job.id, busy.next))
            if busy.job.id in self._stopped and busy.next.tokens < self._trainer.tokens:
                self._end(slot, moment, Finished(busy.job.id, stopped=True))
            else:
                self._prepare(slot, moment, busy.next.tokens)

    def _end(self, slot: int, now: float, event: Event) -> None:
        busy, use = self._busy.pop(slot), self.use[slot]
        self._stopped.discard(busy.job.id)
        assert use.since is not None
        use.busy += now - use.since
        use.since = now
        self.last = max(self.last, now)
        self._out.append(event)
        self._free.append(slot)
        self._assign(now)
