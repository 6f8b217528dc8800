"""The far side of `RayExecutor`: one process that runs trainings, one at a time or a few together.

A worker is a plain class that becomes a Ray actor in `ray_recipe.py`. Trainings run in threads
of their own, as many as the trainer wants at once, and leave messages; the driver fetches them by
`RayWorker.news`, whose answer, even an empty one, shows that the process is alive. Messages are
kept until the driver has confirmed them, so an answer that got lost on the way is given again.
Errors of the trainer travel as text, because not every exception unpickles.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bimix_tune.errors import BimixError, OutOfMemoryError, one_line
from bimix_tune.executors.base import Job
from bimix_tune.executors.captured import Captured
from bimix_tune.executors.ray_corpus import CorpusSource
from bimix_tune.training.base import Checkpoint, Trainer

SIGN_OF_LIFE_SECONDS = 1.0
"""Checkpoints without losses are forwarded at most this often."""


@dataclass(frozen=True)
class Up:
    """The worker is ready for jobs.

    Args:
        name: See `Started`.
        node: The id of its node.
        room: Trainings that it runs at once.
    """

    name: str
    node: str
    room: int = 1


@dataclass(frozen=True)
class Down:
    """The worker cannot get ready, and why."""

    cause: str


@dataclass(frozen=True)
class Began:
    """A training starts.

    Args:
        job_id: Which one.
        lane: Which of those at once it is, from 0.
    """

    job_id: int
    lane: int = 0


@dataclass(frozen=True)
class Point:
    """What a training yielded."""

    job_id: int
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Printed:
    """What a training printed and logged, and in the end the traceback of its error."""

    job_id: int
    text: str


@dataclass(frozen=True)
class Returned:
    """A job was given back before it began."""

    job_id: int


@dataclass(frozen=True)
class Ended:
    """The last message of a training.

    Args:
        job_id: Which one.
        stopped: It was asked to end early.
        cause: The error of the trainer in one line, or None if there was none.
        retry: Whether another try may help: not after an error the trainer itself explains,
            except for want of memory, which a neighbour on the device may have caused.
    """

    job_id: int
    stopped: bool = False
    cause: str | None = None
    retry: bool = False


Message = Up | Down | Began | Point | Printed | Returned | Ended


class RayWorker:
    """Runs trainings of one trainer.

    Args:
        trainer: What every job runs.
        corpus: Where the trainer's corpus comes from if this node does not have it.
    """

    def __init__(self, trainer: Trainer, corpus: CorpusSource | None = None) -> None:
        self._trainer, self._corpus = trainer, corpus
        self._jobs: deque[Job] = deque()
        self._running: set[int] = set()
        self._stopped: set[int] = set()
        self._draining = False
        self._messages: list[Message] = []
        self._confirmed = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    # Called by the driver

    def news(self, confirmed: int, timeout: float) -> list[Message]:
        """All messages to come; waits up to ``timeout`` seconds for the first one.

        Args:
            confirmed: How many messages the driver has had, which are forgotten here.
            timeout: Seconds.
        """
        with self._changed:
            del self._messages[: max(0, confirmed - self._confirmed)]
            self._confirmed = max(confirmed, self._confirmed)
            self._changed.wait_for(lambda: bool(self._messages), timeout)
            return list(self._messages)

    def add(self, job: Job) -> None:
        """Take a job, to be begun when those before it have ended."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    def give_back(self, job_id: int) -> None:
        """Return a job that has not begun."""
        with self._changed:
            for job in [job for job in self._jobs if job.id == job_id]:
                self._jobs.remove(job)
                self._tell(Returned(job_id))

    def stop(self, job_id: int) -> None:
        """Return a job that has not begun, or let it end after its next yield."""
        with self._changed:
            self.give_back(job_id)
            if job_id in self._running:
                self._stopped.add(job_id)

    def drain(self, seconds: float) -> None:
        """Let all current jobs end after their next yield, and wait for that."""
        with self._changed:
            self._jobs.clear()
            self._draining = True
            self._changed.wait_for(lambda: not self._running, seconds)

    # In the threads of the trainings

    def _work(self) -> None:
        try:
            if self._corpus is not None:
                self._trainer = self._corpus.bring_to(self._trainer)
            room = at_once(self._trainer)
            self._tell(replace(place(), room=room))
        except BaseException as error:  # noqa: BLE001 - the driver must hear of anything
            self._tell(Down(one_line(error)))
            return
        for lane in range(1, room):
            threading.Thread(target=self._train_all, args=(lane,), daemon=True).start()
        self._train_all(0)

    def _train_all(self, lane: int) -> None:
        end = None
        while True:
            job = self._next(end, lane)
            end = self._train(job)

    def _next(self, end: Ended | None, lane: int) -> Job:
        """Tell of the end of a job and take the next one; both are told at once if it is here."""
        with self._changed:
            if end is not None:
                self._running.discard(end.job_id)
                self._stopped.discard(end.job_id)
                self._tell(end)
            self._changed.wait_for(lambda: bool(self._jobs))
            job = self._jobs.popleft()
            self._running.add(job.id)
            self._tell(Began(job.id, lane))
            return job

    def _tell(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def _train(self, job: Job) -> Ended:
        with Captured() as printed:
            try:
                for checkpoint in self._checkpoints(job):
                    self._tell_printed(job, printed)
                    self._tell(Point(job.id, checkpoint))
                end = Ended(job.id, stopped=job.id in self._stopped)
            except BaseException as error:  # noqa: BLE001 - a trainer may raise anything
                printed.keep(traceback.format_exc())
                final = isinstance(error, BimixError) and not isinstance(error, OutOfMemoryError)
                end = Ended(job.id, False, one_line(error), retry=not final)
        self._tell_printed(job, printed)
        return end

    def _tell_printed(self, job: Job, printed: Captured) -> None:
        if text := printed.take():
            self._tell(Printed(job.id, text))

    def _checkpoints(self, job: Job) -> Iterator[Checkpoint]:
        """What the trainer yields, with signs of life thinned out, until a stop."""
        told = float("-inf")
        training = iter(self._trainer.run(job.mixture, job.seed))
        try:
            for checkpoint in training:
                now = time.monotonic()
                if checkpoint.losses or now - told >= SIGN_OF_LIFE_SECONDS:
                    told = now
                    yield checkpoint
                if self._draining or job.id in self._stopped:
                    return
        finally:
            close = getattr(training, "close", None)
            if close is not None:
                close()


def at_once(trainer: Trainer) -> int:
    """See `bimix_tune.training.base.SharesProcess`; one for a trainer that says nothing."""
    wanted = getattr(trainer, "at_once", None)
    return 1 if wanted is None else int(wanted())


def place() -> Up:
    """Where this process runs."""
    import ray

    gpus = ",".join(map(str, ray.get_gpu_ids()))
    parts = [socket.gethostname(), f"gpu{gpus}" if gpus else "", str(os.getpid())]
    return Up("/".join(filter(None, parts)), ray.get_runtime_context().get_node_id())
