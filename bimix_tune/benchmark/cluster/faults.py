"""One long search on several Ray nodes in which everything goes wrong that can.

The nodes are processes of this machine (`ray.cluster_utils.Cluster`); trainings are simulated and
meet faults on cue (`FaultyTrainer`); a worker and a node are killed, and a node is added.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bimix_tune.benchmark.cluster.faulty import FAULTS, FaultyTrainer, place_cue, taken_cues
from bimix_tune.benchmark.cluster.kills import SPACE, TRAINER, soundness
from bimix_tune.benchmark.cluster.parts import Figure, told
from bimix_tune.loop import SearchState, search

HARMLESS_HERE = ("host memory",)
"""Not on a machine that others use: it would fill the memory of all."""


@contextlib.contextmanager
def cluster(nodes: int, cpus: int = 1) -> Iterator[Any]:
    """A head without slots and nodes with ``cpus`` each."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            found.add_node(num_cpus=cpus, object_store_memory=100_000_000)
        ray.init(address=found.address, log_to_driver=False)
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


class Trouble:
    """Does harm while a search goes on: a monitor.

    Args:
        nodes: The cluster.
        cues: Folder of the cues.
        every: Ended runs between two faults.
        say: Told of each.
    """

    def __init__(self, nodes: Any, cues: Path, every: int, say: Callable[[str], None]) -> None:
        self._nodes, self._cues, self._every, self._say = nodes, cues, every, say
        faults = [f for f in FAULTS if f not in HARMLESS_HERE]
        self._left = [*faults, "kill a node", "add a node", *faults]
        self.happened: list[str] = []

    def __call__(self, state: SearchState) -> None:
        due = state.done // self._every
        while self._left and len(self.happened) < due:
            fault = self._left.pop(0)
            self._say(f"{state.done} runs have ended: {fault}")
            if fault == "kill a node":
                workers = list(self._nodes.worker_nodes)
                self._nodes.remove_node(workers[0], allow_graceful=False)
            elif fault == "add a node":
                self._nodes.add_node(num_cpus=1, object_store_memory=100_000_000)
            else:
                place_cue(self._cues, fault)
            self.happened.append(fault)


def faults(
    folder: Path,
    runs: int = 200,
    nodes: int = 3,
    heartbeat: float = 10.0,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Figure]:
    """Search with all faults, and look at what is left of it.

    Args:
        folder: Run folder.
        runs: Of the search.
        nodes: At the beginning, with one slot each.
        heartbeat: Of the executor, seconds.
        say: Told of each fault.
    """
    from bimix_tune.executors.ray import RayExecutor

    cues = folder / "cues"
    cues.mkdir(parents=True, exist_ok=True)
    trainer = FaultyTrainer(cues=cues, checkpoints=TRAINER.checkpoints, sleep=0.1)
    began = time.monotonic()
    with cluster(nodes) as machines:
        trouble = Trouble(machines, cues, max(1, runs // 25), say)
        with RayExecutor(trainer, slots=nodes, heartbeat=heartbeat, retries=2) as executor:
            search(
                SPACE,
                trainer,
                folder=folder / "run",
                trials=runs,
                executor=executor,
                confirm_seeds=0,
                monitor=trouble,
            )
    yield told("faults", "seconds", time.monotonic() - began)
    yield told("faults", "faults placed", len(trouble.happened))
    yield told("faults", "cues that a training met", sum(map(len, taken_cues(cues).values())))
    yield from soundness("faults", folder / "run", runs)
