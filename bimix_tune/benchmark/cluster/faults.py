"""One long search on several Ray nodes in which everything goes wrong that can.

The nodes are processes of this machine (`ray.cluster_utils.Cluster`); trainings are simulated and
meet faults on cue (`FaultyTrainer`). From outside nodes are killed and added, the driver is
killed, and the database is held by another program for a minute. A network that is cut between
two hosts needs network namespaces, thus root, and is left to a test of its own
(``tests/executors/test_nodes.py``); the fault "freeze" is what comes nearest to it here.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bimix_tune.benchmark.cluster.faulty import (
    FAULTS,
    HOST_MEMORY,
    MEMORY_LIMIT,
    FaultyTrainer,
    place_cue,
    taken_cues,
)
from bimix_tune.benchmark.cluster.kills import (
    SPACE,
    TRAINER,
    ended,
    log_of,
    soundness,
    start_driver,
)
from bimix_tune.benchmark.cluster.parts import Figure, holds, told
from bimix_tune.errors import ConfigError
from bimix_tune.loop import ledger, search
from bimix_tune.loop.outcome import load_study
from bimix_tune.training.memory import free_memory
from bimix_tune.training.torch_trainer import run_name

KILL_NODE, ADD_NODE = "kill a node", "add a node"
KILL_DRIVER, NO_DATABASE = "kill the driver", "database away"
ON_CUE = tuple(fault for fault in FAULTS if fault != HOST_MEMORY)
ORDER = (*ON_CUE, HOST_MEMORY, KILL_NODE, ADD_NODE, KILL_DRIVER, NO_DATABASE, *ON_CUE)
"""All faults; those of a training twice."""
MARKS = {
    "crash": "ActorDiedError",
    "raise": "ZeroDivisionError",
    "hang": "no sign of life of the training",
    "freeze": "no answer from",
    "diverge": "DivergedError: the loss is nan after",
    "nan": "became nan after",
    "gpu memory": "the proxy does not fit into memory",
    "disk": "No space left on device",
    "damaged state": "its checksum does not fit its content",
    HOST_MEMORY: "were killed due to the node running low on memory",
    KILL_DRIVER: ledger.LOST,
    NO_DATABASE: "the storage does not answer",
}
"""What faults leave on record, of the run that met one or else of any run or in the log."""
FILL = 11 * 2**28
"""Most bytes of memory that are filled, ..."""
ROOM = 8 * 2**28
"""... and how many more than now may be in use before Ray ends the worker that fills it."""
FILLS = 3
"""Times that this is tried: what other programs take meanwhile counts too."""
AWAY_SECONDS = 60.0
HUNG_SECONDS = 150.0
"""Of the executor; two faults import PyTorch, which may take a minute on a busy machine."""
SPREAD = 0.9
"""Share of the runs over which the faults are spread; some runs fail of them."""
LIMIT = 240.0
"""Seconds for a fault to have happened."""


@contextlib.contextmanager
def cluster(nodes: int, cpus: int = 1) -> Iterator[Any]:
    """A head without slots and nodes with ``cpus`` each; this process does not join them."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            add_node(found, cpus)
        yield found
    finally:
        found.shutdown()


def add_node(machines: Any, cpus: int = 1, environment: Mapping[str, str] | None = None) -> Any:
    """A node more, with environment variables of its own."""
    return machines.add_node(num_cpus=cpus, object_store_memory=100_000_000, env_vars=environment)


def drive(folder: str, cues: str, address: str, runs: int, heartbeat: float) -> None:
    """The driver of the search, to be killed."""
    from bimix_tune.executors.ray import RayExecutor

    trainer = FaultyTrainer(cues=cues, memory=FILL, checkpoints=TRAINER.checkpoints, sleep=1.0)
    with RayExecutor(
        trainer, address=address, heartbeat=heartbeat, progress_timeout=HUNG_SECONDS, retries=2
    ) as executor:
        search(SPACE, trainer, folder=folder, trials=runs, executor=executor, confirm_seeds=0)


