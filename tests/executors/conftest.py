"""Trainers that misbehave in each way an executor must survive.

They are defined inside functions, so that they travel to Ray workers by value: a worker cannot
import a test module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bimix_tune.mixture import Mixture


def make_trainer_class() -> type[Any]:
    import dataclasses
    import os
    import pathlib
    import threading
    import time

    from bimix_tune.errors import DivergedError
    from bimix_tune.training.base import Checkpoint

    @dataclasses.dataclass(frozen=True)
    class OddTrainer:
        """Five checkpoints with losses, and at the third one something happens.

        Args:
            log: A file that gets one line per start and per clean-up.
            odd: What happens.
            pause: Seconds before each checkpoint.
        """

        log: str = ""
        odd: str = ""
        pause: float = 0.0

        tokens = 5
        targets = ("web", "code")
        unit = "nats/token"

        def note(self, word: str) -> None:
            with pathlib.Path(self.log).open("a") as file:
                file.write(word + "\n")

        def run(self, mixture, seed):  # type: ignore[no-untyped-def]
            self.note("start")
            try:
                for tokens in range(1, self.tokens + 1):
                    time.sleep(self.pause)
                    if tokens == 3:
                        yield from self.happen()
                    losses = {"web": 3.0 - mixture["web"], "code": 3.0 + seed}
                    facts = {"pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS", "")}
                    yield Checkpoint(tokens, losses, notes=facts)
            finally:
                self.note("end")

        def happen(self):  # type: ignore[no-untyped-def]
            starts = pathlib.Path(self.log).read_text().count("start")
            if self.odd == "diverge":
                raise DivergedError("the loss of 'web' is nan\nat 3 tokens")
            if self.odd == "raise" or (self.odd == "raise once" and starts == 1):
                raise ZeroDivisionError("of the\ntrainer")
            if self.odd == "crash" or (self.odd == "crash once" and starts == 1):
                os._exit(3)
            if self.odd == "hang":
                threading.Event().wait()
            if self.odd == "nan":
                yield Checkpoint(3, {"web": float("nan"), "code": 1.0})
            while self.odd == "linger":  # signs of life for ever
                time.sleep(0.02)
                yield Checkpoint(2)

    return OddTrainer


@pytest.fixture
def odd_trainer(tmp_path) -> Callable[..., Any]:  # type: ignore[no-untyped-def]
    """Makes an `OddTrainer` whose log is a file of this test."""
    kind = make_trainer_class()
    log = tmp_path / "trainer.log"
    log.touch()
    return lambda odd="", pause=0.0: kind(str(log), odd, pause)


@pytest.fixture
def mixture() -> Mixture:
    return Mixture(["web", "code"], [0.75, 0.25])
