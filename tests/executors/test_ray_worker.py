"""The far side of the Ray executor is a plain class: its promises, without Ray."""

from __future__ import annotations

import threading

import pytest

from bimix_tune.errors import DivergedError, OutOfMemoryError
from bimix_tune.executors import Job
from bimix_tune.executors import ray_worker as module
from bimix_tune.executors.ray_worker import (
    Began,
    Down,
    Ended,
    Point,
    Printed,
    RayWorker,
    Returned,
    Up,
)
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint

MIXTURE = Mixture(["web"], [1.0])


class Gate:
    """Yields a checkpoint, waits for the gate, and yields another."""

    def __init__(self, error=None):
        self.gate, self.error, self.closed = threading.Event(), error, threading.Event()

    def run(self, mixture, seed):
        try:
            yield Checkpoint(1, {"web": 1.0})
            assert self.gate.wait(30)
            if self.error:
                raise self.error
            yield Checkpoint(2, {"web": 1.0})
        finally:
            self.closed.set()


@pytest.fixture(autouse=True)
def placed(monkeypatch):
    monkeypatch.setattr(module, "place", lambda: Up("host/1", "node"))


def read(worker, until, had=0):
    """All messages up to the first one of a type, or to a certain one, and what came with it."""
    messages = []
    for _ in range(10):
        messages += worker.news(had + len(messages), 10.0)
        if any(
            m == until if not isinstance(until, type) else isinstance(m, until) for m in messages
        ):
            return messages
    raise AssertionError(messages)


def test_messages_come_in_order_and_are_kept_until_they_are_confirmed():
    trainer = Gate()
    worker = RayWorker(trainer)
    worker.add(Job(7, MIXTURE, 0))
    trainer.gate.set()
    messages = read(worker, Ended)
    assert messages[:2] == [Up("host/1", "node"), Began(7)]
    assert [m.checkpoint.tokens for m in messages[2:-1]] == [1, 2]
    assert messages[-1] == Ended(7)
    assert worker.news(2, 0.0) == messages[2:]  # the first two are forgotten
    assert worker.news(2, 0.0) == messages[2:]  # the rest is told again
    assert worker.news(len(messages), 0.01) == []


def test_a_job_at_hand_follows_at_once_and_can_be_given_back():
    trainer = Gate()
    worker = RayWorker(trainer)
    for number in (1, 2, 3):
        worker.add(Job(number, MIXTURE, 0))
    before = read(worker, Point)
    worker.give_back(2)
    worker.give_back(1)  # too late: it has begun
    assert worker.news(len(before), 30.0) == [Returned(2)]
    trainer.gate.set()
    messages = read(worker, Ended(3), len(before) + 1)
    assert [m for m in messages if isinstance(m, Began)] == [Began(3)]


def test_stop_returns_a_job_at_hand_and_ends_the_one_under_way():
    trainer = Gate()
    worker = RayWorker(trainer)
    worker.add(Job(1, MIXTURE, 0))
    worker.add(Job(2, MIXTURE, 0))
    before = read(worker, Point)
    worker.stop(2)
    worker.stop(1)
    worker.stop(99)
    trainer.gate.set()
    after = read(worker, Ended, len(before))
    assert after[0] == Returned(2)
    assert after[-1] == Ended(1, stopped=True)
    assert trainer.closed.is_set()


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (DivergedError("nan"), False),
        (OutOfMemoryError("too large"), True),
        (OSError(28, "No space left on device"), True),
        (SystemExit(3), True),
    ],
)
def test_errors_travel_as_text_and_leave_the_worker_usable(error, retry):
    trainer = Gate(error)
    trainer.gate.set()
    worker = RayWorker(trainer)
    worker.add(Job(1, MIXTURE, 0))
    messages = read(worker, Ended)
    end = messages[-1]
    assert end.cause.startswith(type(error).__name__)
    assert (end.retry, end.stopped) == (retry, False)
    assert isinstance(messages[-2], Printed)
    assert messages[-2].text.startswith("Traceback")
    worker.add(Job(2, MIXTURE, 0))
    assert read(worker, Ended, len(messages))[-1].job_id == 2


def test_drain_waits_for_the_training_to_clean_up():
    trainer = Gate()
    worker = RayWorker(trainer)
    worker.add(Job(1, MIXTURE, 0))
    worker.add(Job(2, MIXTURE, 0))
    read(worker, Point)
    trainer.gate.set()
    worker.drain(30.0)
    assert trainer.closed.is_set()
    assert not any(isinstance(m, Began) and m.job_id == 2 for m in worker.news(0, 0.0))


def test_a_worker_that_cannot_get_its_corpus_says_why():
    class Source:
        def bring_to(self, trainer):
            raise OSError(28, "No space left on device")

    (message,) = read(RayWorker(Gate(), Source()), Down)
    assert message == Down("OSError: [Errno 28] No space left on device")


class Gates:
    """Two runs at once; each ends when its own gate, by seed, is open."""

    def __init__(self):
        self.gates = [threading.Event() for _ in range(4)]

    def at_once(self):
        return 2

    def run(self, mixture, seed):
        yield Checkpoint(1, {"web": 1.0})
        assert self.gates[seed].wait(30)
        if seed == 3:
            raise DivergedError("nan")
        yield Checkpoint(2, {"web": 1.0})


def test_as_many_run_at_once_as_the_trainer_wants():
    trainer = Gates()
    worker = RayWorker(trainer)
    for number in range(4):
        worker.add(Job(number, MIXTURE, number))
    messages = []
    while len([m for m in messages if isinstance(m, Began)]) < 2:
        messages += worker.news(len(messages), 10.0)
    assert messages[0] == Up("host/1", "node", room=2)
    began = {m.job_id: m.lane for m in messages if isinstance(m, Began)}
    assert sorted(began) == [0, 1] and sorted(began.values()) == [0, 1]
    trainer.gates[1].set()  # the second one ends first, and the third takes its place
    messages += read(worker, Ended(1), len(messages))
    messages += read(worker, Point, len(messages)) if Began(2, began[1]) not in messages else []
    worker.stop(0)
    worker.stop(3)
    trainer.gates[0].set()
    messages += read(worker, Ended, len(messages))
    assert [m for m in messages if isinstance(m, Returned)] == [Returned(3)]
    assert [m for m in messages if isinstance(m, Ended)] == [Ended(1), Ended(0, stopped=True)]
    trainer.gates[2].set()
    messages += read(worker, Ended(2), len(messages))
    worker.drain(30.0)


def test_an_error_of_one_leaves_the_other_at_work():
    trainer = Gates()
    worker = RayWorker(trainer)
    worker.add(Job(0, MIXTURE, 0))
    worker.add(Job(3, MIXTURE, 3))
    trainer.gates[3].set()
    messages = read(worker, Ended)
    assert messages[-1] == Ended(3, cause="DivergedError: nan")
    trainer.gates[0].set()
    assert read(worker, Ended, len(messages))[-1] == Ended(0)
