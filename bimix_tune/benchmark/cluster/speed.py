"""How busy a driver with the sampler in the loop keeps its slots.

Trainings are simulated (`SimulatedExecutor`) and time is the driver's own (`DriverTime`), so that
the figures are of the driver and not of what else the machine does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bimix_tune.benchmark.cluster.parts import Figure, at_least, at_most, told
from bimix_tune.benchmark.cluster.simulated import DriverTime, SimulatedExecutor
from bimix_tune.loop import SearchState, search
from bimix_tune.space import SearchSpace
from bimix_tune.training.synthetic import SyntheticTrainer


@dataclass(frozen=True)
class Speed:
    """One search.

    Args:
        seconds: From the first start of a run to the last end.
        utilisation: Share of that time that slots were busy, mean over slots.
        median_wait: Seconds that a slot waited for its next job, median.
        longest_wait: The longest.
    """

    seconds: float
    utilisation: float
    median_wait: float
    longest_wait: float


def measure(runs: int, slots: int, seconds: float, checkpoints: int = 1) -> Speed:
    """Search on simulated slots, with a monitor as the command line has one."""
    clock = DriverTime()
    trainer = SyntheticTrainer(checkpoints=checkpoints)
    states: list[SearchState] = []
    with tempfile.TemporaryDirectory() as folder, clock.everywhere():
        executor = SimulatedExecutor(trainer, slots, seconds)
        search(
            SearchSpace(trainer.domains),
            trainer,
            folder=Path(folder) / "run",
            trials=runs,
            executor=executor,
            confirm_seeds=0,
            monitor=lambda state: states.__setitem__(slice(None), [state]),
        )
    took = executor.last - executor.first
    waits = np.array([wait for use in executor.use for wait in use.waits] or [0.0])
    busy = sum(use.busy for use in executor.use)
    return Speed(took, busy / (slots * took), float(np.median(waits)), float(waits.max()))


def small() -> Iterator[Figure]:
    """40 runs of 0.2 s on 2 slots, 4 s at best."""
    found = measure(40, 2, 0.2)
    yield at_most("small", "seconds for 40 runs of 0.2 s on 2 slots", found.seconds, 4.3)
    yield told("small", "median wait of a slot, ms", 1e3 * found.median_wait)


def throughput(runs: int = 1000) -> Iterator[Figure]:
    """Runs of 0.05 s on 8 slots."""
    found = measure(runs, 8, 0.05)
    name = f"utilisation, {runs:,} runs of 0.05 s on 8 slots"
    yield at_least("throughput", name, found.utilisation, 0.9)
    yield at_most("throughput", "median wait of a slot, ms", 1e3 * found.median_wait, 50)
    yield told("throughput", "longest wait of a slot, ms", 1e3 * found.longest_wait)


def scaling(seconds: float = 1.0, each: int = 12) -> Iterator[Figure]:
    """2 to 64 slots, ``each`` runs on every slot."""
    rates = {}
    for slots in (2, 8, 64):
        found = measure(each * slots, slots, seconds)
        rates[slots] = each * slots / found.seconds
        yield told("scaling", f"runs of {seconds:g} s per second on {slots} slots", rates[slots])
    linear = rates[64] / (32 * rates[2])
    yield at_least("scaling", "64 slots, share of linear from 2", linear, 0.9)
