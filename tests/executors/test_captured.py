"""What a training prints and logs reaches the driver, whatever becomes of the training."""

import dataclasses
import logging
import sys
import threading
import time

import pytest

from bimix_tune.executors import EXECUTORS, Failed, Finished, Job, Output, executor_class
from bimix_tune.executors.captured import KEPT_CHARACTERS, Captured
from bimix_tune.executors.local import LocalExecutor
from bimix_tune.observing import output
from bimix_tune.training.command import CommandTrainer


def test_streams_and_logs_are_kept_and_still_go_where_they_went(capsys):
    streams, handlers = (sys.stdout, sys.stderr), list(logging.getLogger().handlers)
    output.info("to nobody")
    with Captured() as captured:
        print("out")  # noqa: T201
        print("err", file=sys.stderr)  # noqa: T201
        logging.getLogger("some.package").warning("careful: %d", 7)
        output.info("from a program")
        assert captured.take() == ("out\nerr\nWARNING some.package: careful: 7\nfrom a program\n")
        assert captured.take() == ""
    assert (sys.stdout, sys.stderr) == streams
    assert logging.getLogger().handlers == handlers
    print("later")  # noqa: T201
    assert captured.take() == ""
    assert capsys.readouterr() == ("out\nlater\n", "err\n")


def test_the_latest_output_is_kept():
    captured = Captured()
    for number in range(20):
        captured.keep(f"{number:02d}" + "x" * 9_998)
    captured.keep("y" * (KEPT_CHARACTERS + 5))
    captured.keep("the end")
    text = captured.take()
    first, _, rest = text.partition("\n")
    assert rest.endswith("the end")
    assert len(rest) <= KEPT_CHARACTERS
    dropped = int(first.split()[1].replace(",", ""))
    assert dropped + len(rest) == 200_000 + KEPT_CHARACTERS + 5 + len("the end")


def test_threads_keep_what_is_theirs_and_share_what_is_nobodys(capsys):
    """They enter and leave in any order."""
    streams, found = (sys.stdout, sys.stderr), {}
    entered, told, left = (threading.Barrier(3, timeout=30) for _ in range(3))

    def talk(name, first_to_leave):
        captured = Captured()
        with captured:
            entered.wait()
            print(name)  # noqa: T201
            logging.getLogger("some.package").warning(name)
            told.wait()
            found[name] = captured.take()
            if not first_to_leave:
                left.wait()
                print(name, "again")  # noqa: T201
        if first_to_leave:
            left.wait()
        found[name] += captured.take()

    threads = [
        threading.Thread(target=talk, args=("a", True)),
        threading.Thread(target=talk, args=("b", False)),
    ]
    for thread in threads:
        thread.start()
    entered.wait()
    time.sleep(0.1)
    print("from elsewhere")  # noqa: T201
    told.wait()
    left.wait()
    for thread in threads:
        thread.join()
    assert "from elsewhere\n" in found["a"] and "from elsewhere\n" in found["b"]
    assert found["a"].replace("from elsewhere\n", "") == "a\nWARNING some.package: a\n"
    said = "b\nWARNING some.package: b\nb again\n"
    assert found["b"].replace("from elsewhere\n", "") == said
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr().out.count("from elsewhere") == 1


def make_talker():
    """By value, since a worker cannot import a test module."""
    import logging

    from bimix_tune.errors import TrainingError
    from bimix_tune.training.base import Checkpoint

    @dataclasses.dataclass(frozen=True)
    class Talker:
        tokens = 2
        targets = ("web",)
        unit = "nats/token"

        def run(self, mixture, seed):
            print("printed by", seed)  # noqa: T201
            yield Checkpoint(1, {"web": 2.0})
            logging.getLogger("talker").warning("logged")
            if seed > 0:
                raise TrainingError("no more words")
            yield Checkpoint(2, {"web": 1.0})

    return Talker()


def ends_of(executor, jobs):
    """The last event of each job, and what it said."""
    events, limit = [], time.monotonic() + 120
    for job in jobs:
        executor.submit(job)
    while sum(isinstance(e, Finished | Failed) for e in events) < len(jobs):
        assert time.monotonic() < limit, events
        events += executor.events(1.0)
    ends = {e.job_id: e for e in events if isinstance(e, Finished | Failed)}
    said = [e for e in events if isinstance(e, Output)]
    return [(ends[j.id], "".join(e.text for e in said if e.job_id == j.id)) for j in jobs]


@pytest.mark.parametrize("name", sorted(EXECUTORS))
def test_output_and_traceback_come_with_the_events(name, mixture, request):
    options = {}
    if name == "ray":
        request.getfixturevalue("ray_cluster")
        options = {"slots": 1, "retries": 0}
    with executor_class(name)(make_talker(), **options) as executor:
        good, bad = ends_of(executor, [Job(4, mixture, 0), Job(5, mixture, 1)])
    assert good == (Finished(4), "printed by 0\nWARNING talker: logged\n")
    end, said = bad
    assert end == Failed(5, "TrainingError: no more words")
    assert "WARNING talker: logged\nTraceback (most recent call last):\n" in said
    assert said.endswith("TrainingError: no more words\n")


def test_a_program_has_its_output_kept(mixture):
    code = "import sys; print('to out'); print('to err', file=sys.stderr); sys.exit(3)"
    trainer = CommandTrainer(
        command=[sys.executable, "-c", code, "{mixture}"], tokens=5, targets=("web",)
    )
    with LocalExecutor(trainer) as executor:
        ((end, said),) = ends_of(executor, [Job(1, mixture, 0)])
    assert isinstance(end, Failed)
    assert "to out\n" in said and "to err\n" in said and "Traceback" in said
