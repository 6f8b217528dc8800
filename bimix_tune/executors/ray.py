"""Trainings on a Ray cluster in long-lived worker processes.

Actors, not tasks: Ray starts a new process for every GPU task, so each run would pay again
for imports, the CUDA context and compilation. Faults are handled here rather than by Ray,
whose own retries never notice a training that hangs or a node that is cut off from the
network: a worker that dies, cannot be reached or trains for too long is killed and replaced,
and its job is queued again, for another node if there is one.
"""

from __future__ import annotations

import time

from bimix_tune.errors import ExecutorError
from bimix_tune.executors.base import (
    Event,
    Failed,
    Finished,
    Job,
    Output,
    Progress,
    Retried,
    Started,
)
from bimix_tune.executors.ray_cluster import connect, ray
from bimix_tune.executors.ray_fleet import Clock, Fleet, Slot, essence
from bimix_tune.executors.ray_queue import JobQueue
from bimix_tune.executors.ray_recipe import WorkerRecipe
from bimix_tune.executors.ray_worker import Began, Ended, Message, Point, Printed, Returned
from bimix_tune.training.base import Trainer

SETTLE_SECONDS = 5.0  # for the other workers to be up once the first one is placed
GRACE_SECONDS = 2.0  # for running trainings to clean up on close
CHECK_SECONDS = 1.0  # between two looks at the clocks


