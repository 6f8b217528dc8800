"""Carry out jobs, or those that an earlier call left to do, and keep every result."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import closing
from pathlib import Path

from bimix_tune.benchmark.pool import J, open_pool
from bimix_tune.benchmark.results import F, append_result, drop_torn_line, read_lines


def carry_on(
    path: Path,
    jobs: Mapping[Hashable, J],
    work: Callable[[J], F],
    read: Callable[[str], F],
    *,
    workers: int | None = None,
    address: str | None = None,
    monitor: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> list[F]:
    """Results of all jobs, each done once even if a call is cut off and repeated.

    Args:
        path: File of results, one a line; made if need be.
        jobs: By the key of their results.
        work: Does a job.
        read: Reads a line of the file.
        workers: As in `open_pool`, as the others below.
        address: Ray cluster to join.
        monitor: Called with the number of results at hand and their total.
        say: Is told what the user may want to know.

    Returns:
        In the order of the jobs.

    Raises:
        CurveError: The file holds something else.
        ExecutorError: Ray cannot start, or the cluster does not answer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    drop_torn_line(path)
    found = {r.key: r for r in read_lines(path, read) if r.key in jobs}
    todo = [job for key, job in jobs.items() if key not in found]
    if todo:
        with closing(open_pool(work, workers, address, say)) as pool:
            for result in pool.results(todo):
                append_result(path, result)
                found[result.key] = result
                if monitor is not None:
                    monitor(len(found), len(jobs))
    return [found[key] for key in jobs]
