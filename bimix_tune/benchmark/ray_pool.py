"""Tasks on Ray: long-lived workers of one thread each, so that imports are paid for once.

Faults are handled here: a worker that dies is replaced and its task tried once more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bimix_tune.benchmark.results import Key, Result
from bimix_tune.benchmark.tasks import Task
from bimix_tune.errors import ExecutorError
from bimix_tune.executors.base import one_line
from bimix_tune.executors.ray_cluster import connect, ray

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Set to one: matrices are small, so a second thread costs more than it brings."""
TRIES = 2
"""Of a task whose worker dies, and of starting a worker."""
START_SECONDS = 120.0


class Worker:
    """Judges one task at a time; becomes a Ray actor."""

    def __init__(self, judge: Callable[[Task], Result]) -> None:
        self._judge = judge

    def ready(self) -> str:
        """The name of the host: the answer proves that the worker is up."""
        return socket.gethostname()

    def judge(self, task: Task) -> Result:
        """Fit and score."""
        return self._judge(task)


class RayPool:
    """Workers on a Ray cluster.

    Args:
        judge: What each task is given to.
        workers: How many; None: one for each CPU of the cluster. More than CPUs share them.
        address: ``host:port`` or ``"auto"``; None: ``RAY_ADDRESS``, else a cluster of its own.

    Raises:
        ExecutorError: Ray cannot start, or the cluster does not answer.
    """

    def __init__(
        self,
        judge: Callable[[Task], Result],
        workers: int | None = None,
        address: str | None = None,
    ) -> None:
        self._connection = connect(address, "leave out --address or choose --workers 0")
        cpus = float(ray.cluster_resources().get("CPU", 1.0))
        self.slots = workers or max(1, int(cpus))
        options = {"num_cpus": min(1.0, cpus / self.slots), "max_restarts": 0}
        env = {"env_vars": {**dict.fromkeys(THREADS, "1"), "OMP_WAIT_POLICY": "passive"}}
        self._kind = ray.remote(**options, runtime_env=env)(Worker)
        self._judge = judge
        self._actors: list[Any] = []
        self._failed_starts = 0

    def results(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield results as they come; the longest tasks are begun first.

        Raises:
            ExecutorError: No worker comes up.
        """
        waiting = deque(sorted(tasks, key=lambda t: t.size, reverse=True))
        tries: Counter[Key] = Counter()
        pending = dict(self._start() for _ in range(min(self.slots, len(tasks))))
        while waiting or any(task is not None for _, task in pending.values()):
            ref = self._wait(pending)
            actor, task = pending.pop(ref)
            try:
                found = ray.get(ref)
            except ray.exceptions.RayError as error:
                pending.update([self._replace(actor, task, error)])
                if task is not None:
                    tries[task.key.key] += 1
                    if tries[task.key.key] < TRIES:
                        waiting.appendleft(task)
                    else:
                        yield _lost(task, error)
                continue
            if task is not None:
                yield found
            if waiting:
                task = waiting.popleft()
                pending[actor.judge.remote(task)] = actor, task

    def close(self) -> None:
        """Kill the workers and leave the cluster."""
        if ray.is_initialized():  # a call would start it anew
            for actor in self._actors:
                with contextlib.suppress(Exception):  # it may be dead, or its node gone
                    ray.kill(actor, no_restart=True)
        self._actors.clear()
        self._connection.close()

    def _start(self) -> tuple[Any, tuple[Any, Task | None]]:
        """A new worker: what it will answer with once it is up, and the worker without a task."""
        actor = self._kind.remote(self._judge)
        self._actors.append(actor)
        return actor.ready.remote(), (actor, None)

    def _wait(self, pending: dict[Any, Any]) -> Any:
        """The first answer; the wait is bounded while all workers are still to come up."""
        starting = all(task is None for _, task in pending.values())
        done, _ = ray.wait(list(pending), timeout=START_SECONDS if starting else None)
        if not done:
            raise ExecutorError(
                f"no Ray worker came up within {START_SECONDS:g} s: the cluster has no room; "
                "ask for fewer --workers, or choose --workers 0"
            )
        return done[0]

    def _replace(
        self, actor: Any, task: Task | None, error: Exception
    ) -> tuple[Any, tuple[Any, Task | None]]:
        """Another worker for one that died, unless workers cannot start at all."""
        self._failed_starts = self._failed_starts + 1 if task is None else 0
        if self._failed_starts >= TRIES:
            raise ExecutorError(
                f"the Ray workers cannot start ({one_line(error)[:300]}); bimix-tune must be "
                "installed on every node, or choose --workers 0"
            ) from error
        self._actors.remove(actor)
        return self._start()


def _lost(task: Task, error: Exception) -> Result:
    cause = f"WorkerDied: {TRIES} times ({type(error).__name__})"
    return dataclasses.replace(task.key, failure=cause)
