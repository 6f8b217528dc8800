"""What only the Ray executor does: faults, clocks, places, and clear errors at the start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bimix_tune.errors import ExecutorError, MissingExtraError
from bimix_tune.executors import (
    Failed,
    Finished,
    Job,
    Progress,
    Retried,
    Started,
    executor_class,
)

pytest.importorskip("ray")

from bimix_tune.benchmark.cluster.faulty import FaultyTrainer, place_cue, taken_cues
from bimix_tune.executors import ray as ray_executor
from bimix_tune.executors import ray_cluster as cluster_module
from bimix_tune.executors.ray import RayExecutor
from bimix_tune.training.torch_trainer import run_name

JOB = 4


def run(trainer, mixture, limit=150.0, on_progress=None, **options):
    """All events of one job."""
    with RayExecutor(trainer, **{"slots": 1, **options}) as executor:
        executor.submit(Job(JOB, mixture, 0))
        events, end = [], time.monotonic() + limit
        while not events or not isinstance(events[-1], Finished | Failed):
            assert time.monotonic() < end, f"the job still runs after {limit} s: {events}"
            for event in executor.events(1.0):
                events.append(event)
                if on_progress and isinstance(event, Progress):
                    on_progress(executor, event)
    return events


def tokens(events):
    return [e.checkpoint.tokens for e in events if isinstance(e, Progress)]


@pytest.mark.usefixtures("ray_cluster")
class TestFaults:
    def test_a_crash_is_tried_again_from_the_start(self, odd_trainer, mixture):
        events = run(odd_trainer("crash once"), mixture)
        # What it told in its last moment may have died with it.
        assert tokens(events)[-5:] == [1, 2, 3, 4, 5]
        slots = [e.slot for e in events if isinstance(e, Started)]
        assert 1 <= len(set(slots)) == len(slots) <= 2
        assert events[-1] == Finished(JOB)

    def test_an_unexplained_error_is_tried_again_in_a_fresh_process(self, odd_trainer, mixture):
        events = run(odd_trainer("raise once"), mixture)
        assert tokens(events) == [1, 2, 1, 2, 3, 4, 5]
        pids = {e.checkpoint.notes["pid"] for e in events if isinstance(e, Progress)}
        assert len(pids) == 2

    def test_a_job_that_always_crashes_fails_with_the_cause(self, odd_trainer, mixture):
        *_, last = run(odd_trainer("crash"), mixture)
        assert isinstance(last, Failed)
        assert last.cause.startswith(
            "ActorDiedError: The actor is dead because its worker process has died"
        )
        assert last.cause.endswith("(tried 3 times)")

    def test_a_killed_worker_is_replaced(self, odd_trainer, mixture):
        killed = []

        def kill_once(_, event):
            if not killed and event.checkpoint.tokens == 2:
                killed.append(event.checkpoint.notes["pid"])
                os.kill(killed[0], signal.SIGKILL)

        events = run(odd_trainer(pause=0.2), mixture, on_progress=kill_once)
        assert events[-1] == Finished(JOB)
        assert tokens(events)[-5:] == [1, 2, 3, 4, 5]
        assert killed
        assert events[-2].checkpoint.notes["pid"] != killed[0]

    def test_a_silent_training_is_given_up(self, odd_trainer, mixture):
        trainer = odd_trainer("hang")
        *_, last = run(trainer, mixture, progress_timeout=1.0, retries=0)
        assert last == Failed(JOB, "no sign of life of the training for 1 s")
        assert Path(trainer.log).read_text().split() == ["start"]

    def test_a_silent_training_is_found_though_jobs_are_put_behind_it(self, mixture, tmp_path):
        place_cue(tmp_path, "hang")
        trainer = FaultyTrainer(domains=mixture.names, cues=tmp_path, sleep=0.1)
        events, submitted, end = [], 1, time.monotonic() + 60
        with RayExecutor(trainer, slots=2, progress_timeout=5.0) as executor:
            executor.submit(Job(0, mixture, 0))
            while not taken_cues(tmp_path):
                events += executor.events(0.2)
            while not any(isinstance(e, Retried) for e in events):
                assert time.monotonic() < end, events
                if submitted - sum(isinstance(e, Finished) for e in events) <= 1:
                    for _ in range(2):  # one waits behind the silent one, until it is recalled
                        executor.submit(Job(submitted, mixture, submitted))
                        submitted += 1
                events += executor.events(0.2)
        assert Retried(0, "no sign of life of the training for 5 s") in events
        assert submitted > 5  # the other slot was busy meanwhile

    def test_a_frozen_process_is_found_by_its_silence(self, mixture, tmp_path):
        place_cue(tmp_path, "freeze")
        trainer = FaultyTrainer(domains=mixture.names, cues=tmp_path, sleep=0.2)
        events = run(trainer, mixture, heartbeat=5.0)
        assert events[-1] == Finished(JOB)
        slots = [e.slot for e in events if isinstance(e, Started)]
        assert len(slots) == 2
        assert taken_cues(tmp_path) == {run_name(mixture, 0): ["freeze"]}

    def test_a_full_device_is_tried_again(self, mixture, tmp_path):
        place_cue(tmp_path, "gpu memory")
        events = run(FaultyTrainer(domains=mixture.names, cues=tmp_path), mixture)
        assert events[-1] == Finished(JOB)

    def test_stopping_a_silent_training_counts_as_stopped(self, odd_trainer, mixture):
        def stop(executor, event):
            executor.stop(JOB)

        # The stop comes while the trainer hangs, so it takes the time-out to end it.
        events = run(
            odd_trainer("hang", pause=0.3), mixture, progress_timeout=1.5, on_progress=stop
        )
        assert events[-1] == Finished(JOB, stopped=True)

    def test_a_run_past_its_deadline_is_given_up(self, odd_trainer, mixture):
        *_, last = run(odd_trainer("linger"), mixture, deadline=1.5, retries=0)
        assert last == Failed(JOB, "the run exceeded its deadline of 1.5 s")

    def test_unread_messages_of_a_finished_run_do_not_break_the_deadline(
        self, odd_trainer, mixture
    ):
        def dawdle(_, event):
            if event.checkpoint.tokens == 1:
                time.sleep(2.0)

        events = run(odd_trainer(), mixture, deadline=1.0, retries=0, on_progress=dawdle)
        assert events[-1] == Finished(JOB)

    def test_a_broken_installation_is_an_error_not_an_endless_loop(self, mixture):
        with pytest.raises(ExecutorError, match=r"cannot start \(.*installed on every node"):
            RayExecutor(unloadable_trainer(), slots=1)


def make_sleeper():
    import time

    from bimix_tune.training.base import Checkpoint

    class Sleeper:
        def run(self, mixture, seed):
            yield Checkpoint(0)
            time.sleep(seed / 10)

    return Sleeper()


def unloadable_trainer():
    class Unloadable:
        def __reduce__(self):
            return (__import__, ("no_such_module_anywhere",))

    return Unloadable()


@pytest.mark.usefixtures("ray_cluster")
class TestPlaces:
    def test_a_job_does_not_wait_behind_a_long_one_while_a_worker_is_idle(self, mixture):
        with RayExecutor(make_sleeper()) as executor:
            assert executor.slots == 2
            for number, tenths in enumerate((80, 2, 2, 2)):  # two begin, one waits at each
                executor.submit(Job(number, mixture, tenths))
            ends = []
            while len(ends) < 4:
                ends += [e.job_id for e in executor.events(5.0) if isinstance(e, Finished)]
        assert ends[-1] == 0

    def test_slots_fill_the_cluster_and_run_at_once_on_one_core_each(self, odd_trainer, mixture):
        with RayExecutor(odd_trainer(pause=0.2)) as executor:
            assert executor.slots == 2
            executor.submit(Job(1, mixture, 0))
            executor.submit(Job(2, mixture, 0))
            events = []
            while sum(isinstance(e, Finished) for e in events) < 2:
                events += executor.events(5.0)
        order = [e.job_id for e in events]
        assert order != sorted(order)
        assert order != sorted(order, reverse=True)
        notes = [e.checkpoint.notes for e in events if isinstance(e, Progress)]
        assert len({n["pid"] for n in notes}) == 2
        assert {n["threads"] for n in notes} == {"1"}

    def test_workers_without_room_do_not_block_the_others(self, odd_trainer, mixture, monkeypatch):
        monkeypatch.setattr(ray_executor, "SETTLE_SECONDS", 0.5)
        events = run(odd_trainer(), mixture, slots=3, cpus_per_slot=2)
        assert events[-1] == Finished(JOB)

    def test_no_room_at_all(self, odd_trainer, monkeypatch):
        with pytest.raises(ExecutorError, match=r"no room: a slot needs 0 CPU \+ 1 GPU"):
            RayExecutor(odd_trainer(), gpus_per_slot=1)
        with pytest.raises(ExecutorError, match=r"came up within 0.5 s .*executor: local"):
            RayExecutor(odd_trainer(), slots=1, cpus_per_slot=64, start_timeout=0.5)
        with pytest.raises(ExecutorError, match="gpu_type is 'H100', but gpus_per_slot is 0"):
            RayExecutor(odd_trainer(), gpu_type="H100", gpus_per_slot=0)

    def test_a_trainer_that_does_not_pickle(self):
        import threading

        class Locked:
            def __init__(self):
                self.lock = threading.Lock()

        with pytest.raises(ExecutorError, match=r"the trainer Locked cannot be sent"):
            RayExecutor(Locked())

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"slots": 0}, "slots must be at least 1, but got 0"),
            ({"retries": -1}, "retries must be at least 0, but got -1"),
            ({"deadline": 0.0}, "deadline must be more than 0 seconds, but got 0.0"),
            ({"heartbeat": -1.0}, "heartbeat must be more than 0"),
            ({"cpus_per_slot": -1.0}, "cpus_per_slot must not be negative"),
        ],
    )
    def test_options_out_of_range(self, odd_trainer, option, message):
        with pytest.raises(ExecutorError, match=message):
            RayExecutor(odd_trainer(), **option)


class TestAddress:
    @pytest.fixture(autouse=True)
    def unconnected(self, monkeypatch):
        monkeypatch.setattr(cluster_module.ray, "is_initialized", lambda: False)

    def test_nothing_listens(self):
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(ExecutorError, match=f"no Ray cluster answers at '127.0.0.1:{port}'"):
            cluster_module.connect(f"127.0.0.1:{port}")
        assert time.monotonic() - begun < 6

    @pytest.mark.parametrize(
        ("address", "message"),
        [("ray://host:10001", "Ray client address"), ("nonsense", "must be host:port or 'auto'")],
    )
    def test_wrong_address(self, address, message):
        with pytest.raises(ExecutorError, match=message):
            cluster_module.connect(address)

    def test_closing_a_connection_leaves_the_cluster_and_restores_the_notices(self, monkeypatch):
        calls = []
        ray = cluster_module.ray
        monkeypatch.setattr(ray, "init", lambda **options: calls.append(options["address"]))
        loud = ray._private.worker.print_to_stdstream

        def shutdown():  # which kills workers, of which nothing is to be printed
            assert ray._private.worker.print_to_stdstream is not loud
            calls.append("shutdown")

        monkeypatch.setattr(ray, "shutdown", shutdown)
        cluster_module.connect("auto").close()
        assert calls == ["auto", "shutdown"]
        assert ray._private.worker.print_to_stdstream is loud

    def test_a_connection_of_somebody_else_is_left_alone(self, monkeypatch):
        ray = cluster_module.ray
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("disconnected"))
        cluster_module.connect("auto").close()

    def test_ray_refuses_to_start(self, monkeypatch):
        def refuse(**_):
            raise RuntimeError("no shared\nmemory")

        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setattr(cluster_module.ray, "init", refuse)
        with pytest.raises(
            ExecutorError, match=r"cannot start .*no shared memory.*executor: local"
        ):
            cluster_module.connect(None)


def test_without_ray_the_error_says_what_to_install():
    code = """
        import sys
        sys.modules["ray"] = None
        from bimix_tune.errors import MissingExtraError
        from bimix_tune.executors import executor_class
        executor_class("local")
        try:
            executor_class("ray")
        except MissingExtraError as error:
            assert "bimix-tune[ray]" in str(error), error
        else:
            raise SystemExit("no error")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
    assert issubclass(MissingExtraError, ImportError)


