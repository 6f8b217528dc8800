"""Record a swarm: train many mixtures to the end and keep all checkpoints.

The design is of two halves: *dense* mixtures, Dirichlet draws around the natural and the uniform
one, and *sparse* ones, Dirichlet draws over a random part of the domains, which say what a law
needs to know about a domain left out. Some mixtures are repeated with more seeds: what they
scatter is the noise that no strategy can see through.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bimix_tune.benchmark.results import append_result, drop_torn_line
from bimix_tune.curves import LossCurve, read_curves
from bimix_tune.errors import ConfigError, ExecutorError
from bimix_tune.executors.base import Executor, Failed, Finished, Job, Progress
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import dirichlet
from bimix_tune.space import SearchSpace
from bimix_tune.training.base import Checkpoint, Trainer

STRENGTHS = (0.7, 1.5, 4.0)
"""Dirichlet parameters per domain: rough, about flat, and near the centre."""
DIGITS = 6
"""Proportions are rounded, so that a file of them is read back to the very same mixtures."""


def swarm_design(space: SearchSpace, mixtures: int, seed: int = 0) -> list[Mixture]:
    """Different mixtures that fill a space: natural, uniform, then sparse and dense in turn.

    Args:
        space: The bounds.
        mixtures: How many.
        seed: Of the random draws.
    """
    rng = np.random.default_rng(seed)
    k = len(space.names)
    centres = [space.array(space.natural()), np.full(k, 1 / k)]
    found = {space.natural(): None, space.uniform(): None}
    while len(found) < mixtures:
        turn = len(found)
        if turn % 2:
            kept = rng.permutation(k)[: rng.integers(1, k)]
            centre = np.zeros(k)
            centre[kept] = 1 / len(kept)
            high = np.where(centre > 0, space.high, space.low)
            drawn = dirichlet(rng, centre, len(kept), space.low, high, 1)[0]
        else:
            strength = STRENGTHS[turn // 2 % len(STRENGTHS)]
            centre = centres[turn // 2 // len(STRENGTHS) % len(centres)]
            drawn = dirichlet(rng, centre, strength * k, space.low, space.high, 1)[0]
        found[space.fit_in(np.round(drawn, DIGITS) / np.round(drawn, DIGITS).sum())] = None
    return list(found)[:mixtures]


def record_swarm(
    space: SearchSpace,
    trainer: Trainer,
    executor: Executor,
    path: str | Path,
    *,
    mixtures: int = 128,
    repeated: int = 16,
    seeds: int = 3,
    scale: str = "",
    monitor: Callable[[int, int], None] | None = None,
) -> list[LossCurve]:
    """Train a swarm, or what an earlier call left of it, into a file of curves.

    Args:
        space: The mixtures allowed.
        trainer: The recipe of one run.
        executor: Where runs happen; it runs this trainer.
        path: JSON lines of `LossCurve`; a curve is added when its run ends.
        mixtures: How many mixtures, see `swarm_design`.
        repeated: How many of them, spread over the design, are trained with all seeds.
        seeds: Number of seeds of those, from 0; the others have seed 0.
        scale: Label of the model size.
        monitor: Called with the numbers of finished and of all runs.

    Returns:
        All curves of the swarm at hand, in the order of the design.

    Raises:
        ConfigError: A number is out of range.
        ExecutorError: A run failed; those that ended are kept.
    """
    if not mixtures >= 2 or not 0 <= repeated <= mixtures or seeds < 1:
        raise ConfigError(
            "a swarm needs mixtures >= 2, 0 <= repeated <= mixtures and seeds >= 1, but got "
            f"mixtures={mixtures}, repeated={repeated}, seeds={seeds}"
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    design = swarm_design(space, mixtures)
    again = set(np.linspace(0, mixtures - 1, repeated).round().astype(int).tolist())
    wanted = [(i, s) for i in range(mixtures) for s in range(seeds if i in again else 1)]
    drop_torn_line(path)
    done = {c.run: c for c in read_curves(path)} if path.exists() and path.stat().st_size else {}
    todo = {n: w for n, w in enumerate(wanted) if _name(*w) not in done}
    for number, (index, seed) in todo.items():
        executor.submit(Job(number, design[index], seed))
    points: dict[int, list[Checkpoint]] = {number: [] for number in todo}
    while points:
        for event in executor.events(0.5):
            if isinstance(event, Progress) and event.checkpoint.losses:
                if points[event.job_id] and not _later(event.checkpoint, points[event.job_id]):
                    points[event.job_id].clear()  # the run was begun again
                points[event.job_id].append(event.checkpoint)
            elif isinstance(event, Failed):
                raise ExecutorError(f"run {_name(*todo[event.job_id])} failed: {event.cause}")
            elif isinstance(event, Finished):
                index, seed = todo[event.job_id]
                seen = points.pop(event.job_id)
                name = _name(index, seed)
                done[name] = _curve(name, design[index], seed, seen, space, trainer.unit, scale)
                append_result(path, done[name])
                if monitor is not None:
                    monitor(len(wanted) - len(points), len(wanted))
    return [done[_name(*w)] for w in wanted]


def _name(index: int, seed: int) -> str:
    return f"{index:04d}-{seed}"


def _later(checkpoint: Checkpoint, seen: list[Checkpoint]) -> bool:
    return checkpoint.tokens > seen[-1].tokens


def _curve(
    name: str,
    mixture: Mixture,
    seed: int,
    seen: list[Checkpoint],
    space: SearchSpace,
    unit: str,
    scale: str,
) -> LossCurve:
    return LossCurve(
        mixture,
        [c.tokens for c in seen],
        [[round(c.losses[t], DIGITS) for t in space.target_names] for c in seen],
        space.target_names,
        [c.decayed for c in seen],
        seed=seed,
        unit=unit,
        scale=scale,
        run=name,
    )
