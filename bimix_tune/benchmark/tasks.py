"""What is measured: which runs are fitted, and which losses are to be predicted from them.

========== ==================================================================================
task       a law is fitted to
========== ==================================================================================
final      n runs to their end, and predicts the end of all others
extrapolate n runs that have seen `EARLY` of their tokens, and predicts the end of all others
scales     m big runs (and a lot of small ones), and predicts the other big runs
========== ==================================================================================

All contenders get the same draws, which depend on names and numbers only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from bimix_tune.benchmark.fitters import WITH_SMALL, code_digest
from bimix_tune.benchmark.results import Result
from bimix_tune.benchmark.swarms import DataSet, ScalePair, Swarm, until
from bimix_tune.curves import LossCurve
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

TASKS = ("final", "extrapolate", "scales")
FEWEST_HELD_OUT = 5
"""Runs that must be left to judge by."""
EARLY = 0.4
"""Share of the tokens that `extrapolate` sees."""
FEWEST_CHECKPOINTS, FEWEST_EARLY = 5, 2
"""Checkpoints of most runs, and early ones of a run to be fitted, in `extrapolate`."""
FEWEST_EARLY_RUNS = 2
"""Runs with so many early checkpoints."""
BIG_RUNS = (2, 3, 4)
"""Numbers m of big runs in `scales`."""
FEWEST_BIG_LEFT = 2
"""Big runs that must be left to judge by: two can be ranked."""

Indices = Sequence[int]


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
        small: Runs of a smaller scale that may help.
    """

    key: Result
    space: SearchSpace
    tokens: float
    fitted: tuple[LossCurve, ...]
    r: Array
    truth: Array
    measured: Array
    small: tuple[LossCurve, ...] = ()

    @property
    def size(self) -> int:
        """Checkpoints to fit: what the time of a fit grows with."""
        return sum(len(c.tokens) for c in (*self.fitted, *self.small))

    def lost(self, cause: str) -> Result:
        """The result if the workers that had it died."""
        return dataclasses.replace(self.key, failure=cause)


def plan(
    data: Sequence[DataSet],
    laws: Sequence[str],
    kinds: Sequence[str] = TASKS,
    runs: Sequence[int] = (8, 16, 32),
    draws: int = 10,
) -> tuple[list[Task], list[str]]:
    """All tasks, by task, swarm, n, law and draw, and a sentence for what cannot be asked.

    Args:
        data: Data sets of different names.
        laws: Names of contenders.
        kinds: Names from `TASKS`.
        runs: Numbers n of runs to fit.
        draws: Draws of n runs, the same ones for all laws.
    """
    tasks, notes = [], []
    alone = [law for law in laws if law != WITH_SMALL]
    for kind in (k for k in TASKS if k in kinds):
        for d in data:
            found: list[Task] = []
            if kind == "scales":
                notes += [f"scales: not on {d.name}: {d.unpaired}"] if d.unpaired else []
                found += _of_pair(d.pair, laws, draws) if d.pair else []
            for swarm in d.swarms if kind != "scales" else ():
                why = unfit(swarm) if kind == "extrapolate" else ""
                notes += [f"extrapolate: not on {swarm.name}: {why}"] if why else []
                found += [] if why else _of_swarm(kind, swarm, alone, runs, draws)
            tasks += found
    return tasks, notes + (_too_many(data, runs) if set(kinds) - {"scales"} else [])


def _too_many(data: Sequence[DataSet], runs: Sequence[int]) -> list[str]:
    """Which n swarms are too small for."""
    where: dict[str, list[str]] = {}
    for swarm in (s for d in data for s in d.swarms):
        beyond = [str(n) for n in sorted(set(runs)) if n > len(swarm.curves) - FEWEST_HELD_OUT]
        if beyond:
            who = f"{swarm.name} (of {len(swarm.curves)} runs)"
            where.setdefault(", ".join(beyond), []).append(who)
    return [f"n = {numbers}: not on {', '.join(who)}" for numbers, who in where.items()]