def test_unknown_executor():
    with pytest.raises(ExecutorError, match="unknown executor 'rya'; did you mean 'ray'"):
        executor_class("rya")


SCRIPT = """
import os, subprocess, sys, time
from bimix_tune.executors.base import Job, Progress
from bimix_tune.executors.ray import RayExecutor
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint

class Parent:
    def run(self, mixture, seed):
        child = subprocess.Popen(["sleep", "600"])
        while True:
            yield Checkpoint(1, {"web": 1.0}, notes={"pid": os.getpid(), "child": child.pid})
            time.sleep(0.1)

with RayExecutor(Parent(), slots=1) as executor:
    executor.submit(Job(1, Mixture(["web"], [1.0]), 0))
    while True:
        for event in executor.events(1.0):
            if isinstance(event, Progress):
              print(event.checkpoint.notes["pid"], event.checkpoint.notes["child"], flush=True)
"""


def test_interrupting_the_driver_leaves_no_process_behind(tmp_path):
    """Even of a trainer that forgets its own child process."""
    script = tmp_path / "driver.py"
    script.write_text(SCRIPT)
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)  # what this test can import
    pipe = subprocess.PIPE
    driver = subprocess.Popen(
        [sys.executable, str(script)], stdout=pipe, stderr=pipe, text=True, env=env
    )
    try:
        line = driver.stdout.readline()
        driver.send_signal(signal.SIGINT)
        _, errors = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert line, errors
    # The traceback of the interruption is the driver's; Ray itself must have said nothing.
    assert errors.startswith("Traceback"), errors
    assert errors.strip().endswith("KeyboardInterrupt")
    pids = [int(pid) for pid in line.split()]
    end = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [pid for pid in pids if alive(pid)]


