"""The parts of `bimix-tune benchmark cluster`, small."""

import contextlib
import json
import sqlite3
import threading
import time

import optuna
import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from bimix_tune.benchmark.cluster import command, faults, kills, speed
from bimix_tune.benchmark.cluster.faulty import FAULTS, place_cue
from bimix_tune.benchmark.cluster.memory import memory
from bimix_tune.benchmark.cluster.parts import Figure, at_least, at_most, holds
from bimix_tune.benchmark.cluster.simulated import DriverTime, SimulatedExecutor
from bimix_tune.cli.app import app
from bimix_tune.errors import ConfigError
from bimix_tune.executors.base import Finished, Job, Progress, Started
from bimix_tune.loop import ledger
from bimix_tune.loop.outcome import load_study
from bimix_tune.space import SearchSpace
from bimix_tune.training.synthetic import SyntheticTrainer
from bimix_tune.training.torch_trainer import run_name

TRAINER = SyntheticTrainer(checkpoints=2)
MIXTURE = SearchSpace(TRAINER.domains).uniform()


def test_simulated_slots_keep_time():
    clock = DriverTime()
    with clock.everywhere(), SimulatedExecutor(TRAINER, 2, 1.0) as executor:
        for number in range(5):
            executor.submit(Job(number, MIXTURE, number))
        events = []
        while sum(isinstance(e, Finished) for e in events) < 5:
            events += executor.events(0.5)
    for number in range(5):
        mine = [e for e in events if e.job_id == number]
        assert [type(e) for e in mine] == [Started, Progress, Progress, Finished]
        assert mine[2].checkpoint.losses == list(TRAINER.run(MIXTURE, number))[-1].losses
    assert sorted(round(use.busy, 6) for use in executor.use) == [2.0, 3.0]
    assert max(wait for use in executor.use for wait in use.waits) < 1e-9
    assert executor.last - executor.first == pytest.approx(3.0, abs=0.01)


def test_a_simulated_job_stops_and_waits_are_seen():
    clock = DriverTime()
    with clock.everywhere(), SimulatedExecutor(TRAINER, 1, 1.0) as executor:
        executor.submit(Job(0, MIXTURE, 0))
        executor.stop(0)
        events = []
        while not any(isinstance(e, Finished) for e in events):
            events += executor.events(0.5)
        assert events[-1] == Finished(0, stopped=True)
        clock.sleep(2.0)
        executor.submit(Job(1, MIXTURE, 0))
    assert executor.use[0].waits == [pytest.approx(2.0, abs=0.1)]


def test_a_thread_works_while_the_driver_waits():
    def work():
        began = time.thread_time()
        while time.thread_time() - began < 0.05:
            pass

    clock = DriverTime()
    with clock.everywhere():
        thread = threading.Thread(target=work)
        before = clock()
        thread.start()
        for _ in range(2000):
            clock.sleep(1.0)
        assert not thread.is_alive()
        assert clock() - before == pytest.approx(2000.0, abs=1.0)


def test_speed_counts_all_runs():
    found = speed.measure(6, 2, 5.0)
    assert found.seconds >= 15.0
    assert 0 < found.utilisation <= 1


def test_a_driver_killed_three_times_loses_nothing(tmp_path):
    options = {"more": 20, "slots": 2, "seconds": 0.2}
    figures = list(kills.killed_search(tmp_path / "run", 3, **options))
    assert [f.name for f in figures if f.met is False] == []
    assert sum(f.met is True for f in figures) == 7


def test_soundness_sees_what_is_wrong(tmp_path):
    kills.drive(str(tmp_path / "run"), 5, 2, 0.01)
    study, _ = load_study(tmp_path / "run")
    trial = study.ask()
    trial.set_user_attr("retry_of", 0)
    wrong = {f.name for f in kills.soundness("x", tmp_path / "run", 5) if f.met is False}
    assert wrong == {
        "every trial is COMPLETE, PRUNED or FAIL",
        "no finished work was done again",
    }


