"""Several runs on one Ray worker: each is a job like any other, whatever the others do."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from bimix_tune.benchmark.training_speed.text import write_text
from bimix_tune.errors import ExecutorError
from bimix_tune.executors import Failed, Finished, Job, Output, Progress, Retried, Started
from bimix_tune.executors.local import LocalExecutor
from bimix_tune.executors.ray import RayExecutor
from bimix_tune.mixture import Mixture
from bimix_tune.training.llama import LlamaTrainer

MIXTURE = Mixture(["web", "code"], [0.75, 0.25])
PATIENCE = 150.0


def make_trainer(log: Path, odd: str = "", pause: float = 0.1) -> Any:
    """By value, since a worker cannot import a test module."""
    import dataclasses
    import os
    import pathlib
    import time

    from bimix_tune.errors import DivergedError
    from bimix_tune.training.base import Checkpoint

    @dataclasses.dataclass(frozen=True)
    class Three:
        """Three runs at once; something happens to the first try of seed 1."""

        log: str
        odd: str
        pause: float

        tokens = 6
        targets = ("web",)
        unit = "nats/token"

        def at_once(self):  # type: ignore[no-untyped-def]
            return 3

        def run(self, mixture, seed):  # type: ignore[no-untyped-def]
            with pathlib.Path(self.log).open("a") as file:
                file.write(f"{seed}\n")
            first = pathlib.Path(self.log).read_text().split().count(str(seed)) == 1
            for tokens in range(1, 7):
                time.sleep(self.pause)
                if seed == 1 and tokens == 3:
                    if self.odd == "diverge":
                        raise DivergedError("nan")
                    if self.odd == "raise once" and first:
                        raise OSError("it broke")
                    if self.odd == "raise":
                        raise OSError("it broke")
                    while self.odd == "hang" and first:
                        time.sleep(0.05)
                yield Checkpoint(tokens, {"web": float(seed)}, notes={"pid": os.getpid()})

    return Three(str(log), odd, pause)


def run_all(trainer: Any, count: int, act: Any = None, **options: Any) -> dict[int, list[Any]]:
    """Events by job, of jobs whose id is their seed."""
    found: dict[int, list[Any]] = {number: [] for number in range(count)}
    until = time.monotonic() + PATIENCE
    with RayExecutor(trainer, **{"slots": 1, "retries": 1, **options}) as executor:
        for number in found:
            executor.submit(Job(number, MIXTURE, number))
        while not all(e and isinstance(e[-1], Finished | Failed) for e in found.values()):
            assert time.monotonic() < until, found
            for event in executor.events(1.0):
                if not isinstance(event, Output):
                    found[event.job_id].append(event)
                if act and isinstance(event, Progress):
                    act(executor, event)
        if act is None:
            assert executor.slots == 3
    return found


def tokens(events: list[Any]) -> list[int]:
    return [e.checkpoint.tokens for e in events if isinstance(e, Progress)]


def pids(events: list[Any]) -> set[int]:
    return {e.checkpoint.notes["pid"] for e in events if isinstance(e, Progress)}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = write_text(tmp_path / "text", 64, 6000, 1500)
    (folder / "tokenizer.json").write_text("{}")  # a worker copies it
    return folder


@pytest.mark.usefixtures("ray_cluster")
class TestMembers:
    def test_they_share_a_worker_and_each_has_a_slot(self, tmp_path):
        found = run_all(make_trainer(tmp_path / "log"), 5)
        for events in found.values():
            assert tokens(events) == [1, 2, 3, 4, 5, 6]
            assert events[-1].stopped is False
        assert len(set().union(*(pids(events) for events in found.values()))) == 1
        slots = [events[0].slot for events in found.values()]
        assert len(set(slots[:3])) == 3 == len(set(slots))

    def test_one_is_pruned_and_one_diverges(self, tmp_path):
        def prune(executor, event):
            if event.job_id == 0 and event.checkpoint.tokens == 2:
                executor.stop(0)

        found = run_all(make_trainer(tmp_path / "log", "diverge"), 4, prune)
        assert found[0][-1] == Finished(0, stopped=True)
        assert tokens(found[0])[-1] < 6
        assert found[1][-1] == Failed(1, "DivergedError: nan")
        for number in (2, 3):
            assert tokens(found[number]) == [1, 2, 3, 4, 5, 6]
            assert found[number][-1] == Finished(number)

    def test_a_killed_worker_is_replaced_and_all_its_runs_are_tried_again(self, tmp_path):
        killed: list[int] = []

        def kill(_, event):
            if not killed and event.checkpoint.tokens == 2:
                killed.append(event.checkpoint.notes["pid"])
                os.kill(killed[0], signal.SIGKILL)

        found = run_all(make_trainer(tmp_path / "log"), 4, kill)
        for number, events in found.items():
            assert events[-1] == Finished(number)
            assert tokens(events)[-6:] == [1, 2, 3, 4, 5, 6]
            assert events[-2].checkpoint.notes["pid"] != killed[0]
        again = [n for n, events in found.items() if any(isinstance(e, Retried) for e in events)]
        assert again == [0, 1, 2]  # the fourth had not begun

    @pytest.mark.parametrize(
        ("odd", "cause"),
        [
            ("raise once", "OSError: it broke"),
            ("raise", "OSError: it broke"),
            ("hang", "no sign of life of the training for 2 s"),
        ],
    )
    def test_a_fault_of_one_does_not_count_against_the_others(self, odd, cause, tmp_path):
        found = run_all(make_trainer(tmp_path / "log", odd, 0.3), 3, progress_timeout=2.0)
        if odd == "raise":
            assert found[1][-1] == Failed(1, f"{cause} (tried 2 times)")
        else:
            assert found[1][-1] == Finished(1)
        assert Retried(1, cause) in found[1]
        for number in (0, 2):
            assert found[number][-1] == Finished(number)
            shared = [e for e in found[number] if isinstance(e, Retried)]
            assert all(e.cause == f"a run on the same worker: {cause}" for e in shared)
            assert sum(isinstance(e, Started) for e in found[number]) == 1 + len(shared)

    def test_proxies_train_together_as_they_do_alone(self, corpus):
        """Every worker measures that it pays, by a clock of this test."""

        def make(members: int) -> Any:
            import dataclasses

            from bimix_tune.training import ensemble_trial
            from bimix_tune.training.ensemble import Seconds
            from bimix_tune.training.llama import LlamaTrainer

            @dataclasses.dataclass(frozen=True, kw_only=True)
            class Exact(LlamaTrainer):
                def dtype(self, place):  # type: ignore[no-untyped-def]
                    import torch

                    return torch.float32

                def ensemble(self, place):  # type: ignore[no-untyped-def]
                    ensemble_trial.measured = lambda *args: Seconds(1.0, 1.1)
                    return super().ensemble(place)

            options = {"tokens": 4000, "size": "0.1M", "sequence_length": 16}
            options |= {"batch_tokens": 160, "device": "cpu", "learning_rate": 1e-3}
            return Exact(corpus=corpus, compile="never", members=members, **options)

        mixture = Mixture(["first", "second"], [0.5, 0.5])
        together: dict[int, Any] = {}
        with RayExecutor(make(3), slots=1) as executor:
            for number in range(3):
                executor.submit(Job(number, mixture, number))
            until, ended = time.monotonic() + PATIENCE, 0
            while ended < 3:
                assert time.monotonic() < until
                for event in executor.events(1.0):
                    assert not isinstance(event, Failed | Retried), event
                    ended += isinstance(event, Finished)
                    if isinstance(event, Progress) and event.checkpoint.decayed:
                        together[event.job_id] = event.checkpoint
        for number in range(3):
            *_, end = make(1).run(mixture, number)
            assert together[number].losses == pytest.approx(dict(end.losses), rel=1e-5)
            assert together[number].notes["members"].startswith("3 at once, 2.73 times")


def test_one_process_without_threads_refuses_several(corpus):
    trainer = LlamaTrainer(corpus=corpus, tokens=1000, members=8)
    with pytest.raises(ExecutorError, match=r"`local` trains one .* members=8: use the executor"):
        LocalExecutor(trainer)
