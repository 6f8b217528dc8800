"""Carry out all tasks, or those that an earlier call left to do, and keep every result."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from bimix_tune.benchmark.judging import judge
from bimix_tune.benchmark.results import Result
from bimix_tune.benchmark.resuming import carry_on
from bimix_tune.benchmark.swarms import DataSet
from bimix_tune.benchmark.tasks import FEWEST_HELD_OUT, TASKS, Task, plan
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
    by_key: dict[Hashable, Task] = {t.key.key: t for t in wanted}
    if not by_key:
        sizes = {s.name: len(s.curves) for d in data for s in d.swarms}
        raise ConfigError(
            f"nothing to measure: runs must leave {FEWEST_HELD_OUT} to judge by, but got "
            f"{list(runs)} for swarms of {sizes} runs and tasks {list(tasks)}"
        )
    return carry_on(
        Path(folder) / "results.jsonl",
        by_key,
        judge,
        Result.from_json,
        workers=workers,
        address=address,
        monitor=monitor,
        say=say,
    )


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
