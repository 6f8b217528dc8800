"""Every executor keeps the promises of `bimix_tune.executors.base.Executor`."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from bimix_tune.errors import ExecutorError
from bimix_tune.executors import EXECUTORS, Failed, Finished, Job, Progress, Started, executor_class


@pytest.fixture(params=sorted(EXECUTORS))
def start(request):
    """Starts an executor with one slot, and closes it in the end."""
    name = request.param
    options = {}
    if name == "ray":
        request.getfixturevalue("ray_cluster")
        options = {"slots": 1, "retries": 0}
    opened = []

    def make(trainer):
        opened.append(executor_class(name)(trainer, **options))
        return opened[-1]

    yield make
    for executor in opened:
        executor.close()


ENDS = Finished | Failed


def until_done(executor, count, limit=120.0):
    """All events until ``count`` jobs have ended."""
    events = []
    end = time.monotonic() + limit
    while sum(isinstance(e, ENDS) for e in events) < count:
        assert time.monotonic() < end, f"jobs still run after {limit} s: {events}"
        events += executor.events(1.0)
    return events


def with_losses(events, job_id):
    points = [e.checkpoint for e in events if isinstance(e, Progress) and e.job_id == job_id]
    return [p for p in points if p.losses]


def starts(trainer):
    return Path(trainer.log).read_text().splitlines().count("start")


def ends(trainer):
    return Path(trainer.log).read_text().splitlines().count("end")


def test_jobs_yield_progress_and_one_end_in_order(start, odd_trainer, mixture):
    executor = start(odd_trainer())
    assert executor.slots == 1
    for number in range(3):
        executor.submit(Job(number, mixture, seed=10 + number))
    events = until_done(executor, 3)
    assert [e.job_id for e in events if isinstance(e, ENDS)] == [0, 1, 2]
    for number in range(3):
        points = with_losses(events, number)
        assert [p.tokens for p in points] == [1, 2, 3, 4, 5]
        assert points[0].losses == {"web": 2.25, "code": 13.0 + number}
        mine = [e for e in events if e.job_id == number]
        assert isinstance(mine[0], Started)
        assert mine[0].slot
        assert mine[-1] == Finished(number, stopped=False)


def test_own_errors_of_a_trainer_are_final_and_leave_the_executor_usable(
    start, odd_trainer, mixture
):
    trainer = odd_trainer("diverge")
    executor = start(trainer)
    executor.submit(Job(1, mixture, 0))
    executor.submit(Job(2, mixture, 0))
    events = until_done(executor, 2)
    cause = "DivergedError: the loss of 'web' is nan at 3 tokens"
    assert [e for e in events if isinstance(e, ENDS)] == [
        Failed(1, cause),
        Failed(2, cause),
    ]
    assert len(with_losses(events, 1)) == 2
    assert starts(trainer) == 2


def test_other_errors_fail_with_their_type_and_message(start, odd_trainer, mixture):
    executor = start(odd_trainer("raise"))
    executor.submit(Job(1, mixture, 0))
    *_, last = until_done(executor, 1)
    assert isinstance(last, Failed)
    assert last.cause.startswith("ZeroDivisionError: of the trainer")
    assert "\n" not in last.cause


def test_missing_losses_pass_through(start, odd_trainer, mixture):
    executor = start(odd_trainer("nan"))
    executor.submit(Job(1, mixture, 0))
    events = until_done(executor, 1)
    assert math.isnan(with_losses(events, 1)[2].losses["web"])
    assert events[-1] == Finished(1)


def test_stop_ends_a_training_and_lets_it_clean_up(start, odd_trainer, mixture):
    trainer = odd_trainer("linger")
    executor = start(trainer)
    executor.submit(Job(1, mixture, 0))
    while not any(
        isinstance(e, Progress) and e.checkpoint.tokens == 2 for e in executor.events(1.0)
    ):
        pass
    assert ends(trainer) == 0
    executor.stop(1)
    begun = time.monotonic()
    events = until_done(executor, 1)
    assert time.monotonic() - begun < 5
    assert events[-1] == Finished(1, stopped=True)
    assert ends(trainer) == 1
    executor.submit(Job(2, mixture, 0))
    assert executor.events(5.0)[0].job_id == 2


def test_stop_of_waiting_ended_and_unknown_jobs(start, odd_trainer, mixture):
    trainer = odd_trainer()
    executor = start(trainer)
    executor.submit(Job(1, mixture, 0))
    executor.submit(Job(2, mixture, 0))
    executor.stop(2)
    executor.stop(99)
    events = until_done(executor, 2)
    executor.stop(1)
    assert sorted((e for e in events if isinstance(e, Finished)), key=lambda e: e.job_id) == [
        Finished(1),
        Finished(2, stopped=True),
    ]
    assert [e.job_id for e in events if isinstance(e, Started)] == [1]
    assert starts(trainer) == 1
    assert executor.events(0.2) == []


def test_events_returns_at_once_without_jobs_and_in_time_with_them(start, odd_trainer, mixture):
    executor = start(odd_trainer("linger"))
    begun = time.monotonic()
    assert executor.events(20.0) == []
    assert time.monotonic() - begun < 2
    executor.submit(Job(1, mixture, 0))
    for _ in range(4):
        begun = time.monotonic()
        executor.events(0.3)
        assert time.monotonic() - begun < 2


def test_close_ends_jobs_without_events(start, odd_trainer, mixture):
    trainer = odd_trainer("linger")
    with start(trainer) as executor:
        executor.submit(Job(1, mixture, 0))
        executor.submit(Job(2, mixture, 0))
        while not any(isinstance(e, Progress) for e in executor.events(10.0)):
            pass
    assert executor.events(0.1) == []
    assert (starts(trainer), ends(trainer)) == (1, 1)
    executor.close()
    with pytest.raises(ExecutorError, match="closed: it cannot take job 3"):
        executor.submit(Job(3, mixture, 0))