def unfit(swarm: Swarm) -> str:
    """Why the end of a swarm cannot be extrapolated, or empty."""
    checkpoints = float(np.median([len(c.tokens) for c in swarm.curves]))
    if checkpoints < FEWEST_CHECKPOINTS:
        return f"it takes {FEWEST_CHECKPOINTS} checkpoints a run, but half have {checkpoints:g}"
    if any(c.decayed[-1] and not c.decayed[0] for c in swarm.curves):
        return "its runs end with a decay of the learning rate, which earlier checkpoints lack"
    early = len(_seen_early(swarm))
    if early < FEWEST_EARLY_RUNS:
        return f"{early} runs with {FEWEST_EARLY} checkpoints in {EARLY:.0%} of the tokens"
    return ""


def _seen_early(swarm: Swarm) -> list[int]:
    """Runs with enough early checkpoints."""
    limit = EARLY * swarm.tokens
    return [i for i, c in enumerate(swarm.curves) if (c.tokens <= limit).sum() >= FEWEST_EARLY]


def _of_swarm(
    kind: str, swarm: Swarm, laws: Sequence[str], runs: Sequence[int], draws: int
) -> Iterator[Task]:
    """The task ``final`` or ``extrapolate``."""
    size = len(swarm.curves)
    able = np.arange(size) if kind == "final" else np.array(_seen_early(swarm))
    for n in sorted(set(runs)):
        if n > size - FEWEST_HELD_OUT or n > len(able):
            continue
        orders = [able[_order(swarm.name, n, draw, len(able))][:n] for draw in range(draws)]
        drawn = [_task(kind, swarm, order.tolist(), draw) for draw, order in enumerate(orders)]
        yield from _for_each_law(drawn, laws)


def _of_pair(pair: ScalePair, laws: Sequence[str], draws: int) -> Iterator[Task]:
    """The task ``scales``."""
    size = len(pair.big.curves)
    for m in BIG_RUNS:
        if m > size - FEWEST_BIG_LEFT:
            continue
        drawn = [
            _task("scales", pair.big, chosen, draw, pair)
            for draw, chosen in enumerate(_subsets(pair.name, size, m, draws))
        ]
        yield from _for_each_law(drawn, laws)


def _task(
    kind: str, swarm: Swarm, chosen: Indices, draw: int, pair: ScalePair | None = None
) -> Task:
    """A draw without a law."""
    rest = [i for i in range(len(swarm.curves)) if i not in set(chosen)]
    limit = EARLY * swarm.tokens if kind == "extrapolate" else swarm.tokens
    source = pair or swarm
    key = Result(source.name, source.digest, len(chosen), draw, "", kind, code_digest())
    final = swarm.final
    truth = final if swarm.truth is None else swarm.truth
    return Task(
        key,
        swarm.space,
        swarm.tokens,
        tuple(until(swarm.curves[i], limit) for i in chosen),
        swarm.proportions[rest],
        truth[rest],
        final[rest],
        pair.small.curves if pair else (),
    )


def _for_each_law(drawn: Sequence[Task], laws: Sequence[str]) -> Iterator[Task]:
    for law in laws:
        for task in drawn:
            small = task.small if law == WITH_SMALL else ()
            yield dataclasses.replace(task, key=dataclasses.replace(task.key, law=law), small=small)


def _order(swarm: str, n: int, draw: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A random order of the runs, which depends on nothing but the arguments."""
    return np.random.default_rng([n, draw, *swarm.encode()]).permutation(size)


def _subsets(name: str, size: int, m: int, draws: int) -> list[tuple[int, ...]]:
    """All subsets of m, or as many different ones as there are draws."""
    if comb(size, m) <= draws:
        return list(combinations(range(size), m))
    chosen: dict[tuple[int, ...], None] = {}
    attempt = 0
    while len(chosen) < draws:
        chosen[tuple(sorted(_order(name, m, attempt, size)[:m].tolist()))] = None
        attempt += 1
    return list(chosen)