def test_memory_of_a_small_study():
    figures = {f.name: f for f in memory(12, domains=4, checkpoints=3, asks=3)}
    assert figures["seconds for an ask, median"].met is not None
    assert 0 < next(f.value for f in figures.values() if "GB" in f.name) < 10


def test_a_held_database_is_away_and_comes_back(tmp_path):
    file = tmp_path / "study.db"

    def ask():
        with contextlib.closing(sqlite3.connect(file, timeout=0)) as other:
            return other.execute("SELECT count(*) FROM runs").fetchone()

    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE runs (id)")
    with faults.held(file), pytest.raises(sqlite3.OperationalError, match="locked"):
        ask()
    assert ask() == (0,)


def test_each_fault_is_placed_and_looked_for():
    assert set(FAULTS) < set(faults.ORDER)
    assert set(faults.ORDER) - set(faults.MARKS) == {faults.ADD_NODE, faults.KILL_NODE}
    assert set(faults.MARKS) < set(faults.ORDER)


def test_the_mark_of_a_fault_is_looked_for_in_the_run_that_met_it(tmp_path):
    folder, cues = tmp_path / "run", tmp_path / "cues"
    kills.drive(str(folder), 4, 2, 0.01)
    study, space = load_study(folder)
    known = study.trials[0]
    given = {"params": known.params, "distributions": known.distributions}
    given |= {"user_attrs": {ledger.SEED: 77}, "intermediate_values": {1: 5.0}}
    study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED, **given))
    done, other, *_, stopped = ledger.records_of(study, space)
    for fault, run in (("freeze", stopped), ("crash", done), ("damaged state", done)):
        cue = place_cue(cues, fault)
        cue.rename(cue.with_suffix(f".taken-{run_name(run.mixture, run.seed)}"))

    def marks():
        kinds = ("freeze", "crash", "damaged state", "disk", faults.NO_DATABASE)
        return [fault for fault in kinds if faults.left_its_mark(fault, folder, cues)]

    assert marks() == ["freeze"]  # it was stopped anyway
    (folder / "logs").mkdir(exist_ok=True)
    told = "\n".join((faults.MARKS["damaged state"], faults.MARKS["crash"], faults.MARKS["disk"]))
    (folder / "logs" / f"run-{other.number:04d}.log").write_text(told)
    assert marks() == ["freeze"]  # that is another run
    (folder / "logs" / f"run-{done.number:04d}.log").write_text(told)
    assert marks() == ["freeze", "crash", "damaged state"]
    with (folder / "log.jsonl").open("a") as log:
        log.write(f"{faults.MARKS[faults.NO_DATABASE]}: gone")
    assert marks() == ["freeze", "crash", "damaged state", faults.NO_DATABASE]


def test_figures():
    assert at_most("p", "n", 1.0, 2.0).met
    assert not at_least("p", "n", 1.0, 2.0).met
    assert holds("p", "n", False) == Figure("p", "n", 0.0, "yes", False)


def test_the_command_measures_parts_and_keeps_others(tmp_path, monkeypatch):
    monkeypatch.setitem(command.PARTS, "small", lambda say: iter([at_most("small", "s", 5, 4.3)]))
    monkeypatch.setitem(command.PARTS, "kills", lambda say: iter([holds("kills", "k", True)]))
    call = ["benchmark", "cluster", "--output", str(tmp_path), "--only"]
    assert CliRunner().invoke(app, [*call, "kills"]).exit_code == 0
    result = CliRunner().invoke(app, [*call, "small"])
    assert result.exit_code == 1
    assert "NOT MET" in result.output
    rows = json.loads((tmp_path / "cluster.json").read_text())
    assert [row["part"] for row in rows] == ["kills", "small"]
    with pytest.raises(ConfigError, match="did you mean 'kills'"):
        command.run_parts(["kill"], tmp_path, print)