class Trouble:
    """Does harm to a search that goes on in another process.

    Args:
        machines: The cluster.
        folder: Run folder.
        cues: Folder of the cues.
        driver: Starts a driver.
        say: Told of each fault.
    """

    def __init__(
        self,
        machines: Any,
        folder: Path,
        cues: Path,
        driver: Callable[[], subprocess.Popen[bytes]],
        say: Callable[[str], None],
    ) -> None:
        self._machines, self._folder, self._cues = machines, folder, cues
        self._start, self._say = driver, say
        self.driver = driver()
        self.happened: list[str] = []

    def go_on(self, runs: int) -> None:
        """Spread the faults over the runs of the search, until it ends.

        Raises:
            ConfigError: The driver ended by an error.
        """
        left, due = list(ORDER), 0
        while (code := self.driver.poll()) is None:
            if left and (done := len(ended(self._folder))) >= max(due, 1):
                self._say(f"{done} runs have ended: {left[0]}")
                self._do(left.pop(0))
                done = len(ended(self._folder))  # some take the time of many runs
                due = done + max(1, int(SPREAD * runs - done) // (len(left) + 1))
            time.sleep(1.0)
        if code:
            raise ConfigError(f"the driver ended by an error; see {log_of(self._folder)}")

    def _do(self, fault: str) -> None:
        if fault == KILL_NODE:
            self._machines.remove_node(next(iter(self._machines.worker_nodes)), False)
        elif fault == ADD_NODE:
            add_node(self._machines)
        elif fault == KILL_DRIVER:
            self.driver.kill()
            self.driver.wait()
            self.driver = self._start()
        elif fault == NO_DATABASE:
            with held(self._folder / "study.db"):
                time.sleep(AWAY_SECONDS)
        elif fault == HOST_MEMORY:
            self._fill_memory()
        else:
            place_cue(self._cues, fault)
        self.happened.append(fault)

    def _fill_memory(self) -> None:
        """Add a node that may use little more memory than is in use, and let it be filled.

        The other nodes are not watched by that limit: all are on this machine, so each of them
        would end a worker of its own.
        """
        cue = place_cue(self._cues, HOST_MEMORY)
        for _ in range(FILLS):
            node = add_node(self._machines, environment={MEMORY_LIMIT: memory_limit()})
            until = time.monotonic() + LIMIT / FILLS
            while cue.exists() and time.monotonic() < until and self._going_on():
                time.sleep(0.5)
            while not cue.exists() and time.monotonic() < until + LIMIT and self._going_on():
                if left_its_mark(HOST_MEMORY, self._folder, self._cues):
                    break
                time.sleep(1.0)
            self._machines.remove_node(node, False)
            if not cue.exists():
                return

    def _going_on(self) -> bool:
        return self.driver.poll() is None


def memory_limit() -> str:
    """Share of this machine's memory that is in use, as Ray counts it, and `ROOM` more."""
    from ray._private.utils import get_system_memory, get_used_memory

    return str(round(min((get_used_memory() + ROOM) / get_system_memory(), 0.9), 4))


@contextlib.contextmanager
def held(database: Path) -> Iterator[None]:
    """Let nobody else read or write an SQLite file."""
    with contextlib.closing(sqlite3.connect(database, timeout=LIMIT)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.rollback()


def on_record(folder: Path) -> dict[str, str]:
    """What is on record of each run: states, causes and its log, by `run_name`."""
    study, space = load_study(folder)
    found: defaultdict[str, str] = defaultdict(str)
    for trial in study.trials:
        run, log = ledger.record_of(trial, space), folder / "logs" / f"run-{trial.number:04d}.log"
        if run.mixture is not None:
            told = log.read_text(encoding="utf-8") if log.exists() else ""
            found[run_name(run.mixture, run.seed)] += "\n".join(
                (run.state, *run.retries, run.cause, told)
            )
    return found


def left_its_mark(fault: str, folder: Path, cues: Path) -> bool:
    """Whether a fault is on record.

    One that a training met need not be where the training had been told to stop anyway.
    """
    runs = on_record(folder)
    if fault in FAULTS:
        texts = [runs[run] for run, met in taken_cues(cues).items() if fault in met]
        return any(MARKS[fault] in text or "PRUNED" in text for text in texts)
    log = (folder / "log.jsonl").read_text(encoding="utf-8")
    return any(MARKS[fault] in text for text in (log, *runs.values()))


def faults(
    folder: Path,
    runs: int = 200,
    nodes: int = 3,
    heartbeat: float = 30.0,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Figure]:
    """Search with all faults, and look at what is left of it.

    Args:
        folder: For the run folder and the cues.
        runs: Of the search; a few more than faults in `ORDER`.
        nodes: At the beginning, with one slot each.
        heartbeat: Of the executor, seconds; PyTorch's import alone may keep a worker from
            answering for ten on a busy machine.
        say: Told of each fault.

    Raises:
        ConfigError: This machine has too little free memory for some of it to be filled, or the
            driver failed.
    """
    free = free_memory()
    if free is not None and free < 3 * FILL:
        raise ConfigError(
            f"the part `faults` fills {FILL / 1e9:.1f} GB of memory, so {3 * FILL / 1e9:.1f} GB "
            f"must be free, but there are {free / 1e9:.1f} GB: end other programs first"
        )
    run, cues = folder / "run", folder / "cues"
    began = time.monotonic()
    with cluster(nodes) as machines:

        def driver() -> subprocess.Popen[bytes]:
            return start_driver(__name__, run, str(cues), machines.address, runs, heartbeat)

        trouble = Trouble(machines, run, cues, driver, say)
        try:
            trouble.go_on(runs)
        finally:
            trouble.driver.kill()
    met = Counter(fault for names in taken_cues(cues).values() for fault in names)
    yield told("faults", "seconds", time.monotonic() - began)
    placed = len(trouble.happened)
    yield Figure("faults", "faults placed", placed, f"= {len(ORDER)}", placed == len(ORDER))
    yield told("faults", "cues that a training met", met.total())
    for fault in MARKS:
        yield holds("faults", f"{fault}: on record", left_its_mark(fault, run, cues))
    yield from soundness("faults", run, runs)
