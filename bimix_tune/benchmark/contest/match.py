"""One strategy plays one problem: it asks for runs, sees their curves, and recommends a mixture.

What it sees is what a user has. The truth is looked up beside it, after it has asked, to judge by:
all regrets here are true, normalised ones (0: the best mixture, 1: a typical one).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from bimix_tune.benchmark.contest.recommending import judged, recommendations
from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.curves import LossCurve
from bimix_tune.errors import MixtureError, one_line
from bimix_tune.simplex import Array
from bimix_tune.strategies.base import Strategy
from bimix_tune.training.base import Checkpoint

DIGITS = 6
"""Decimals of proportions on file: more than anybody can train."""
OF_STRATEGY, OF_RUNS = 0, 1
"""Branches of a match's seed."""

Key = tuple[str, str, str, int, int, str]


@dataclass(frozen=True, kw_only=True)
class Match:
    """How a match went. Tuples have an entry for each run asked for, n of them.

    Args:
        problem: Name of the problem.
        digest: Of the problem.
        strategy: Name of the strategy.
        runs: Runs that the strategy was told it may ask for; n is less if it wanted no more.
        seed: Of the match.
        code: Digest of the code that decides the result.
        complete: Training tokens of a complete run.
        tokens: Training tokens spent on each run, (n,).
        measured: The measured objective; NaN of a run that was stopped.
        regret: True regret of the mixture.
        seconds: Wall time that the strategy took to think: to propose the run, to decide
            whether to stop it, and to learn from it.
        cpu_seconds: Processor time of the same.
        proportions: (n, K).
        best_seen: True regret of the complete run that measured best; NaN without any.
        own: True regret of what the strategy recommends in the end.
        law: True regret of the optimum of our law, fitted to all its runs.
        notes: Why there is no recommendation of a kind.
        failure: What the strategy broke off with, or empty.
    """

    problem: str
    digest: str
    strategy: str
    runs: int
    seed: int
    code: str
    complete: float
    tokens: tuple[float, ...] = ()
    measured: tuple[float, ...] = ()
    regret: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()
    proportions: tuple[tuple[float, ...], ...] = ()
    best_seen: float = math.nan
    own: float = math.nan
    law: float = math.nan
    notes: tuple[str, ...] = ()
    failure: str = ""

    @property
    def key(self) -> Key:
        """Who played what, by which code."""
        return self.problem, self.digest, self.strategy, self.runs, self.seed, self.code

    def to_json(self) -> str:
        """One line; NaN is null."""
        return json.dumps(_plain(dataclasses.asdict(self)), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Match:
        """Read a line of `to_json`."""
        values: dict[str, Any] = json.loads(line)
        read = {k: _number(v) for k, v in values.items()}
        read["proportions"] = tuple(tuple(row) for row in values["proportions"])
        return cls(**read)


@dataclass(frozen=True, eq=False)
class Game:
    """A match to be played; a job of `bimix_tune.benchmark.pool`.

    Args:
        problem: What is searched.
        name: Of the strategy.
        strategy: Its class.
        runs: Runs that may be asked for.
        seed: Of the match. The noise of the nth run depends on it and n, not on the strategy.
        code: Digest of the code that decides the result.
    """

    problem: Problem
    name: str
    strategy: type[Strategy]
    runs: int
    seed: int
    code: str = ""

    @property
    def blank(self) -> Match:
        """The match before its first run."""
        return Match(
            problem=self.problem.name,
            digest=self.problem.digest,
            strategy=self.name,
            runs=self.runs,
            seed=self.seed,
            code=self.code,
            complete=float(self.problem.tokens),
        )

    @property
    def size(self) -> float:
        """Models are fitted to all runs so far, again and again: the square of the runs."""
        space = self.problem.space
        return float(self.runs**2 * len(space.names) * len(space.target_names))

    def lost(self, cause: str) -> Match:
        """The match if the workers that had it died."""
        return dataclasses.replace(self.blank, failure=cause)


def play(game: Game) -> Match:
    """Play to the end. Whatever the strategy breaks off with is kept, as are the runs so far."""
    log: dict[str, list[Any]] = {name: [] for name in _PER_RUN}
    failure = ""
    strategy: Strategy | None = None
    try:
        strategy = game.strategy(game.problem.setting(_seed(game.seed, OF_STRATEGY), game.runs))
        for number in range(game.runs):
            if not _turn(game, strategy, number, log):
                break
    except Exception as error:  # noqa: BLE001 - strategies are anybody's code
        failure = one_line(error)
    measured = np.array(log["measured"])
    ends = np.flatnonzero(np.isfinite(measured)) if len(measured) else np.array([], dtype=int)
    best = log["regret"][ends[measured[ends].argmin()]] if len(ends) else math.nan
    ended: dict[str, Any] = {name: tuple(values) for name, values in log.items()}
    if strategy is not None and strategy.curves:
        regrets, notes = recommendations(game.problem, strategy)
        ended |= regrets | {"notes": tuple(notes)}
    return dataclasses.replace(game.blank, **ended, best_seen=best, failure=failure)


_PER_RUN = ("tokens", "measured", "regret", "seconds", "cpu_seconds", "proportions")


def _turn(game: Game, strategy: Strategy, number: int, log: dict[str, list[Any]]) -> bool:
    """One run, added to the log; False if the strategy wants no more."""
    watch = _Watch()
    with watch.running():
        asked = strategy.ask()
    if asked is None:
        return False
    r = np.array(asked, dtype=float)
    _check(game.problem, r)
    seed = _seed(game.seed, OF_RUNS, number)
    curve, complete = _run(game.problem, strategy, r, seed, str(number), watch)
    with watch.running():
        strategy.tell(curve, complete)
    value = float(strategy.setting.values(curve)[-1]) if complete else math.nan
    row = (
        float(curve.tokens[-1]),
        value,
        judged(game.problem, r),
        watch.wall,
        watch.cpu,
        tuple(round(share, DIGITS) for share in r.tolist()),
    )
    for name, entry in zip(_PER_RUN, row, strict=True):
        log[name].append(entry)
    return True


def _run(
    problem: Problem, strategy: Strategy, r: Array, seed: int, name: str, watch: _Watch
) -> tuple[LossCurve, bool]:
    """Train, and ask the strategy after each checkpoint but the last whether to stop."""
    mixture, targets = problem.space.mixture(r), problem.space.target_names
    points: list[Checkpoint] = []
    curve: LossCurve | None = None
    training = problem.train(r.copy(), seed)
    for point in training:
        if not point.losses:  # a sign of life
            continue
        points.append(point)
        curve = LossCurve(
            mixture,
            [p.tokens for p in points],
            [[p.losses[t] for t in targets] for p in points],
            targets,
            [p.decayed for p in points],
            seed,
            problem.unit,
            run=name,
        )
        if point.tokens < problem.tokens:
            with watch.running():
                stop = strategy.stop(curve)
            if stop:
                close = getattr(training, "close", None)
                if close is not None:  # an iterator that is no generator has nothing to end
                    close()
                return curve, False
    if curve is None:
        raise RuntimeError(f"{problem.name}: a run without a checkpoint")
    return curve, True


def _check(problem: Problem, r: Array) -> None:
    """A strategy must stay within what can be run, or its regret means nothing."""
    wrong = problem.space.violation(problem.space.mixture(r))
    if wrong is not None:
        raise MixtureError(f"asked for a mixture outside the space: {wrong}")


class _Watch:
    """Adds up the time of a strategy."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu


def _seed(*path: int) -> int:
    """A number that all of the path decides."""
    return int(np.random.SeedSequence(path).generate_state(1)[0])


def _plain(value: Any) -> Any:
    """NaN becomes None, also within lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if value != value else value


def _number(value: Any) -> Any:
    """The reverse, for values and flat lists."""
    if isinstance(value, list):
        return tuple(_number(v) for v in value)
    return math.nan if value is None else value
