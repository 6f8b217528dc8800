"""Contenders in turn: A B C, A B C, ..."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from bimix_tune.benchmark.training_speed.clock import settle

WARM_UP = 2
"""Rounds before the first one that counts."""


@dataclass
class Timed:
    """What `take_turns` finds, by contender; see `record.Speed`."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, list[float]] = field(default_factory=dict)
    first_step: dict[str, float] = field(default_factory=dict)
    warm: dict[str, float] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)


def steps_needed(rounds: int, steps: int) -> int:
    """Steps that a contender takes in all: in rounds, before them, and under the profiler."""
    return 1 + (WARM_UP + rounds) * steps + 1


class Turns(Protocol):
    """A training that takes its turns: `Paced` in this process, `Apart` in another one."""

    def advance(self, steps: int) -> float:
        """Take so many steps; answers how many seconds they took."""

    def kernels(self) -> int | None:
        """Kernels that a GPU runs in a step, which is taken."""

    def told(self) -> list[float]:
        """The losses of all steps so far."""


def take_turns(
    contenders: Mapping[str, AbstractContextManager[Turns]], rounds: int, steps: int
) -> Timed:
    """Time trainings round by round.

    Args:
        contenders: Trainings by name.
        rounds: Rounds to time.
        steps: Steps of each contender in a round.
    """
    found = Timed(seconds={name: [] for name in contenders})
    with ExitStack() as stack:
        trainings = {name: stack.enter_context(one) for name, one in contenders.items()}
        for name, training in trainings.items():
            found.first_step[name], found.warm[name] = _warm_up(training, steps)
        for _ in range(rounds):
            for name, training in trainings.items():
                found.seconds[name].append(training.advance(steps))
        for name, training in trainings.items():
            kernels = training.kernels()
            if kernels is not None:
                found.kernels[name] = kernels
            found.losses[name] = training.told()
    return found


def _warm_up(training: Turns, steps: int) -> tuple[float, float]:
    """Wall seconds until the first step is done, and until the training runs at full speed.

    What is compiled meanwhile is compiled to the end, and used before the first round.
    """
    began = time.monotonic()
    training.advance(1)
    first = time.monotonic() - began
    settle()
    for _ in range(WARM_UP):
        training.advance(steps)
    return first, time.monotonic() - began
