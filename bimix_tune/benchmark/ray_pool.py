"""Jobs on Ray: long-lived workers of one thread each, so that imports are paid for once.

Faults are handled here: a worker that dies is replaced and its job tried once more.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic

from bimix_tune.benchmark.pool import J, R
from bimix_tune.errors import ExecutorError, one_line
from bimix_tune.executors.ray_cluster import connect, ray

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Set to one: matrices are small, so a second thread costs more than it brings."""
TRIES = 2
"""Of a job whose worker dies, and of starting a worker."""
START_SECONDS = 120.0


def send_by_value(classes: Iterable[type]) -> None:
    """Let classes of a user's own files travel with their code: workers cannot import them."""
    for name in {c.__module__ for c in classes}:
        if not name.startswith("bimix_tune."):
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])


class Worker:
    """Does one job at a time; becomes a Ray actor."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def ready(self) -> str:
        """The name of the host: the answer proves that the worker is up."""
        return socket.gethostname()

    def do(self, job: Any) -> Any:
        """The result of a job."""
        return self._work(job)


class RayPool(Generic[J, R]):
    """Workers on a Ray cluster.

    Args:
        work: What each job is given to.
        workers: How many; None: one for each CPU of the cluster. More than CPUs share them.
        address: ``host:port`` or ``"auto"``; None: ``RAY_ADDRESS``, else a cluster of its own.

    Raises:
        ExecutorError: Ray cannot start, or the cluster does not answer.
    """

    def __init__(
        self,
        work: Callable[[J], R],
        workers: int | None = None,
        address: str | None = None,
    ) -> None:
        self._connection = connect(address, "leave out --address or choose --workers 0")
        cpus = float(ray.cluster_resources().get("CPU", 1.0))
        self.slots = workers or max(1, int(cpus))
        options = {"num_cpus": min(1.0, cpus / self.slots), "max_restarts": 0}
        env = {"env_vars": {**dict.fromkeys(THREADS, "1"), "OMP_WAIT_POLICY": "passive"}}
        self._kind = ray.remote(**options, runtime_env=env)(Worker)
        self._work = work
        self._actors: list[Any] = []
        self._failed_starts = 0

    def results(self, jobs: Sequence[J]) -> Iterator[R]:
        """Yield results as they come; the largest jobs are begun first.

        Raises:
            ExecutorError: No worker comes up.
        """
        waiting = deque(sorted(jobs, key=lambda job: job.size, reverse=True))
        tries: Counter[J] = Counter()
        pending = dict(self._start() for _ in range(min(self.slots, len(jobs))))
        while waiting or any(job is not None for _, job in pending.values()):
            ref = self._wait(pending)
            actor, job = pending.pop(ref)
            try:
                found = ray.get(ref)
            except ray.exceptions.RayError as error:
                pending.update([self._replace(actor, job, error)])
                if job is not None:
                    tries[job] += 1
                    if tries[job] < TRIES:
                        waiting.appendleft(job)
                    else:
                        yield job.lost(f"WorkerDied: {TRIES} times ({type(error).__name__})")
                continue
            if job is not None:
                yield found
            if waiting:
                job = waiting.popleft()
                pending[actor.do.remote(job)] = actor, job

    def close(self) -> None:
        """Kill the workers and leave the cluster."""
        if ray.is_initialized():  # a call would start it anew
            for actor in self._actors:
                with contextlib.suppress(Exception):  # it may be dead, or its node gone
                    ray.kill(actor, no_restart=True)
        self._actors.clear()
        self._connection.close()

    def _start(self) -> tuple[Any, tuple[Any, J | None]]:
        """A new worker: what it will answer with once it is up, and the worker without a job."""
        actor = self._kind.remote(self._work)
        self._actors.append(actor)
        return actor.ready.remote(), (actor, None)

    def _wait(self, pending: dict[Any, Any]) -> Any:
        """The first answer; the wait is bounded while all workers are still to come up."""
        starting = all(job is None for _, job in pending.values())
        done, _ = ray.wait(list(pending), timeout=START_SECONDS if starting else None)
        if not done:
            raise ExecutorError(
                f"no Ray worker came up within {START_SECONDS:g} s: the cluster has no room; "
                "ask for fewer --workers, or choose --workers 0"
            )
        return done[0]

    def _replace(
        self, actor: Any, job: J | None, error: Exception
    ) -> tuple[Any, tuple[Any, J | None]]:
        """Another worker for one that died, unless workers cannot start at all."""
        self._failed_starts = self._failed_starts + 1 if job is None else 0
        if self._failed_starts >= TRIES:
            raise ExecutorError(
                f"the Ray workers cannot start ({one_line(error, 300)}); bimix-tune must be "
                "installed on every node, or choose --workers 0"
            ) from error
        self._actors.remove(actor)
        return self._start()
