"""Fit every law to the same random runs of a swarm, and judge it by the runs left out."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bimix_tune.benchmark.peers import PEERS, Predictor, missing_library
from bimix_tune.benchmark.results import Result, append_result, drop_torn_line, read_results
from bimix_tune.benchmark.scores import Prediction, score
from bimix_tune.benchmark.swarms import Swarm
from bimix_tune.curves import LossCurve
from bimix_tune.errors import ConfigError, did_you_mean
from bimix_tune.laws import LAWS, fit
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

FEWEST_HELD_OUT = 5
"""Runs that must be left to judge by."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Matrices are small: a second thread costs more than it brings, and times compare."""


@dataclass(frozen=True, eq=False)
class Task:
    """One law on one draw; small enough to send to another process.

    Args:
        key: What is measured, without scores.
        space: Domains and targets.
        tokens: At which losses are judged.
        fitted: The runs to fit, n.
        r: Proportions of the M others, (M, K).
        truth: Their losses to predict, (M, V).
        measured: Their measured losses, (M, V).
    """

    key: Result
    space: SearchSpace
    tokens: float
    fitted: tuple[LossCurve, ...]
    r: Array
    truth: Array
    measured: Array


def contenders(names: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """Laws and peers that can be compared here.

    Args:
        names: Some of them; None: all.

    Returns:
        Their names, and a sentence for each one whose library is not installed.

    Raises:
        ConfigError: A name is unknown, or none is left.
    """
    known = [*LAWS, *PEERS]
    for name in names or ():
        if name not in known:
            raise ConfigError(f"unknown law {name!r}" + did_you_mean(name, known))
    wanted = list(dict.fromkeys(known if names is None else names))
    lacking = {n: library for n in wanted if (library := missing_library(n))}
    notes = [f"{n} is left out: {library!r} is not installed" for n, library in lacking.items()]
    if len(lacking) == len(wanted):
        raise ConfigError("there is no law to compare: " + ", ".join(notes or ["none was named"]))
    return [n for n in wanted if n not in lacking], notes


def compare_laws(
    swarms: Sequence[Swarm],
    folder: str | Path,
    *,
    laws: Sequence[str],
    runs: Sequence[int] = (8, 16, 32),
    draws: int = 10,
    workers: int = 1,
    monitor: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Measure all laws on all swarms, or what an earlier call left to do.

    Args:
        swarms: Swarms of different names. A number of runs that leaves a swarm too few to
            judge by is passed over for that swarm.
        folder: Results are kept in its ``results.jsonl``.
        laws: Names from `contenders`.
        runs: Numbers n of runs to fit.
        draws: Draws of n runs, the same ones for all laws.
        workers: Processes, each with one thread.
        monitor: Called with the number of results at hand and their total.

    Returns:
        All results asked for, by swarm, n, law and draw.

    Raises:
        ConfigError: A number is out of range, or every n is too large for every swarm.
        CurveError: ``results.jsonl`` holds something else.
    """
    for name, value in (("draws", draws), ("workers", workers), ("runs", min(runs, default=0))):
        least = 2 if name == "runs" else 1
        if value < least:
            raise ConfigError(f"{name} must be >= {least}, but got {value!r}")
    tasks = {t.key.key: t for s in swarms for t in _tasks(s, laws, runs, draws)}
    if not tasks:
        sizes = {s.name: len(s.curves) for s in swarms}
        raise ConfigError(
            f"runs must leave {FEWEST_HELD_OUT} to judge by, but got {list(runs)} for swarms "
            f"of {sizes} runs"
        )
    path = Path(folder) / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    drop_torn_line(path)
    found = {r.key: r for r in read_results(path) if r.key in tasks}
    todo = [t for key, t in tasks.items() if key not in found]
    for result in _measured(todo, workers):
        append_result(path, result)
        found[result.key] = result
        if monitor is not None:
            monitor(len(found), len(tasks))
    return [found[key] for key in tasks]


def _tasks(swarm: Swarm, laws: Sequence[str], runs: Sequence[int], draws: int) -> Iterator[Task]:
    r, final, data = swarm.proportions, swarm.final, swarm.digest
    truth = final if swarm.truth is None else swarm.truth
    for n in sorted(set(runs)):
        if n > len(r) - FEWEST_HELD_OUT:
            continue
        drawn = []
        for draw in range(draws):
            order = _order(swarm.name, n, draw, len(r))
            fitted, rest = tuple(swarm.curves[i] for i in order[:n]), order[n:]
            key = Result(swarm.name, data, n, draw, "")
            held_out = (r[rest], truth[rest], final[rest])
            drawn.append(Task(key, swarm.space, swarm.tokens, fitted, *held_out))
        for law in laws:
            for task in drawn:
                yield dataclasses.replace(task, key=dataclasses.replace(task.key, law=law))


def _order(swarm: str, n: int, draw: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A random order of the runs, which depends on nothing but the arguments."""
    return np.random.default_rng([n, draw, *swarm.encode()]).permutation(size)


def _measured(tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Results as they come. Fresh processes, so that the limit on threads takes effect."""
    if not tasks:
        return
    with (
        _environment(ONE_THREAD),
        ProcessPoolExecutor(workers, get_context("spawn"), initializer=_ignore_interrupt) as pool,
    ):
        pending = [pool.submit(judge, task) for task in tasks]
        try:
            for future in as_completed(pending):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _ignore_interrupt() -> None:
    """Leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def judge(task: Task) -> Result:
    """Fit and score; a fit that fails is a result too."""
    began = time.process_time()
    try:
        predict = _fitted(task)
        seconds = time.process_time() - began
        scores = score(predict(task.r), task.truth, task.measured, task.space.weights)
    except (ValueError, ArithmeticError, RuntimeError) as error:
        return dataclasses.replace(task.key, failure=f"{type(error).__name__}: {error}")
    return dataclasses.replace(task.key, **dataclasses.asdict(scores), seconds=seconds)


def _fitted(task: Task) -> Predictor:
    """Laws see the curves of the runs, peers their ends."""
    space, curves = task.space, task.fitted
    if task.key.law in PEERS:
        losses = np.array([[c.final()[t] for t in space.target_names] for c in curves])
        return PEERS[task.key.law](space.matrix([c.mixture for c in curves]), losses, space)
    law = fit(curves, space, task.key.law)

    def predict(r: Array) -> Prediction:
        return Prediction(law.predict(r, task.tokens), *law.objective(r, task.tokens))

    return predict
