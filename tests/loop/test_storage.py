"""The storage between a driver and its study: what it writes, when, and what others see."""

import errno
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from bimix_tune import SearchSpace, report_losses, search, suggest_mixture
from bimix_tune.errors import ExecutorError
from bimix_tune.loop import ledger
from bimix_tune.loop.outcome import load_study
from bimix_tune.loop.storage import DriverStorage
from bimix_tune.sampler import BiMixSampler

sys.path.insert(0, str(Path(__file__).parent))
from trainers import NAMES, LawTrainer

SPACE = SearchSpace(NAMES)


@pytest.fixture(params=["sqlite", "journal", "memory"])
def backend(request, tmp_path):
    if request.param == "sqlite":
        return optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    if request.param == "memory":
        return optuna.storages.InMemoryStorage()
    file = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal"))
    return optuna.storages.JournalStorage(file)


def driver_study(backend, **options):
    storage = DriverStorage(backend, **options)
    sampler = BiMixSampler(SPACE, seed=0)
    study = optuna.create_study(
        study_name="s", storage=storage, sampler=sampler, load_if_exists=True
    )
    return study, storage


def plain_study(backend):
    return optuna.load_study(study_name="s", storage=backend)


def train(study, count=1):
    for _ in range(count):
        trial = study.ask()
        mixture = suggest_mixture(trial, SPACE)
        losses = {n: 2.0 * (0.02 + r) ** -0.2 for n, r in mixture.items()}
        study.tell(trial, [report_losses(trial, t, losses) for t in (500, 1000)][-1])


def contents(study):
    return [
        (
            t.number,
            t.state,
            t.values,
            t.params,
            t.user_attrs,
            t.system_attrs,
            t.intermediate_values,
            t.distributions,
        )
        for t in study.get_trials()
    ]


def test_a_flush_writes_what_the_driver_sees(backend):
    study, storage = driver_study(backend)
    storage.flush(create=3)
    train(study, 5)
    seen = contents(study)
    assert contents(plain_study(backend)) != seen
    storage.flush()
    assert contents(plain_study(backend)) == seen
    again, _ = driver_study(backend)
    assert contents(again) == seen


def test_writing_twice_does_no_harm(tmp_path, monkeypatch):
    """A connection that breaks after the commit leaves the driver in doubt."""
    backend = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    study, storage = driver_study(backend, wait=lambda seconds: None)
    train(study)
    write, calls = storage._write, []

    def in_doubt(create):
        result = write(create)
        calls.append(create)
        if len(calls) == 1:
            raise OperationalError("COMMIT", {}, Exception("the connection was lost"))
        return result

    monkeypatch.setattr(storage, "_write", in_doubt)
    trial = study.ask()
    suggest_mixture(trial, SPACE)
    storage.flush()
    monkeypatch.undo()
    seen = contents(study)
    assert [t.number for t in study.trials] == [0, 2]  # trial 1 belongs to nobody
    assert [c for c in contents(plain_study(backend)) if c[0] != 1] == seen


def test_what_others_write_is_seen(backend):
    study, storage = driver_study(backend)
    train(study)
    storage.flush()
    plain_study(backend).enqueue_trial({"r_web": 0.7})
    storage.refresh()
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.WAITING]
    trial = study.ask()
    assert trial.number == 1
    assert suggest_mixture(trial, SPACE)["web"] == 0.7
    assert plain_study(backend).trials[1].state == TrialState.RUNNING


def test_trials_of_others_are_seen_though_own_ones_came_later(backend):
    study, storage = driver_study(backend)
    train(study)
    other, others_storage = driver_study(backend)
    train(other)
    others_storage.flush()
    train(study)
    storage.flush()
    storage.refresh()
    others_storage.refresh()
    assert [t.number for t in study.trials] == [0, 1, 2]
    assert contents(study) == contents(other) == contents(plain_study(backend))


def test_a_trial_that_another_driver_ended_is_given_up(backend):
    study, storage = driver_study(backend)
    trial = study.ask()
    suggest_mixture(trial, SPACE)
    storage.flush()
    plain_study(backend).tell(trial.number, state=TrialState.FAIL)
    trial.set_user_attr("note", 1)
    study.tell(trial, 1.0)
    storage.flush()
    assert not storage.owns(trial.number)
    assert study.trials[0].state == TrialState.FAIL
    assert plain_study(backend).trials[0].state == TrialState.FAIL


