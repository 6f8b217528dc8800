"""A training that goes on for some steps, waits while others have their turn, and goes on.

Trainers own their loops, so each gets a thread; but only one of all threads runs at any time, so
that the processor time of the process is the time of the one whose turn it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

from bimix_tune.errors import TrainingError
from bimix_tune.training.device import now

Told = Callable[[Any], None]
"""Takes the mean loss of a step, a tensor that may still be under way on a GPU."""


class _Stopped(BaseException):
    """Unwinds a training that is no longer wanted; nobody catches it by accident."""


class Paced:
    """A training, some steps at a time; use as a context manager.

    Args:
        train: Trains, and calls what it is given after each optimiser step.
        device: Where it computes.

    Attributes:
        losses: Of all steps so far.
    """

    def __init__(self, train: Callable[[Told], None], device: torch.device) -> None:
        self.losses: list[Any] = []
        self._train, self._device = train, device
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._left = 0
        self._stopping = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def advance(self, steps: int) -> float:
        """Take so many steps; the first call begins the training.

        Returns:
            Seconds that they took, see `bimix_tune.training.device.now`.

        Raises:
            TrainingError: The training is over before that; whatever else it raises.
        """
        began = now(self._device)
        if self._thread.ident is None:
            self._thread.start()
        self._left = steps
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        return now(self._device) - began

    def kernels(self) -> int | None:
        """Kernels that a GPU runs in a step, which is taken; see `peak.kernels_of_step`."""
        from bimix_tune.benchmark.training_speed.peak import kernels_of_step

        return kernels_of_step(self, self._device)

    def told(self) -> list[float]:
        """The losses as numbers."""
        return [float(loss) for loss in self.losses]

    def __enter__(self) -> Paced:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._go.release()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            self._train(self._told)
            self._error = TrainingError(f"the training was over after {len(self.losses)} steps")
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where `advance` was called
            self._error = error
        finally:
            self._back.release()

    def _told(self, loss: Any) -> None:
        self.losses.append(loss)
        self._left -= 1
        if self._left == 0:
            self._back.release()
            self._go.acquire()
        if self._stopping:
            raise _Stopped
