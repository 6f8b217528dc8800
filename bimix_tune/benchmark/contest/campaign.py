"""All matches of strategies on problems, or those that an earlier call left to play."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from bimix_tune.benchmark.contest.code import code_digest
from bimix_tune.benchmark.contest.match import Game, Match, play
from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.benchmark.resuming import carry_on
from bimix_tune.errors import ConfigError
from bimix_tune.strategies.base import Setting, Strategy

SEEDS = 20
"""Matches of a strategy on a problem unless another number is asked for."""
FILE = "matches.jsonl"

Obstacle = Callable[[str, Setting], str | None]
"""Why the strategy of a name cannot play in a setting; None: it can."""


def compare_strategies(
    problems: Sequence[Problem],
    folder: str | Path,
    *,
    strategies: Mapping[str, type[Strategy]],
    obstacle: Obstacle = lambda name, setting: None,
    seeds: int = SEEDS,
    runs: int | None = None,
    workers: int | None = None,
    address: str | None = None,
    monitor: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Match]:
    """Let all strategies play all problems, or what an earlier call left to do.

    Args:
        problems: Of different names.
        folder: Matches are kept in its ``matches.jsonl``.
        strategies: Classes by name.
        obstacle: Who cannot play what; such matches are passed over.
        seeds: Matches of a strategy on a problem; the nth one has the same noise for all.
        runs: Runs of a match; None: what each problem says.
        workers: Ray workers of one thread each; None: one for each CPU; 0: this process.
        address: Ray cluster to join.
        monitor: Called with the number of matches at hand and their total.
        say: Is told who is passed over.

    Returns:
        By problem, strategy and seed.

    Raises:
        ConfigError: A number is out of range, problems share a name, or there is no match.
        CurveError: ``matches.jsonl`` holds something else.
        ExecutorError: Ray cannot start, or the cluster does not answer.
    """
    for option, value, least in (("seeds", seeds, 1), ("runs", runs, 2), ("workers", workers, 0)):
        if value is not None and value < least:
            raise ConfigError(f"{option} must be >= {least}, but got {value!r}")
    names = [p.name for p in problems]
    if len(set(names)) < len(names):
        raise ConfigError(f"problems must have different names, but got {names}")
    games, notes = plan(problems, strategies, obstacle, seeds, runs)
    if say is not None:
        for note in notes:
            say(note)
    if not games:
        raise ConfigError("there is no match to play: " + ("; ".join(notes) or "no strategy"))
    if workers != 0 and importlib.util.find_spec("ray") is not None:
        from bimix_tune.benchmark.ray_pool import send_by_value

        send_by_value([*map(type, problems), *strategies.values()])
    for problem in problems:  # they are kept and travel with it, so that no worker seeks them
        _ = problem.best, problem.typical
    return carry_on(
        Path(folder) / FILE,
        games,
        play,
        Match.from_json,
        workers=workers,
        address=address,
        monitor=monitor,
        say=say,
    )


def plan(
    problems: Sequence[Problem],
    strategies: Mapping[str, type[Strategy]],
    obstacle: Obstacle,
    seeds: int,
    runs: int | None = None,
) -> tuple[dict[Hashable, Game], list[str]]:
    """Matches by key, and a sentence for those passed over, one for each strategy and reason."""
    games: dict[Hashable, Game] = {}
    passed: dict[tuple[str, str], list[str]] = defaultdict(list)
    for problem in problems:
        count = budget(problem, runs)
        for name, strategy in strategies.items():
            why = obstacle(name, problem.setting(0, count))
            if why is not None:
                passed[name, why].append(problem.name)
                continue
            for seed in range(seeds):
                game = Game(problem, name, strategy, count, seed, code_digest(strategy))
                games[game.blank.key] = game
    notes = []
    for (name, why), where in passed.items():
        place = "any problem" if len(where) == len(problems) else ", ".join(where)
        notes.append(f"{name} does not play {place}: {why}")
    return games, notes


def budget(problem: Problem, runs: int | None) -> int:
    """Runs of a match: no more than there are candidates."""
    most = runs or problem.runs
    return most if problem.candidates is None else min(most, len(problem.candidates))
