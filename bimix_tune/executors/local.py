"""Trainings in this very process, one after the other.

The default for one machine with one device, for debugging and for tests: no other process, no
thread, so a breakpoint inside a trainer works. The price is that `LocalExecutor.events` is the
only place where a training goes on, and that a trainer which hangs cannot be interrupted.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Generator

from bimix_tune.errors import ExecutorError, one_line
from bimix_tune.executors.base import (
    Event,
    Failed,
    Finished,
    Job,
    Output,
    Progress,
    Started,
)
from bimix_tune.executors.captured import Captured
from bimix_tune.training.base import Checkpoint, Trainer

_log = logging.getLogger(__name__)


class LocalExecutor:
    """Runs jobs in this process, in order of submission; see `base.Executor`.

    Args:
        trainer: What every job runs.

    Raises:
        ExecutorError: The trainer wants several runs in a process.
    """

    def __init__(self, trainer: Trainer) -> None:
        if (members := getattr(trainer, "members", 1)) > 1:
            raise ExecutorError(
                f"the executor `local` trains one proxy at a time, but the trainer has {members=}: "
                "use the executor `ray`, or members: 1"
            )
        self._trainer = trainer
        self._waiting: deque[Job] = deque()
        self._current: tuple[int, Generator[Checkpoint, None, None]] | None = None
        self._pending: list[Event] = []
        self._printed = Captured()
        self._closed = False

    @property
    def slots(self) -> int:
        """Always one."""
        return 1

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            ExecutorError: The executor is closed.
        """
        if self._closed:
            raise ExecutorError(f"the executor is closed: it cannot take job {job.id}")
        self._waiting.append(job)

    def events(self, timeout: float) -> list[Event]:
        """Train on until something is worth telling, or for ``timeout`` seconds.

        Worth telling are the beginning of a job, a checkpoint with losses, and its end. Signs
        of life in between are reported along with them, the latest one only. The training takes
        at least one step, however short the timeout.
        """
        out, self._pending = self._pending, []
        until = time.monotonic() + timeout
        while not any(_matters(e) for e in out) and (self._current or self._waiting):
            with self._printed:
                event = self._advance()
            if out and not _matters(out[-1]):
                out.pop()
            if text := self._printed.take():
                out.append(Output(event.job_id, text))
            out.append(event)
            if time.monotonic() >= until:
                break
        return out

    def stop(self, job_id: int) -> None:
        """End a job now; `Finished` with ``stopped=True`` is among the next events."""
        if self._current and self._current[0] == job_id:
            self._end_current()
        elif any(job.id == job_id for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if job.id != job_id)
        else:
            return
        self._pending.append(Finished(job_id, stopped=True))

    def close(self) -> None:
        """End all jobs without events."""
        self._closed = True
        self._waiting.clear()
        self._pending.clear()
        self._end_current()

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _advance(self) -> Event:
        """Begin the next job, or take the current one to its next yield."""
        if self._current is None:
            job = self._waiting.popleft()
            self._current = job.id, _lazily(self._trainer, job)
            return Started(job.id, "local")
        job_id, training = self._current
        try:
            return Progress(job_id, next(training))
        except StopIteration:
            self._current = None
            return Finished(job_id)
        except Exception as error:  # noqa: BLE001 - a trainer may raise anything; the search goes on
            self._printed.keep(traceback.format_exc())
            self._current = None
            return Failed(job_id, one_line(error))

    def _end_current(self) -> None:
        """Close the generator of the current job, so that its clean-up runs."""
        current, self._current = self._current, None
        if current is not None:
            try:
                current[1].close()
            except Exception:  # noqa: BLE001 - the job is over either way
                _log.debug("a trainer failed while it was being stopped", exc_info=True)


def _lazily(trainer: Trainer, job: Job) -> Generator[Checkpoint, None, None]:
    """The training of a job; even the call of ``run`` waits for the first ``next``."""
    yield from trainer.run(job.mixture, job.seed)


def _matters(event: Event) -> bool:
    return not isinstance(event, Progress) or bool(event.checkpoint.losses)