def test_a_queued_trial_goes_to_one_of_the_drivers_that_want_it(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    backends = [optuna.storages.RDBStorage(url) for _ in range(3)]
    first = driver_study(backends[0])[0]
    for _ in range(60):
        first.enqueue_trial({})
    ids = [t._trial_id for t in plain_study(backends[0]).get_trials(deepcopy=False)]
    together = threading.Barrier(len(backends))

    def taken(backend):
        storage, mine = driver_study(backend)[1], []
        storage.refresh()
        for i in ids:
            together.wait()
            if storage.set_trial_state_values(i, TrialState.RUNNING):
                mine.append(i)
        return mine

    with ThreadPoolExecutor(len(backends)) as threads:
        assert sorted(i for mine in threads.map(taken, backends) for i in mine) == ids


def test_a_storage_that_comes_back_costs_nothing(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(
        "bimix_tune.loop.interrupts.Interrupts.sleep", lambda self, s: pauses.append(s)
    )
    write = DriverStorage._write
    calls = iter(range(1000))

    def flaky(self, create):
        if next(calls) % 5 in (1, 2):
            raise OperationalError("INSERT", {}, Exception("the database is away"))
        return write(self, create)

    monkeypatch.setattr(DriverStorage, "_write", flaky)
    result = search(SPACE, LawTrainer(), folder=tmp_path / "run", trials=6, confirm_seeds=0)
    assert [r.state for r in result.records] == ["COMPLETE"] * 6
    assert len(pauses) > 4
    assert min(pauses) == 0.1  # of a new failure
    assert max(pauses) <= 10


def test_a_storage_that_stays_away_ends_the_search_and_it_continues_later(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(
        "bimix_tune.loop.interrupts.Interrupts.sleep",
        lambda self, s: now.__setitem__(0, now[0] + s),
    )
    log = tmp_path / "log"
    options = {"folder": tmp_path / "run", "trials": 8, "confirm_seeds": 0}
    write = DriverStorage._write

    def gone_for_good(self, create):
        if len(self._trials) > 4:
            raise OperationalError("INSERT", {}, Exception("the database is away"))
        return write(self, create)

    with monkeypatch.context() as patch:
        patch.setattr(DriverStorage, "_write", gone_for_good)
        patch.setattr("bimix_tune.loop.storage.PATIENCE", 0.05)
        with pytest.raises(ExecutorError, match=r"did not answer for 0\.05 s.*is away"):
            search(SPACE, LawTrainer(log=str(log)), **options)
    assert len((tmp_path / "run" / "curves.jsonl").read_text().splitlines()) >= 3
    search(SPACE, LawTrainer(log=str(log)), **options)
    study, space = load_study(tmp_path / "run")
    assert all(t.state.is_finished() for t in study.trials)
    done = [r for r in ledger.records_of(study, space) if r.state in ("COMPLETE", "PRUNED")]
    assert len(done) == 8
    assert len(log.read_text().splitlines()) <= 8 + 3


def test_an_error_that_will_not_pass_is_not_tried_again():
    _, storage = driver_study(optuna.storages.InMemoryStorage(), wait=lambda s: 1 / 0)
    with pytest.raises(ValueError, match="no reason to wait"):
        storage._patiently(lambda: (_ for _ in ()).throw(ValueError("no reason to wait")))


def test_a_full_disk_costs_neither_the_study_nor_the_result(tmp_path, monkeypatch, caplog):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    options = {"folder": tmp_path / "run", "trials": 6, "confirm_seeds": 0}
    with monkeypatch.context() as patch:
        patch.setattr("bimix_tune.curves.write_atomic", full)
        patch.setattr("bimix_tune.loop.outcome.write_atomic", full)
        result = search(SPACE, LawTrainer(), **options)
    assert len(result.records) == 6
    assert not (tmp_path / "run" / "result.json").exists()
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == 2
    assert all("No space left on device" in e and "run the same command again" in e for e in errors)
    again = search(SPACE, LawTrainer(), **options)
    assert again.recommendation == result.recommendation
    assert (tmp_path / "run" / "result.json").exists()


def test_a_database_without_room_is_waited_for(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(
        "bimix_tune.loop.interrupts.Interrupts.sleep", lambda self, s: pauses.append(s)
    )
    write, calls = DriverStorage._write, iter(range(1000))

    def full(self, create):
        if next(calls) == 5:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return write(self, create)

    monkeypatch.setattr(DriverStorage, "_write", full)
    result = search(SPACE, LawTrainer(), folder=tmp_path / "run", trials=5, confirm_seeds=0)
    assert len(result.records) == 5
    assert pauses == [0.1]
