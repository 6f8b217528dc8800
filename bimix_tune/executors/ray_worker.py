"""The far side of `RayExecutor`: one process that runs trainings, one at a time.

A worker is a plain class that becomes a Ray actor in `ray.py`. `RayWorker.run` streams what
the trainer yields; `RayWorker.stop` is served by a second thread, so it takes effect between
two yields. Errors of the trainer travel as text, because not every exception unpickles.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from bimix_tune.errors import BimixError
from bimix_tune.executors.base import one_line
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint, Trainer

SIGN_OF_LIFE_SECONDS = 1.0
"""Checkpoints without losses are forwarded at most this often."""


@dataclass(frozen=True)
class Ended:
    """The last message of a job.

    Args:
        stopped: It was asked to end early.
        cause: The error of the trainer in one line, or None if there was none.
        retry: Whether another try may help: not after an error the trainer itself explains.
        trace: The traceback behind ``cause``.
    """

    stopped: bool = False
    cause: str | None = None
    retry: bool = False
    trace: str = ""


Message = Checkpoint | Ended


class RayWorker:
    """Runs trainings of one trainer.

    Args:
        trainer: What every job runs.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._stopped: set[int] = set()
        self._draining = False
        self._idle = threading.Event()
        self._idle.set()

    def ready(self) -> str:
        """Host and process: the answer proves that the worker is placed."""
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return "/".join([socket.gethostname(), *([f"gpu{gpus}"] if gpus else []), str(os.getpid())])

    def stop(self, job_id: int) -> None:
        """Let a job end after its next yield."""
        self._stopped.add(job_id)

    def drain(self, seconds: float) -> None:
        """Let the current job, if any, end after its next yield, and wait for that."""
        self._draining = True
        self._idle.wait(seconds)

    def run(self, job_id: int, mixture: Mixture, seed: int) -> Iterator[Message]:
        """Train, yielding checkpoints and then one `Ended`."""
        try:
            yield from self._checkpoints(job_id, mixture, seed)
        except BimixError as error:
            yield Ended(cause=one_line(error), trace=traceback.format_exc())
        except Exception as error:  # noqa: BLE001 - a trainer may raise anything
            yield Ended(cause=one_line(error), retry=True, trace=traceback.format_exc())
        else:
            yield Ended(stopped=job_id in self._stopped)

    def _checkpoints(self, job_id: int, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """What the trainer yields, with signs of life thinned out, until a stop."""
        told = float("-inf")
        self._idle.clear()
        training = iter(self._trainer.run(mixture, seed))
        try:
            for checkpoint in training:
                now = time.monotonic()
                if checkpoint.losses or now - told >= SIGN_OF_LIFE_SECONDS:
                    told = now
                    yield checkpoint
                if self._draining or job_id in self._stopped:
                    return
        finally:
            close = getattr(training, "close", None)
            if close is not None:
                close()
            self._idle.set()
