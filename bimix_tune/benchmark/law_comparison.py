"""Carry out all tasks, or those that an earlier call left to do, and keep every result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from bimix_tune.benchmark.pool import open_pool
from bimix_tune.benchmark.results import Result, append_result, drop_torn_line, read_results
from bimix_tune.benchmark.swarms import DataSet
from bimix_tune.benchmark.tasks import FEWEST_HELD_OUT, TASKS, plan
from bimix_tune.errors import ConfigError, did_you_mean

RUNS = (8, 16, 32, 64, 128, 256)
"""Numbers of runs to fit unless others are asked for."""


def compare_laws(
    data: Sequence[DataSet],
    folder: str | Path,
    *,
    laws: Sequence[str],
    tasks: Sequence[str] = TASKS,
    runs: Sequence[int] = RUNS,
    draws: int = 10,
    workers: int | None = None,
    address: str | None = None,
    monitor: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Result]:
    """Measure all laws on all swarms, or what an earlier call left to do.

    Args:
        data: Data sets of different names. What cannot be measured on one of them (too few
            runs, no checkpoints, one scale) is passed over.
        folder: Results are kept in its ``results.jsonl``.
        laws: Names from `contenders`.
        tasks: Names from `TASKS`.
        runs: Numbers n of runs to fit.
        draws: Draws of n runs, the same ones for all laws.
        workers: Ray workers of one thread each; None: one for each CPU; 0: this process.
        address: Ray cluster to join.
        monitor: Called with the number of results at hand and their total.
        say: Is told what is passed over.

    Returns:
        All results asked for, by task, swarm, n, law and draw.

    Raises:
        ConfigError: A number is out of range, a task is unknown, or there is nothing to measure.
        CurveError: ``results.jsonl`` holds something else.
        ExecutorError: Ray cannot start, or the cluster does not answer.
    """
    _check(tasks, runs, draws, workers)
    say = say or (lambda note: None)
    wanted, notes = plan(data, laws, tasks, runs, draws)
    for note in notes:
        say(note)
    by_key = {t.key.key: t for t in wanted}
    if not by_key:
        sizes = {s.name: len(s.curves) for d in data for s in d.swarms}
        raise ConfigError(
            f"nothing to measure: runs must leave {FEWEST_HELD_OUT} to judge by, but got "
            f"{list(runs)} for swarms of {sizes} runs and tasks {list(tasks)}"
        )
    path = Path(folder) / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    drop_torn_line(path)
    found = {r.key: r for r in read_results(path) if r.key in by_key}
    todo = [t for key, t in by_key.items() if key not in found]
    if todo:
        with closing(open_pool(workers, address, say)) as pool:
            for result in pool.results(todo):
                append_result(path, result)
                found[result.key] = result
                if monitor is not None:
                    monitor(len(found), len(by_key))
    return [found[key] for key in by_key]


def _check(tasks: Sequence[str], runs: Sequence[int], draws: int, workers: int | None) -> None:
    least = (
        ("draws", draws, 1),
        ("workers", 1 if workers is None else workers, 0),
        ("runs", min(runs, default=0), 2),
    )
    for name, value, low in least:
        if value < low:
            raise ConfigError(f"{name} must be >= {low}, but got {value!r}")
    for task in tasks:
        if task not in TASKS:
            raise ConfigError(f"unknown task {task!r}" + did_you_mean(task, TASKS))