class RayExecutor:
    """Runs jobs on a Ray cluster; see `base.Executor`.

    A worker has the next job at hand while it trains, so that it does not wait for the driver. It
    trains one job at a time, or as many as the trainer wants to share a process
    (`bimix_tune.training.base.SharesProcess`): then each of these counts as a slot.
    A job that breaks off is tried again on another node if any has a worker, however far the
    trainer can take it up again.

    Args:
        trainer: What every job runs. One that reads a corpus gets it on every node, see
            `bimix_tune.training.base.ReadsCorpus`.
        slots: Number of workers; None takes as many as the cluster has room for, at any time.
            Workers that find no room yet are added when they do, and show an autoscaler what
            is wanted.
        address: ``host:port`` of a running cluster or ``"auto"``; None starts one in this
            process unless ``RAY_ADDRESS`` is set or Ray already runs here.
        gpus_per_slot: May be a fraction. None means one GPU if the cluster has any, else none.
        gpu_type: Type of GPU that slots must have, as Ray calls it ("H100"; `ray status` lists
            it as ``accelerator_type:H100``); None takes any, also different ones.
        cpus_per_slot: CPU cores reserved; None means one, or none for a slot with a GPU.
        spread: Whether a slot may lie on several nodes: each of the trainer's ``processes`` is
            then placed by itself, with its equal part of ``gpus_per_slot`` and
            ``cpus_per_slot``, or one GPU or core. Nodes are not shared more than needed.
        deadline: Seconds that one run may take, or None for no limit.
        retries: How often a job is tried again after a fault. An error that the trainer itself
            explains (a `BimixError` such as divergence) is final, except for want of memory;
            the loss of a whole node does not count.
        heartbeat: Seconds for which the process of a worker may fail to answer before it
            counts as lost. It answers while a training runs, however long that takes.
        progress_timeout: Seconds without a yield of the trainer after which it counts as hung;
            must cover its start-up (imports, compilation).
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
        gpu_type: str | None = None,
        cpus_per_slot: float | None = None,
        spread: bool = False,
        deadline: float | None = None,
        retries: int = 2,
        heartbeat: float = 60.0,
        progress_timeout: float = 300.0,
        start_timeout: float = 120.0,
    ) -> None:
        for name, value, least in (("slots", slots, 1), ("retries", retries, 0)):
            if value is not None and value < least:
                raise ExecutorError(f"{name} must be at least {least}, but got {value!r}")
        times = {
            "deadline": deadline,
            "heartbeat": heartbeat,
            "progress_timeout": progress_timeout,
            "start_timeout": start_timeout,
        }
        for name, seconds in times.items():
            if seconds is not None and not seconds > 0:
                raise ExecutorError(f"{name} must be more than 0 seconds, but got {seconds!r}")
        self._deadline, self._heartbeat = deadline, heartbeat
        self._progress_timeout, self._start_timeout = progress_timeout, start_timeout
        self._queue = JobQueue(retries)
        self._out: list[Event] = []
        self._closed = False
        self._fleet: Fleet | None = None
        self._last_reached = self._checked = time.monotonic()
        self._connection = connect(address)
        try:
            self._recipe = WorkerRecipe.of(trainer, cpus_per_slot, gpus_per_slot, gpu_type, spread)
            self._fleet = Fleet(self._recipe, slots, heartbeat)
            if not self._fleet.slots:
                raise ExecutorError(f"the Ray cluster has no room: {self._recipe}")
            self._await_workers(self._fleet)
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """Jobs that workers can have under way, at least one."""
        return max(1, sum(slot.room for slot in self._fleet.ready) if self._fleet else 0)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            ExecutorError: The executor is closed.
        """
        if self._closed:
            raise ExecutorError(f"the executor is closed: it cannot take job {job.id}")
        self._queue.add(job)

    def events(self, timeout: float) -> list[Event]:
        """Events since the last call; waits up to ``timeout`` seconds for the first one.

        Raises:
            ExecutorError: No worker is left, or none has been reached for ``start_timeout``.
        """
        until = time.monotonic() + timeout
        while self._fleet is not None:
            self._assign(self._fleet)
            left = until - time.monotonic()
            busy = self._queue or any(slot.jobs for slot in self._fleet.slots)
            if not self._out and busy:
                self._listen(self._fleet, min(max(left, 0.0), CHECK_SECONDS))
            if self._out or not busy or left <= 0:
                break
        out, self._out = self._out, []
        return out

    def stop(self, job_id: int) -> None:
        """Ask a job to end after its next yield; `Finished` with ``stopped=True`` follows."""
        for slot in self._fleet.slots if self._fleet else ():
            if any(job.id == job_id for job in slot.jobs):
                slot.stopping.add(job_id)
                slot.order("stop", job_id)
        if self._queue.remove(job_id):
            self._end(Finished(job_id, stopped=True))

    def close(self) -> None:
        """End everything: trainings get two seconds to clean up, then workers are killed."""
        if self._closed:
            return
        self._closed = True
        self._queue.clear()
        fleet, self._fleet = self._fleet, None
        try:
            if fleet is not None and ray.is_initialized():  # a call would start it anew
                _wind_down(fleet)
        finally:
            self._out.clear()
            if fleet is not None and ray.is_initialized():
                fleet.close()
            self._connection.close()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _await_workers(self, fleet: Fleet) -> None:
        """Wait for the first worker, then a little for the others."""
        until = time.monotonic() + self._start_timeout
        reached = False
        while len(fleet.ready) < len(fleet.slots) and time.monotonic() < until:
            for _ in fleet.poll(0.2):
                pass
            if fleet.reached and not reached:
                until = min(until, time.monotonic() + SETTLE_SECONDS)
                reached = True
        self._last_reached = time.monotonic()
        if not reached:
            raise ExecutorError(self._no_worker())

    def _no_worker(self) -> str:
        return (
            f"no Ray worker came up within {self._start_timeout:g} s ({self._recipe}); "
            "ask for less, wait for room, or use `executor: local`"
        )

    # Jobs

    def _assign(self, fleet: Fleet) -> None:
        """Give waiting jobs to idle workers, then one ahead to each of the others."""
        ready = fleet.ready
        nodes = {slot.node for slot in ready}
        for depth in range(1 + max((slot.room for slot in ready), default=0)):
            for slot in ready:
                free = len(slot.jobs) == depth <= slot.room
                if free and (job := self._queue.take(slot.node, nodes)):
                    slot.jobs.append(job)
                    slot.begin()
                    slot.order("add", job)
        self._recall(fleet, ready, nodes)

    def _recall(self, fleet: Fleet, ready: list[Slot], nodes: set[str]) -> None:
        """Ask jobs back that wait behind another while a worker is idle, or where none stays."""
        idle = {slot.node for slot in ready if len(slot.jobs) < slot.room}
        for slot in fleet.slots:
            if len(slot.jobs) > slot.room and slot.recalled is None:
                job = slot.jobs[-1]
                elsewhere = any(self._queue.suits(job, node, nodes) for node in idle)
                if elsewhere or slot.node not in nodes:
                    slot.recalled = job.id
                    slot.order("give_back", job.id)

    def _listen(self, fleet: Fleet, timeout: float) -> None:
        """Take news of the workers, and look at the clocks now and then."""
        for slot, news in fleet.poll(timeout):
            if isinstance(news, Exception):
                self._fault(fleet, slot, essence(news))
            else:
                self._take(fleet, slot, news)
        now = time.monotonic()
        if now - self._checked >= min(CHECK_SECONDS, self._heartbeat / 4):
            self._checked = now
            self._check_clocks(fleet, now)
            fleet.adjust()

    def _take(self, fleet: Fleet, slot: Slot, message: Message) -> None:
        """Turn a message of a worker into an event."""
        if isinstance(message, Began):
            slot.clocks.pop(message.job_id, None)
            slot.begin()
            slot.recalled = None
            self._out.append(Started(message.job_id, slot.lane(message.lane)))
        elif isinstance(message, Point):
            slot.clocks[message.job_id].progressed = time.monotonic()
            self._out.append(Progress(message.job_id, message.checkpoint))
        elif isinstance(message, Printed):
            self._out.append(Output(message.job_id, message.text))
        elif isinstance(message, Returned):
            slot.recalled = None
            job = next(job for job in slot.jobs if job.id == message.job_id)
            slot.jobs.remove(job)
            self._again(slot, job)
        elif isinstance(message, Ended):
            self._ended(fleet, slot, message)

    def _ended(self, fleet: Fleet, slot: Slot, message: Ended) -> None:
        """A training came to an end by itself."""
        if message.cause is not None and message.retry:
            # A CUDA error, say, poisons this process.
            self._fault(fleet, slot, message.cause, message.job_id)
            return
        slot.jobs.remove(next(job for job in slot.jobs if job.id == message.job_id))
        slot.stopping.discard(message.job_id)
        slot.begin()  # the job that follows
        if message.cause is not None:
            self._end(Failed(message.job_id, message.cause))
        else:
            self._end(Finished(message.job_id, stopped=message.stopped))

    def _fault(self, fleet: Fleet, slot: Slot, cause: str, guilty: int | None = None) -> None:
        """A worker is lost: replace it, and try its jobs again, or report those under way.

        Args:
            fleet: All workers.
            slot: The worker.
            cause: What happened.
            guilty: The job that it happened to, if that is known: it does not count against the
                others, which are merely lost with it.
        """
        fleet.look()
        under_way = slot.under_way
        for job in reversed(list(slot.jobs)):
            if job not in under_way:
                self._again(slot, job)
            elif guilty in (None, job.id):
                self._broke_off(fleet, slot, job, cause)
            else:
                if job.id not in slot.stopping:
                    self._out.append(Retried(job.id, f"a run on the same worker: {cause}"))
                self._again(slot, job)
        fleet.replace(slot)

    def _broke_off(self, fleet: Fleet, slot: Slot, job: Job, cause: str) -> None:
        lost = fleet.is_leaving(slot.node)
        if lost:
            cause = f"the node of {slot.name} left the cluster; {cause}"
        again = self._queue.broke_off(job.id, slot.node, lost)
        if job.id in slot.stopping:
            self._again(slot, job)
        elif again:
            self._out.append(Retried(job.id, cause))
            self._again(slot, job)
        else:
            tries = self._queue.tries(job.id)
            self._end(Failed(job.id, cause + (f" (tried {tries} times)" if tries > 1 else "")))

    def _again(self, slot: Slot, job: Job) -> None:
        """Queue a job that a worker did not end, before all others, unless it is unwanted."""
        if job.id in slot.stopping:
            self._end(Finished(job.id, stopped=True))
        else:
            self._queue.add_first(job)

    def _end(self, event: Finished | Failed) -> None:
        """Report the end of a job, and forget what happened to it."""
        self._queue.forget(event.job_id)
        self._out.append(event)

    def _check_clocks(self, fleet: Fleet, now: float) -> None:
        """Act on workers that do not answer, runs that take too long, and a lack of workers.

        A run is judged by what was known of it when, not by the time now: the driver may have
        been busy elsewhere, and the end of the run not yet read.
        """
        for slot in fleet.silent():
            self._fault(fleet, slot, f"no answer from {slot.name} for {self._heartbeat:g} s")
        for slot in list(fleet.slots):
            reasons = ((self._late(slot.known, c), job) for job, c in slot.clocks.items())
            cause, guilty = next((r for r in reasons if r[0]), ("", None))
            if cause:
                self._fault(fleet, slot, cause, guilty)
        if fleet.reached:
            self._last_reached = now
        elif now - self._last_reached > self._start_timeout:
            raise ExecutorError(self._no_worker())

    def _late(self, known: float, clock: Clock) -> str:
        """Why a run is given up, or an empty text."""
        if self._deadline is not None and known - clock.started > self._deadline:
            return f"the run exceeded its deadline of {self._deadline:g} s"
        if known - clock.progressed > self._progress_timeout:
            return f"no sign of life of the training for {self._progress_timeout:g} s"
        return ""


def _wind_down(fleet: Fleet) -> None:
    """Ask running trainings to end, so that their clean-up (child processes) runs."""
    busy = [slot.actor.drain for slot in fleet.slots if slot.jobs]
    done = [d.options(concurrency_group="orders").remote(GRACE_SECONDS) for d in busy]
    if done:
        ray.wait(done, num_returns=len(done), timeout=GRACE_SECONDS)
