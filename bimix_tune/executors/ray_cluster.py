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
from typing import Any

from bimix_tune.errors import ExecutorError, missing_extra, one_line
from bimix_tune.executors.ray_security import HOW, on_loopback, warn_if_open

try:
    import ray as ray  # for the other modules too, so that a missing library has one message
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
