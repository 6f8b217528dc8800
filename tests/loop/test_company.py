"""Several drivers on one study."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from bimix_tune import Domain, SearchSpace, search
from bimix_tune.loop import company, ledger
from bimix_tune.loop.company import Company
from bimix_tune.loop.outcome import load_study

sys.path.insert(0, str(Path(__file__).parent))
from trainers import NAMES, LawTrainer

SPACE = SearchSpace([Domain(n, prior=p) for n, p in zip(NAMES, (6, 2, 1, 1), strict=True)])
DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_company import SPACE, hurried
from trainers import LawTrainer
from bimix_tune import search
hurried()
search(SPACE, LawTrainer(log=sys.argv[2], sleep=float(sys.argv[5])), folder=sys.argv[3],
       storage=sys.argv[4], trials=12, confirm_seeds=1)
"""


def hurried():
    """Signs of life at a rate for tests; a machine that is busy may make a driver late by much."""
    company.BEAT_SECONDS, company.GRACE_SECONDS, company.SETTLE_SECONDS = 0.5, 20.0, 1.5


@pytest.fixture
def quick(monkeypatch):
    for name in ("BEAT_SECONDS", "GRACE_SECONDS", "SETTLE_SECONDS"):
        monkeypatch.setattr(company, name, getattr(company, name))
    hurried()


def start(log, folder, url, sleep=0.05):
    arguments = [str(Path(__file__).parent), str(log), str(folder), url, str(sleep)]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments], stderr=subprocess.PIPE, text=True
    )


def check_shared(url, name, log):
    """One budget, each baseline and each confirmation once, and nothing trained twice."""
    storage = optuna.storages.RDBStorage(url)
    study = optuna.load_study(study_name=name, storage=storage)
    records = ledger.records_of(study, SPACE)
    assert all(t.state.is_finished() for t in study.trials)
    assert sum(r.role != "confirmation" for r in records) == 12
    labels = Counter((r.role, r.label, r.seed) for r in records if r.label)
    assert set(labels.values()) == {1}
    assert sorted(r.label for r in records if r.role == "confirmation") == [
        "natural",
        "recommendation",
        "uniform",
    ]
    trials = study.get_trials()
    storage.engine.dispose()
    return trials, records, log.read_text().splitlines()


def test_two_drivers_share_a_study(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    share(tmp_path, url)


def share(tmp_path, url):
    log, folders = tmp_path / "log", [tmp_path / name / "run" for name in "ab"]
    drivers = [start(log, folder, url) for folder in folders]
    for driver in drivers:
        _, errors = driver.communicate(timeout=300)
        assert driver.returncode == 0, errors
    trials, records, lines = check_shared(url, "run", log)
    assert Counter(lines).most_common(1)[0][1] == 1  # nothing is trained twice
    assert len(lines) == len(records)
    results = [(folder / "result.json").read_text() for folder in folders]
    assert results[0] == results[1]
    assert len({t.user_attrs["driver"] for t in trials}) == 2


def test_the_runs_of_a_dead_driver_are_taken_over(tmp_path, quick):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    log = tmp_path / "log"
    dead = start(log, tmp_path / "a" / "run", url, sleep=0.3)
    until = time.monotonic() + 120
    while time.monotonic() < until and not (
        log.exists() and len(log.read_text().splitlines()) >= 4
    ):
        time.sleep(0.1)
    dead.kill()
    dead.communicate()
    result = search(
        SPACE,
        LawTrainer(log=str(log)),
        folder=tmp_path / "b" / "run",
        storage=url,
        trials=12,
        confirm_seeds=1,
    )
    trials, _, lines = check_shared(url, "run", log)
    lost = [t for t in trials if t.user_attrs.get("cause") == ledger.LOST]
    withdrawn = [t for t in trials if "withdrawn" in t.user_attrs]
    assert len(lost) + len(withdrawn) == 1
    assert len(lines) == len(result.records) + len(lost)


def drivers(study, count):
    return [Company(study, alone=False) for _ in range(count)]


def test_one_driver_leads_and_the_next_after_its_end(monkeypatch, quick):
    monkeypatch.setattr(company, "SETTLE_SECONDS", -1.0)
    study = optuna.create_study()
    study._storage.backend = study._storage  # as that of a driver
    first, second = drivers(study, 2)
    with second.present():
        with first.present():
            assert sorted([first, second], key=lambda c: c.id)[0] is first
            assert set(first.living()) == {first.id, second.id}
            assert first.leads()
            assert not second.leads()
        second._looked = -1e9
        assert second.leads()
        with first.present():  # it comes back, and does not take the lead
            first._leads, first._looked = False, -1e9
            assert not first.leads()
            second._looked = -1e9
            assert second.leads()
    assert Company(study, alone=False).living().keys().isdisjoint({first.id, second.id})


def test_silence_is_since_the_last_sign_of_any_driver(monkeypatch):
    clock = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    study = optuna.create_study()
    study._storage.backend = study._storage  # as that of a driver
    assert company.silence(study) is None  # none has begun
    study.set_user_attr(company.PREFIX + "killed", [clock[0] - 500, True])
    assert company.silence(study) == 500
    me = Company(study, alone=True)
    with me.present():
        assert company.silence(study) is None
        assert me.living() == {me.id: True}
    assert Company(study, alone=False).living().keys().isdisjoint({me.id, "killed"})
    clock[0] += company.GRACE_SECONDS + 5
    assert company.silence(study) == company.GRACE_SECONDS + 5


def test_lost_runs_are_those_of_drivers_without_a_sign_of_life(monkeypatch, quick):
    study = optuna.create_study()
    me, other = drivers(study, 2)
    trials = [study.ask() for _ in range(4)]
    for trial, driver in zip(trials, (me.id, other.id, "gone"), strict=False):
        trial.set_user_attr(ledger.DRIVER, driver)
    study.set_user_attr(company.PREFIX + other.id, [time.time(), False])
    assert [t.number for t in me.lost()] == [2]  # the last one has only begun
    monkeypatch.setattr(company, "GRACE_SECONDS", -1.0)
    assert [t.number for t in me.lost()] == [1, 2, 3]
    assert [t.number for t in me.own()] == [0]
    assert [t.number for t in Company(study, alone=True).lost()] == [0, 1, 2, 3]


def test_a_run_without_a_mixture_is_withdrawn_and_counts_for_nothing(tmp_path):
    options = {"folder": tmp_path / "run", "trials": 5, "confirm_seeds": 0}
    search(SPACE, LawTrainer(), **{**options, "trials": 4})
    study, _ = load_study(tmp_path / "run")
    study.ask()  # a driver that dies before it has a mixture
    result = search(SPACE, LawTrainer(), **options)
    assert len(result.records) == 5
    assert {r.state for r in result.records} <= {"COMPLETE", "PRUNED"}
    study, _ = load_study(tmp_path / "run")
    assert study.trials[4].state == TrialState.FAIL
    assert study.trials[4].user_attrs["cause"] == "the driver stopped before it had a mixture"
