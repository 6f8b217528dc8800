"""Where tasks are carried out: on Ray workers, or without Ray in this process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from bimix_tune.benchmark.judging import judge
from bimix_tune.benchmark.results import Result
from bimix_tune.benchmark.tasks import Task
from bimix_tune.errors import missing_extra


class Pool(Protocol):
    """Carries out tasks, the longest first.

    Attributes:
        slots: How many at once.
    """

    slots: int

    def results(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield results in the order in which they come."""
        ...

    def close(self) -> None:
        """End the workers; what they were at is lost."""
        ...


class ThisProcess:
    """One task after the other, here."""

    slots = 1

    def results(self, tasks: Sequence[Task]) -> Iterator[Result]:
        yield from map(judge, tasks)

    def close(self) -> None:
        pass


def open_pool(
    workers: int | None = None,
    address: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Pool:
    """Workers on Ray, or this process where Ray is not installed.

    Args:
        workers: How many; None: one for each CPU of the cluster; 0: this process, without Ray.
        address: Ray cluster to join, as `bimix_tune.executors.ray_cluster.connect` has it.
        say: Is told if it is this process for want of Ray.

    Raises:
        MissingExtraError: A cluster is named, but Ray is not installed.
        ExecutorError: Ray cannot start, or the cluster does not answer.
    """
    if workers == 0:
        return ThisProcess()
    if importlib.util.find_spec("ray") is None:
        if address is not None:
            raise missing_extra("ray", "ray", f"joining the cluster {address!r}")
        if say is not None:
            say("one fit after the other in this process: 'ray' is not installed")
        return ThisProcess()
    from bimix_tune.benchmark.ray_pool import RayPool

    return RayPool(judge, workers, address)
