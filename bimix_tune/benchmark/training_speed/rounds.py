"""Contenders in turn: A B C, A B C, ... in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch

from bimix_tune.benchmark.training_speed.clock import settle
from bimix_tune.benchmark.training_speed.paced import Paced, Told
from bimix_tune.benchmark.training_speed.peak import kernels_of_step
from bimix_tune.training.device import now

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


def take_turns(
    contenders: Mapping[str, Callable[[Told], None]], rounds: int, steps: int, device: torch.device
) -> Timed:
    """Time trainings round by round.

    Args:
        contenders: Trainings by name, as `Paced` takes them.
        rounds: Rounds to time.
        steps: Steps of each contender in a round.
        device: Where they compute.
    """
    found = Timed(seconds={name: [] for name in contenders})
    with ExitStack() as stack:
        trainings = {n: stack.enter_context(Paced(train)) for n, train in contenders.items()}
        for name, training in trainings.items():
            found.first_step[name], found.warm[name] = _warm_up(training, steps, device)
        for _ in range(rounds):
            for name, training in trainings.items():
                began = now(device)
                training.advance(steps)
                found.seconds[name].append(now(device) - began)
        for name, training in trainings.items():
            kernels = kernels_of_step(training, device)
            if kernels is not None:
                found.kernels[name] = kernels
            found.losses[name] = [float(loss) for loss in training.losses]
    return found


def _warm_up(training: Paced, steps: int, device: torch.device) -> tuple[float, float]:
    """Wall seconds until the first step is done, and until the training runs at full speed.

    What is compiled meanwhile is compiled to the end, and used before the first round.
    """
    began = time.monotonic()
    training.advance(1)
    now(device)  # waits for a GPU
    first = time.monotonic() - began
    settle()
    for _ in range(WARM_UP):
        training.advance(steps)
    now(device)
    return first, time.monotonic() - began
