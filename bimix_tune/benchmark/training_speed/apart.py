"""A contender in a process of its own, so that it finds memory as it left it itself.

In one process an allocator that has served large arrays to one training serves another better: a
Trainer was a fifth faster after a case with a vocabulary of 50k than before it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from bimix_tune.benchmark.training_speed.paced import Paced, Told
from bimix_tune.errors import BimixError, TrainingError, one_line
from bimix_tune.training.device import HUGE_PAGES, memory_errors, one_thread
from bimix_tune.training.group import Failure

Contender = Callable[[], Callable[[Told], None]]
"""Makes a training as `Paced` takes it; must pickle."""


class Apart:
    """`Paced` in another process; use as a context manager.

    Args:
        contender: What it trains.
        device: Where.
    """

    def __init__(self, contender: Contender, device: torch.device) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        arguments = (there, contender, str(device))
        # No daemon: that could not have the workers of the Trainer's data loader.
        self._process = context.Process(target=_serve, args=arguments)
        self._there = there

    def advance(self, steps: int) -> float:
        """See `Paced.advance`."""
        return float(self._ask("advance", steps))

    def kernels(self) -> int | None:
        """See `Paced.kernels`."""
        found: int | None = self._ask("kernels")
        return found

    def told(self) -> list[float]:
        """See `Paced.told`."""
        return list(self._ask("told"))

    def __enter__(self) -> Apart:
        with _without(HUGE_PAGES):  # the lean trainer asks for them itself
            self._process.start()
        self._there.close()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.close()
        self._process.join()

    def _ask(self, *words: Any) -> Any:
        try:
            self._pipe.send(words)
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise TrainingError("the process of a training died") from error
        if isinstance(answer, Failure):
            raise answer.error()
        return answer


@contextmanager
def _without(variable: str) -> Iterator[None]:
    """The environment without a variable."""
    before = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[variable] = before


def _serve(pipe: Connection, contender: Contender, device_name: str) -> None:
    """Do what is asked for, until nobody asks any more."""
    device = torch.device(device_name)
    with one_thread(device), Paced(contender(), device) as training:
        while True:
            try:
                method, *arguments = pipe.recv()
            except EOFError:
                return
            try:
                with memory_errors("a training of this case"):
                    answer: Any = getattr(training, method)(*arguments)
            except BimixError as error:
                answer = Failure.of(error)
            except Exception as error:  # noqa: BLE001 - not every exception pickles
                answer = Failure.of(TrainingError(one_line(error)))
            pipe.send(answer)
