"""Trainings on a Ray cluster: one long-lived worker process per slot.

Actors, not tasks: Ray starts a new process for every GPU task, so each run would pay again
for imports, the CUDA context and compilation. Faults are handled here rather than by Ray,
whose own retries never notice a training that hangs or a node that is cut off from the
network: a worker that dies, runs past its deadline or falls silent is killed and replaced,
and its job is queued again.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from bimix_tune.errors import ExecutorError
from bimix_tune.executors.base import Event, Failed, Finished, Job, Progress, Started
from bimix_tune.executors.ray_cluster import WorkerRecipe, connect, ray
from bimix_tune.executors.ray_worker import Ended, Message
from bimix_tune.training.base import Checkpoint, Trainer

_log = logging.getLogger(__name__)

FETCH_SECONDS = 30.0  # for one message that Ray has announced
SETTLE_SECONDS = 5.0  # for the other workers to be placed once the first one is
GRACE_SECONDS = 2.0  # for running trainings to clean up on close
_CONTROL = {"concurrency_group": "control"}  # served while a training runs
STARTS = 3  # failed starts in a row after which a slot is given up


@dataclass(eq=False)
class _Slot:
    """One worker and what it does."""

    actor: Any
    ready: Any  # a reference until the worker has answered, then None
    name: str = ""
    job: Job | None = None
    stream: Any = None
    started: float = 0.0
    heard: float = 0.0
    stopping: bool = False
    failures: int = 0  # to start, in a row

    @property
    def source(self) -> Any:
        """Where its next message comes from, or None while it is idle."""
        return self.stream if self.ready is None else self.ready

    def release(self) -> None:
        """Forget the job."""
        self.job, self.stream, self.stopping = None, None, False


class RayExecutor:
    """Runs jobs on a Ray cluster; see `base.Executor`.

    Args:
        trainer: What every job runs; sent to each worker once.
        slots: Number of workers; None takes as many as the cluster has room for. Workers that
            find no room yet are added when they do.
        address: ``host:port`` of a running cluster or ``"auto"``; None starts one in this
            process unless ``RAY_ADDRESS`` is set or Ray already runs here.
        gpus_per_slot: May be a fraction. None means one GPU if the cluster has any, else none.
        cpus_per_slot: CPU cores reserved; None means one, or none for a slot with a GPU.
        deadline: Seconds that one run may take, or None for no limit.
        retries: How often a job is tried again after a fault. An error that the trainer itself
            explains (a `BimixError` such as divergence) is final.
        heartbeat: Seconds without a yield of the trainer after which it counts as hung; must
            cover its start-up (imports, compilation).
        start_timeout: Seconds to wait for a first worker.

    Raises:
        ExecutorError: An argument is out of range, Ray cannot start or be reached, the trainer
            cannot be sent, or no worker comes up.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        slots: int | None = None,
        address: str | None = None,
        gpus_per_slot: float | None = None,
        cpus_per_slot: float | None = None,
        deadline: float | None = None,
        retries: int = 1,
        heartbeat: float = 300.0,
        start_timeout: float = 120.0,
    ) -> None:
        for name, value, least in (("slots", slots, 1), ("retries", retries, 0)):
            if value is not None and value < least:
                raise ExecutorError(f"{name} must be at least {least}, but got {value!r}")
        times = {"deadline": deadline, "heartbeat": heartbeat, "start_timeout": start_timeout}
        for name, seconds in times.items():
            if seconds is not None and not seconds > 0:
                raise ExecutorError(f"{name} must be more than 0 seconds, but got {seconds!r}")
        self._deadline, self._retries, self._heartbeat = deadline, retries, heartbeat
        self._start_timeout = start_timeout
        self._waiting: deque[Job] = deque()
        self._faults: Counter[int] = Counter()
        self._out: list[Event] = []
        self._slots: list[_Slot] = []
        self._closed = False
        self._last_up = time.monotonic()
        self._connection = connect(address)
        try:
            self._recipe = WorkerRecipe.of(trainer, cpus_per_slot, gpus_per_slot)
            for _ in range(slots or self._recipe.places()):
                self._slots.append(_Slot(*self._recipe.start()))
            if not self._slots:
                raise ExecutorError(f"the Ray cluster has no room: {self._recipe}")
            self._await_workers()
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """Workers that are up, at least one."""
        return max(1, sum(slot.ready is None for slot in self._slots))

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            ExecutorError: The executor is closed.
        """
        if self._closed:
            raise ExecutorError(f"the executor is closed: it cannot take job {job.id}")
        self._waiting.append(job)

    def events(self, timeout: float) -> list[Event]:
        """Events since the last call; waits up to ``timeout`` seconds for the first one.

        Raises:
            ExecutorError: No worker is left, or none has been up for ``start_timeout``.
        """
        until = time.monotonic() + timeout
        while not self._closed:
            self._assign()
            left = until - time.monotonic()
            busy = self._waiting or any(slot.job for slot in self._slots)
            if not self._out and busy:
                self._poll(min(max(left, 0.0), 1.0))
                self._check_clocks()
            if self._out or not busy or left <= 0:
                break
        out, self._out = self._out, []
        return out

    def stop(self, job_id: int) -> None:
        """Ask a job to end after its next yield; `Finished` with ``stopped=True`` follows."""
        for slot in self._slots:
            if slot.job is not None and slot.job.id == job_id:
                slot.stopping = True
                slot.actor.stop.options(**_CONTROL).remote(job_id)
        if any(job.id == job_id for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if job.id != job_id)
            self._out.append(Finished(job_id, stopped=True))

    def close(self) -> None:
        """End everything: trainings get two seconds to clean up, then workers are killed."""
        if self._closed:
            return
        self._closed = True
        self._waiting.clear()
        try:
            self._wind_down()
        finally:
            self._out.clear()
            for slot in self._slots:
                _kill(slot)
            self._slots.clear()
            self._connection.close()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Workers

    def _await_workers(self) -> None:
        """Wait for the first worker, then a little for the others."""
        until = time.monotonic() + self._start_timeout
        up = 0
        while up < len(self._slots) and time.monotonic() < until:
            self._poll(0.2)
            before, up = up, sum(slot.ready is None for slot in self._slots)
            if up and not before:
                until = min(until, time.monotonic() + SETTLE_SECONDS)
        self._last_up = time.monotonic()
        if not up:
            raise ExecutorError(self._no_worker())

    def _no_worker(self) -> str:
        return (
            f"no Ray worker came up within {self._start_timeout:g} s ({self._recipe}); "
            "ask for less, wait for room, or use `executor: local`"
        )

    def _replace(self, slot: _Slot) -> None:
        """Kill a worker and start another in its place."""
        _kill(slot)
        slot.release()
        self._last_up = time.monotonic()
        slot.actor, slot.ready = self._recipe.start()

    def _greet(self, slot: _Slot) -> None:
        """Take the answer of a worker that has come up, or failed to."""
        try:
            slot.name = ray.get(slot.ready, timeout=FETCH_SECONDS)
        except Exception as error:
            _log.debug("a worker failed to start", exc_info=True)
            slot.failures += 1
            if slot.failures < STARTS:
                self._replace(slot)
                return
            self._slots.remove(slot)
            if not self._slots:
                raise ExecutorError(
                    f"the Ray workers cannot start ({_essence(error)}); bimix-tune and what "
                    "the trainer needs must be installed on every node"
                ) from error
        else:
            _log.debug("worker up on %s", slot.name)
            slot.ready, slot.failures = None, 0

    # Jobs

    def _assign(self) -> None:
        """Give waiting jobs to idle workers."""
        for slot in self._slots:
            if self._waiting and slot.ready is None and slot.job is None:
                job = self._waiting.popleft()
                slot.job, slot.started, slot.heard = job, time.monotonic(), time.monotonic()
                run = slot.actor.run.options(num_returns="streaming")
                slot.stream = run.remote(job.id, job.mixture, job.seed)
                self._out.append(Started(job.id, slot.name))

    def _poll(self, timeout: float) -> None:
        """Wait for news of any worker and take one message from each that has some."""
        sources = {slot.source: slot for slot in self._slots if slot.source is not None}
        if not sources:
            time.sleep(timeout)
            return
        refs = list(sources)
        if ray.wait(refs, timeout=timeout)[0]:
            for ref in ray.wait(refs, num_returns=len(refs), timeout=0)[0]:
                slot = sources[ref]
                if slot.ready is not None:
                    self._greet(slot)
                else:
                    self._take(slot)

    def _take(self, slot: _Slot) -> None:
        """Turn one message of a worker into an event."""
        assert slot.job is not None
        try:
            message: Message = ray.get(next(slot.stream), timeout=FETCH_SECONDS)
        except StopIteration:
            self._fault(slot, "the worker went away without a word")
            return
        except ray.exceptions.RayError as error:
            _log.debug("job %s lost its worker", slot.job.id, exc_info=True)
            self._fault(slot, _essence(error))
            return
        slot.heard = time.monotonic()
        if isinstance(message, Checkpoint):
            self._out.append(Progress(slot.job.id, message))
        elif isinstance(message, Ended):
            self._end(slot, slot.job, message)

    def _end(self, slot: _Slot, job: Job, message: Ended) -> None:
        """A training came to an end by itself."""
        if message.cause is not None:
            _log.debug("job %s failed\n%s", job.id, message.trace)
            if message.retry:  # in a fresh process: a CUDA error, say, poisons this one
                self._fault(slot, message.cause)
                return
            self._out.append(Failed(job.id, message.cause))
        else:
            self._out.append(Finished(job.id, stopped=message.stopped))
        slot.release()

    def _fault(self, slot: _Slot, cause: str) -> None:
        """A job broke off: queue it again, or report it, and replace the worker."""
        job, stopping = slot.job, slot.stopping
        assert job is not None
        self._faults[job.id] += 1
        if stopping:
            self._out.append(Finished(job.id, stopped=True))
        elif self._faults[job.id] <= self._retries:
            _log.warning("job %s will be tried again: %s", job.id, cause)
            self._waiting.appendleft(job)
        else:
            tries = f" (tried {self._faults[job.id]} times)" if self._retries else ""
            self._out.append(Failed(job.id, cause + tries))
        self._replace(slot)

    def _check_clocks(self) -> None:
        """Act on runs that take too long, silent workers, and a cluster without room."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.job is None:
                continue
            if now - slot.heard > self._heartbeat:
                self._fault(slot, f"no sign of life for {self._heartbeat:g} s")
            elif self._late(slot, now):
                self._fault(slot, f"the run exceeded its deadline of {self._deadline:g} s")
        if any(slot.ready is None for slot in self._slots):
            self._last_up = now
        elif now - self._last_up > self._start_timeout:
            raise ExecutorError(self._no_worker())

    def _late(self, slot: _Slot, now: float) -> bool:
        """Past the deadline, and not just because nobody has read its messages yet."""
        if self._deadline is None or now - slot.started <= self._deadline:
            return False
        return not ray.wait([slot.stream], timeout=0)[0]

    def _wind_down(self) -> None:
        """Ask running trainings to end, so that their clean-up (child processes) runs."""
        if not ray.is_initialized():  # shut down by somebody else; a call would start it anew
            self._slots.clear()
        busy = [slot for slot in self._slots if slot.job is not None]
        done = [slot.actor.drain.options(**_CONTROL).remote(GRACE_SECONDS) for slot in busy]
        if done:
            ray.wait(done, num_returns=len(done), timeout=GRACE_SECONDS)


def _kill(slot: _Slot) -> None:
    with contextlib.suppress(Exception):  # it may be dead, or its node gone
        ray.kill(slot.actor, no_restart=True)


def _essence(error: BaseException) -> str:
    """Ray's messages go on for a page; the last line that names an error says what happened."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b: ", line)]
    return f"{type(error).__name__}: {(named[-1:] or lines)[0]}"
