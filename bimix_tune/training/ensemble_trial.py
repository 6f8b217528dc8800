"""Whether proxies are faster together, found by trying both on the model and device themselves.

On a CPU core (Zen 4, bfloat16 products, sequences of 128 tokens) eager steps of K proxies together
were so many times as fast as one after the other:

=====  ==========  =============  ===  =====
 size  vocabulary  tokens a step    K   gain
=====  ==========  =============  ===  =====
 0.1M         256            512    2   1.01
 0.1M         256            512    4   1.23
 0.1M         256            512    8   1.32
 0.1M        2048            512    8   1.23
 0.1M         256           2048    8   0.92
 0.4M         256           1024    8   0.92
   1M        2048           2048    4   0.90
=====  ==========  =============  ===  =====

Trainings with a compiled step, of the first kind: eight together 1.32 times, four 1.17 times.
"""

from __future__ import annotations

import dataclasses
import statistics
import threading
from collections.abc import Callable, Sequence

import torch

from bimix_tune.errors import OutOfMemoryError
from bimix_tune.training.compile_ahead import Compilation, outcome
from bimix_tune.training.compiled import SwitchingLoss
from bimix_tune.training.device import memory_errors, now, one_thread
from bimix_tune.training.ensemble import (
    WORTH,
    Answer,
    Answered,
    Call,
    Ensemble,
    Seconds,
    gradients,
)
from bimix_tune.training.evaluate import Loss
from bimix_tune.training.model import Llama
from bimix_tune.training.schedule import Steps
from bimix_tune.training.step import Proxy, Stepper

TRIALS = 20
"""Steps of each kind that are timed."""

_ensembles: dict[tuple[Compilation, str, str], tuple[Ensemble, SwitchingLoss | None]] = {}
_making = threading.Lock()


def ensemble_of(
    unit: Compilation, device: torch.device, when: str, calls: int, memory: Callable[[], object]
) -> Ensemble:
    """The ensemble of this process for proxies of one form; the first call times it.

    Args:
        unit: The pass of all members.
        device: Where.
        when: Whether to compile, see `SwitchingLoss`.
        calls: Passes of a run that is about to begin.
        memory: Raises `OutOfMemoryError` where so many members do not fit.
    """
    with _making:
        key = (unit, str(device), when)
        if key not in _ensembles:
            _ensembles[key] = _made(unit, device, when, memory)
        ensemble, loss = _ensembles[key]
        if loss is not None:
            loss.expect(calls)
        return ensemble


def _made(
    unit: Compilation, device: torch.device, when: str, memory: Callable[[], object]
) -> tuple[Ensemble, SwitchingLoss | None]:
    try:
        memory()
        with memory_errors(f"an ensemble of {unit.members}"), one_thread(device):
            module = unit.module(device)
            seconds = measured(unit, device, when)
    except OutOfMemoryError as error:
        return Ensemble(lambda _: [], unit.members, None, f"one at a time, {error}"), None
    loss = SwitchingLoss(module, when, 0, {})
    gain = seconds.gain(unit.members)
    verdict = f"{unit.members} at once, {gain:.2f} times as fast as one at a time"
    if gain < WORTH:
        verdict = f"one at a time, {unit.members} at once would be {gain:.2f} times as fast"
    return Ensemble(lambda c: gradients(module, loss, c), unit.members, seconds, verdict), loss


def measured(unit: Compilation, device: torch.device, when: str) -> Seconds:
    """Time a step of all members by turns, together and one after the other, in one form.

    That is compiled where ``when`` says always, or where both are compiled on this machine
    already, and else eager: an eager pass against a compiled one would tell of the compiler.
    """
    single = dataclasses.replace(unit, members=1)
    done = when == "auto" and compiled(unit) and compiled(single)
    form = "always" if when == "always" or done else "never"
    stacked = unit.module(device)
    joint = SwitchingLoss(stacked, form, 0, {})
    modules = [single.module(device) for _ in range(unit.members)]
    for seed, module in enumerate(modules):
        module.initialise(torch.Generator(device).manual_seed(seed))
    alone = _stepper(unit, modules[0], SwitchingLoss(modules[0], form, 0, {}), device)
    size, generator = (unit.batch, unit.length + 1), torch.Generator().manual_seed(0)
    rows = torch.randint(unit.vocabulary, size, generator=generator).to(device)
    inputs, labels = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    calls = [Call(tuple(module.parameters()), inputs, labels) for module in modules]
    answers: list[Answer] = []

    def answered(at: int) -> Loss:
        return lambda inputs, labels: Answered.apply(*answers[at], *calls[at].parameters)

    steppers = [_stepper(unit, m, answered(at), device) for at, m in enumerate(modules)]

    def together() -> None:
        answers[:] = gradients(stacked, joint, calls)
        for step in steppers:
            step(0, rows)

    def one_by_one() -> None:
        for _ in calls:
            alone(0, rows)

    pass_of_all, all_passes = _medians((together, one_by_one), device)
    return Seconds(all_passes / unit.members, pass_of_all)


def _stepper(unit: Compilation, module: Llama, loss: Loss, device: torch.device) -> Stepper:
    """Makes optimiser steps of one pass each, at a rate that hardly moves the weights."""
    steps = Steps(10**9, unit.length, unit.batch)
    return Stepper(Proxy(module, loss, device, unit.batch, {}), steps, 1e-3)


def _medians(works: Sequence[Callable[[], None]], device: torch.device) -> list[float]:
    """Median seconds of each, by turns; what comes first in a process does not count."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(1 + TRIALS):
        for work, seconds in zip(works, times, strict=True):
            began = now(device)
            work()
            seconds.append(now(device) - began)
    return [statistics.median(seconds[1:]) for seconds in times]


def compiled(unit: Compilation) -> bool:
    """Whether this machine has compiled it."""
    result = outcome(unit)
    return result is not None and result["error"] is None
