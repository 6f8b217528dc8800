"""Starting or joining a Ray cluster, quietly and within a bounded time.

Ray's own way to fail is slow (minutes of retries for a closed port) and loud, so the address
is probed first and every failure becomes one sentence that says how to mend it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bimix_tune.errors import ExecutorError, missing_extra
from bimix_tune.executors.base import one_line
from bimix_tune.executors.ray_security import HOW, on_loopback, warn_if_open
from bimix_tune.executors.ray_worker import RayWorker
from bimix_tune.training.base import Trainer

try:
    import ray as ray  # for `ray.py` too, so that a missing library has one message
except ImportError as error:
    raise missing_extra("ray", "ray", "the executor 'ray'") from error

_log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
OBJECT_STORE_BYTES = 200_000_000
"""Only trainers and checkpoints travel; Ray's default would claim 30 % of the memory."""


def connect(address: str | None, otherwise: str = "use `executor: local`") -> contextlib.ExitStack:
    """Make sure that this process is connected to Ray.

    Args:
        address: ``host:port`` of a running cluster, or ``"auto"`` for the one on this machine.
            None means the environment variable ``RAY_ADDRESS``, else a new cluster on this
            machine. A connection that this process already has is used as it is.
        otherwise: What a user can do without Ray, for the errors.

    Returns:
        What to close in the end: it shuts down a cluster that was started, or leaves one that
        was joined. Closing it does nothing if the process was connected before.

    Raises:
        ExecutorError: Ray cannot start, or there is no cluster at the address.
    """
    connection = contextlib.ExitStack()
    if ray.is_initialized():
        return connection
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if "://" in address:
        raise ExecutorError(
            f"address {address!r} is a Ray client address; run on a machine of the cluster "
            "with its host:port, or with 'auto'"
        )
    own = address == "local"
    if not own and address != "auto":
        _probe(address, otherwise)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if own:
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        with (
            _environment(RAY_USAGE_STATS_ENABLED="0"),
            on_loopback() if own else contextlib.nullcontext(),
        ):
            ray.init(address=address, **options)
    except Exception as error:
        what = "start on this machine" if own else f"connect to the cluster {address!r}"
        mend = "mend that" if own else f"check Ray's version and its token ({HOW})"
        raise ExecutorError(
            f"Ray cannot {what} ({one_line(error)}); {mend}, or {otherwise}"
        ) from error
    if not own:
        warn_if_open(ray.nodes())
    connection.enter_context(_hushed())
    connection.callback(ray.shutdown)  # before the notices are let through again
    return connection


@dataclass(frozen=True)
class WorkerRecipe:
    """How to start a worker.

    Args:
        kind: `RayWorker` as a Ray actor class.
        trainer: Reference to the trainer in Ray's object store.
        cpus: CPU cores that a worker reserves.
        gpus: GPUs (or a fraction of one) that it reserves.
    """

    kind: Any
    trainer: Any
    cpus: float
    gpus: float

    @classmethod
    def of(cls, trainer: Trainer, cpus: float | None, gpus: float | None) -> WorkerRecipe:
        """Send the trainer to the cluster and settle the size of a worker.

        Raises:
            ExecutorError: The trainer does not pickle, or a size is negative.
        """
        for name, value in (("cpus_per_slot", cpus), ("gpus_per_slot", gpus)):
            if value is not None and value < 0:
                raise ExecutorError(f"{name} must not be negative, but got {value!r}")
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU", 0) > 0 for node in _live_nodes()) else 0.0
        if cpus is None:
            cpus = 0.0 if gpus else 1.0
        try:
            reference = ray.put(trainer)
        except Exception as error:
            raise ExecutorError(
                f"the trainer {type(trainer).__name__} cannot be sent to a Ray worker "
                f"({one_line(error)}); it must be a small value that pickles"
            ) from error
        return cls(_actor_class(cpus, gpus), reference, cpus, gpus)

    def start(self) -> tuple[Any, Any]:
        """A new worker, and a reference that resolves once it is up."""
        actor = self.kind.remote(self.trainer)
        return actor, actor.ready.remote()

    def places(self) -> int:
        """How many such workers the live nodes hold when they are empty."""
        total = 0
        for node in _live_nodes():
            needs = [("CPU", self.cpus), ("GPU", self.gpus)]
            total += min((int(node.get(k, 0) / n + 1e-9) for k, n in needs if n), default=1)
        return total

    def __str__(self) -> str:
        nodes = [f"{n.get('CPU', 0):g} CPU + {n.get('GPU', 0):g} GPU" for n in _live_nodes()]
        return (
            f"a slot needs {self.cpus:g} CPU + {self.gpus:g} GPU, "
            f"the nodes of the cluster have {nodes}"
        )


def _actor_class(cpus: float, gpus: float) -> Any:
    """`RayWorker` as an actor; its methods of the group "control" run beside a training."""
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0}
    if not gpus:  # workers share the cores, so none may start a thread per core
        threads = str(max(1, int(cpus)))
        env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        options["runtime_env"] = {"env_vars": {**env, "OMP_WAIT_POLICY": "passive"}}
    return ray.remote(concurrency_groups={"control": 1}, **options)(RayWorker)


def _live_nodes() -> list[Mapping[str, float]]:
    """Resources of each live node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _probe(address: str, otherwise: str) -> None:
    """Fail fast where nothing listens."""
    host, _, port = address.rpartition(":")
    try:
        if not host or not port.isdigit():
            raise ExecutorError(f"the Ray address must be host:port or 'auto', but is {address!r}")
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    except OSError as error:
        raise ExecutorError(
            f"no Ray cluster answers at {address!r} ({one_line(error)}); start one with "
            f"`ray start --head`, correct the address, or {otherwise}"
        ) from error


@contextlib.contextmanager
def _environment(**defaults: str) -> Iterator[None]:
    """Environment variables for the processes started meanwhile; what the user set stays."""
    added = {k: v for k, v in defaults.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Send Ray's notices about dead workers to logging.

    Ray prints them to standard output whatever ``log_to_driver`` says, into live displays and
    piped results; `RayExecutor` reports the same facts as causes.
    """
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    loud = getattr(worker, "print_to_stdstream", None)

    def log_notice(data: Mapping[str, Any], **_: object) -> None:
        _log.debug("Ray: %s", " ".join(data.get("lines", ())))

    if loud is not None:
        worker.print_to_stdstream = log_notice
    try:
        yield
    finally:
        if loud is not None:
            worker.print_to_stdstream = loud
