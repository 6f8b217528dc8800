"""Jobs that wait for a worker: which one a worker gets, and how often one is tried."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass, field

from bimix_tune.executors.base import Job

LOST_NODES = 10
"""That a job may live through: the loss of a node is no fault of the job's, unless it brings
down one after the other."""


@dataclass
class _Past:
    """Tries of a job that broke off.

    Args:
        faults: How many, with the node still there.
        lost: How many because the node left the cluster.
        nodes: Where.
    """

    faults: int = 0
    lost: int = 0
    nodes: set[str] = field(default_factory=set)


class JobQueue:
    """Waiting jobs, in order.

    Args:
        retries: How often a job is tried again.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._waiting: deque[Job] = deque()
        self._past: defaultdict[int, _Past] = defaultdict(_Past)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job) -> None:
        """Put a job behind all others."""
        self._waiting.append(job)

    def add_first(self, job: Job) -> None:
        """Put a job that has waited before all others."""
        self._waiting.appendleft(job)

    def remove(self, job_id: int) -> bool:
        """Whether the job was waiting, which it is no longer."""
        found = [job for job in self._waiting if job.id == job_id]
        for job in found:
            self._waiting.remove(job)
        return bool(found)

    def clear(self) -> None:
        """Forget all jobs."""
        self._waiting.clear()
        self._past.clear()

    def take(self, node: str, nodes: Collection[str]) -> Job | None:
        """The first job that suits a node, which leaves the queue.

        Args:
            node: Of the worker.
            nodes: Of all workers that take jobs.
        """
        for job in self._waiting:
            if self.suits(job, node, nodes):
                self._waiting.remove(job)
                return job
        return None

    def suits(self, job: Job, node: str, nodes: Collection[str]) -> bool:
        """Whether a job has not yet broken off on that node, or has done so on all of them."""
        if job.id not in self._past:
            return True
        tried = self._past[job.id].nodes
        return node not in tried or tried.issuperset(nodes)

    def broke_off(self, job_id: int, node: str, lost: bool) -> bool:
        """Note that a try of a job broke off, and answer whether it may be tried again.

        Args:
            job_id: Which job.
            node: Where.
            lost: Whether the node has left the cluster.
        """
        past = self._past[job_id]
        past.nodes.add(node)
        past.lost += lost
        past.faults += not lost
        return past.faults <= self._retries and past.lost <= LOST_NODES

    def tries(self, job_id: int) -> int:
        """How many tries of a job broke off."""
        past = self._past[job_id]
        return past.faults + past.lost

    def forget(self, job_id: int) -> None:
        """Drop what is known of a job that has ended."""
        self._past.pop(job_id, None)
