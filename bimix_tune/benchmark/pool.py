"""Where jobs are carried out: on Ray workers, or without Ray in this process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from bimix_tune.errors import missing_extra

R = TypeVar("R")
Made = TypeVar("Made", covariant=True)


class Job(Protocol[Made]):
    """Something to carry out that pickles; hashed by identity."""

    @property
    def size(self) -> float:
        """What its time grows with: the largest are begun first."""
        ...

    def lost(self, cause: str) -> Made:
        """The result if the workers that had it died."""
        ...


J = TypeVar("J", bound=Job[object])
Taken = TypeVar("Taken", bound=Job[object], contravariant=True)


class Pool(Protocol[Taken, Made]):
    """Carries out jobs.

    Attributes:
        slots: How many at once.
    """

    slots: int

    def results(self, jobs: Sequence[Taken]) -> Iterator[Made]:
        """Yield results in the order in which they come."""
        ...

    def close(self) -> None:
        """End the workers; what they were at is lost."""
        ...


class ThisProcess(Generic[J, R]):
    """One job after the other, here.

    Args:
        work: What each job is given to.
    """

    slots = 1

    def __init__(self, work: Callable[[J], R]) -> None:
        self._work = work

    def results(self, jobs: Sequence[J]) -> Iterator[R]:
        yield from map(self._work, jobs)

    def close(self) -> None:
        pass


def open_pool(
    work: Callable[[J], R],
    workers: int | None = None,
    address: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Pool[J, R]:
    """Workers on Ray, or this process where Ray is not installed.

    Args:
        work: What each job is given to; pickled for Ray.
        workers: How many; None: one for each CPU of the cluster; 0: this process, without Ray.
        address: Ray cluster to join, as `bimix_tune.executors.ray_cluster.connect` has it.
        say: Is told if it is this process for want of Ray.

    Raises:
        MissingExtraError: A cluster is named, but Ray is not installed.
        ExecutorError: Ray cannot start, or the cluster does not answer.
    """
    if workers == 0:
        return ThisProcess(work)
    if importlib.util.find_spec("ray") is None:
        if address is not None:
            raise missing_extra("ray", "ray", f"joining the cluster {address!r}")
        if say is not None:
            say("one after the other in this process: 'ray' is not installed")
        return ThisProcess(work)
    from bimix_tune.benchmark.ray_pool import RayPool

    return RayPool(work, workers, address)