JOINER = """
import sys, ray
from bimix_tune.executors.ray import RayExecutor
for _ in range(2):
    with RayExecutor(None, address=sys.argv[1], slots=1, cpus_per_slot=0):
        assert ray.is_initialized()
    assert not ray.is_initialized()
"""


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_that_was_joined_is_left_and_stays_up():
    ray = cluster_module.ray
    address = ray.get_runtime_context().gcs_address
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", JOINER, address]
    subprocess.run(command, check=True, timeout=120, env=env)
    assert [node for node in ray.nodes() if node["Alive"]]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_cause_is_found_at_the_end_of_a_long_message() -> None:
    from bimix_tune.executors.ray_fleet import essence

    message = (
        "\x1b[36mray::RayWorker.__init__()\x1b[39m (pid=7, ip=127.0.0.1)\n"
        '  File "x.py", line 3, in <module>\n'
        "AttributeError: Can't get attribute 'text_of' on <module '__main__'>\n"
    )
    expected = "RuntimeError: AttributeError: Can't get attribute 'text_of' on <module '__main__'>"
    assert essence(RuntimeError(message)) == expected
    died = (
        "The actor died.\n\tpid: 7\nThe actor is dead because its node is. Some common causes: a, b"
    )
    assert essence(RuntimeError(died)) == "RuntimeError: The actor is dead because its node is."
    assert essence(RuntimeError("")) == "RuntimeError: no message"
    assert essence(RuntimeError("the node\nis gone")) == "RuntimeError: the node"
