"""The contract between the search and the machinery that runs trainings.

An `Executor` owns a number of slots. The search submits jobs, reads events, and may stop a
job; it never blocks on one. Executors know trainers, not laws or Optuna.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint


@dataclass(frozen=True)
class Job:
    """One training to run: ``trainer.run(mixture, seed)``."""

    id: int
    mixture: Mixture
    seed: int


@dataclass(frozen=True)
class Started:
    """A job began on a slot; it is told again each time that a job is tried again.

    Args:
        job_id: Which job.
        slot: Where, ``"host/pid"`` or ``"host/gpu0/pid"``; ``"local"`` in this process. A
            worker that takes another's place has another name.
    """

    job_id: int
    slot: str


@dataclass(frozen=True)
class Progress:
    """A job went on; ``checkpoint.losses`` is empty for a mere sign of life."""

    job_id: int
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Output:
    """A job printed or logged something, or this is the traceback of its error."""

    job_id: int
    text: str


@dataclass(frozen=True)
class Retried:
    """A job broke off and waits to be tried again.

    Args:
        job_id: Which job.
        cause: As in `Failed`.
    """

    job_id: int
    cause: str


@dataclass(frozen=True)
class Finished:
    """A job ended in order: complete, or stopped on request (``stopped``)."""

    job_id: int
    stopped: bool = False


@dataclass(frozen=True)
class Failed:
    """A job ended by an error, after the executor's own retries.

    Args:
        job_id: Which job.
        cause: One line for the user, with the type of the error.
    """

    job_id: int
    cause: str


Event = Started | Progress | Output | Retried | Finished | Failed


class Executor(Protocol):
    """Runs jobs on its slots.

    Contract:
        - `submit` never blocks; jobs beyond `slots` wait in order of submission. A few more
          than `slots` save a slot from waiting while the next one is thought out. All jobs are
          trainings of one trainer, thus of one length, so this order is longest-first too; one
          that is tried again and may have less to go comes first, for it has waited longest.
        - Each job yields `Started`, any number of `Progress` and `Output`, and then exactly
          one `Finished` or `Failed`. A job that is tried again yields `Retried`, then `Started`
          again, and its progress from where the trainer takes it up; one that is stopped while
          it waits never starts.
        - `stop` of an unknown or ended job does nothing.
        - `close` ends all jobs without events, can be called twice, and is called on leaving
          a ``with`` block.
    """

    @property
    def slots(self) -> int:
        """How many jobs run at once, now; may change at any time, and is never 0."""

    def submit(self, job: Job) -> None:
        """Queue a job."""

    def events(self, timeout: float) -> list[Event]:
        """Events since the last call; waits up to ``timeout`` seconds for the first one."""

    def stop(self, job_id: int) -> None:
        """Ask a job to end early; `Finished` with ``stopped=True`` follows."""

    def close(self) -> None:
        """End everything."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *exc: object) -> None: ...
