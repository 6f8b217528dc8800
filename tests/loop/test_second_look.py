"""Runs that were stopped early go on when the law thinks better of them."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from bimix_tune import Domain, SearchSpace, search
from bimix_tune.loop import ledger
from bimix_tune.loop.budget import Budget
from bimix_tune.loop.outcome import load_study
from bimix_tune.loop.second_look import SecondLook
from bimix_tune.trials import CONTINUES, LOSSES, PREFIX, curves_of, distributions, lessons

sys.path.insert(0, str(Path(__file__).parent))  # the child processes below import it the same way
from trainers import NAMES, LawTrainer

SPACE = SearchSpace([Domain(n, prior=p) for n, p in zip(NAMES, (6, 2, 1, 1), strict=True)])


class KeepingTrainer(LawTrainer):
    """One whose runs could go on. (They begin again: there is nothing that they would spare.)"""

    def resumes(self, mixture, seed):
        return True


class StopsAll(optuna.pruners.BasePruner):
    """Wrong about most."""

    def prune(self, study, trial):
        return True


# The rule


@pytest.fixture
def study():
    """Two complete runs, of 3.0 and 2.8, and three that were stopped: numbers 2, 3 and 4."""
    study = optuna.create_study()
    for value in (3.0, 2.8):
        add(study, TrialState.COMPLETE, value)
    for _ in range(3):
        add(study, TrialState.PRUNED)
    return study


def add(study, state, value=None, **attrs):
    number = len(study.trials)
    shares = np.random.default_rng(number).dirichlet(np.ones(4)).round(3)
    shares[0] += 1 - shares.sum()
    losses = {"losses": dict.fromkeys(NAMES, 4.0), "decayed": False, "unit": "nats/token"}
    trial = create_trial(
        state=state,
        value=value,
        params=dict(zip((PREFIX + n for n in NAMES), shares.tolist(), strict=True)),
        distributions=distributions(SPACE),
        user_attrs={"role": "proposal", "seed": 7, f"{LOSSES}250": losses, **attrs},
    )
    study.add_trial(trial)


def law(study, **predicted):
    """A law that predicts 4.0 of every mixture but for those of some trials (``t2=2.5``)."""
    known = {tuple(SPACE.array(mixture_at(study, int(k[1:])))): v for k, v in predicted.items()}

    def predict(mixtures, tokens):
        assert tokens == 1000
        values = [known.get(tuple(SPACE.array(m)), 4.0) for m in mixtures]
        return np.repeat(np.array(values)[:, None], 4, axis=1)

    return SimpleNamespace(predict=predict)


def mixture_at(study, number):
    params = study.trials[number].params
    return SPACE.mixture([params[PREFIX + n] for n in NAMES])


def queued(study):
    return [t.user_attrs[CONTINUES] for t in ledger.waiting(study)]


def test_the_best_stopped_run_goes_on_when_the_law_changes_its_mind(study):
    look = SecondLook(study, SPACE, KeepingTrainer())
    look.take(law(study, t2=2.9, t3=2.85))  # better than one complete run, not than the best
    assert queued(study) == []
    look.take(law(study, t2=2.7, t3=2.5))
    assert queued(study) == [3]
    [trial] = ledger.waiting(study)
    assert trial.system_attrs["fixed_params"] == study.trials[3].params  # to the last bit
    assert trial.user_attrs == {"role": "proposal", "seed": 7, "label": "continued", CONTINUES: 3}


def test_one_run_for_each_law_and_none_twice(study):
    look = SecondLook(study, SPACE, KeepingTrainer())
    opinion = law(study, t2=2.7, t3=2.5)
    for _ in range(3):
        look.take(opinion)
    assert queued(study) == [3]
    for _ in range(3):
        look.take(law(study, t2=2.7, t3=2.5))
    assert queued(study) == [3, 2]
    ledger.fail(study, study.ask().number, "out of memory")
    SecondLook(study, SPACE, KeepingTrainer()).take(law(study, t2=2.7, t3=2.5))
    assert queued(study) == [2]


def test_a_run_without_a_state_stays_stopped(study):
    SecondLook(study, SPACE, LawTrainer()).take(law(study, t2=2.7))
    trainer = SimpleNamespace(tokens=1000, resumes=lambda mixture, seed: seed != 7)
    SecondLook(study, SPACE, trainer).take(law(study, t2=2.7))
    assert queued(study) == []
    trainer.resumes = lambda mixture, seed: mixture == mixture_at(study, 4)
    SecondLook(study, SPACE, trainer).take(law(study, t2=2.5, t4=2.7))
    assert queued(study) == [4]


def test_nothing_is_better_than_the_best_before_a_run_is_complete():
    study = optuna.create_study()
    add(study, TrialState.PRUNED)
    SecondLook(study, SPACE, KeepingTrainer()).take(law(study, t0=1.0))
    assert queued(study) == []


def test_runs_held_back_set_no_mark(study):
    add(study, TrialState.COMPLETE, 1.0, held_back=True)
    SecondLook(study, SPACE, KeepingTrainer()).take(law(study, t2=2.7))
    assert queued(study) == [2]


# Its successor in the books


def test_a_continued_run_takes_the_place_of_the_stopped_one(study):
    used = len(Budget(study).spent())
    SecondLook(study, SPACE, KeepingTrainer()).take(law(study, t2=2.7))
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    assert len(Budget(study).spent()) == used  # while it waits,
    assert 2 not in [r.number for r in ledger.records_of(study, SPACE)]
    assert [t.number for t in lessons(study, ended)] == [0, 1, 2, 3, 4]  # its curve is all there is
    trial = study.ask()
    assert len(Budget(study).spent()) == used  # while it runs,
    study.tell(trial, 2.6)
    assert len(Budget(study).spent()) == used  # and at its end
    assert [t.number for t in lessons(study, ended)] == [0, 1, 3, 4, 5]
    assert [r.number for r in ledger.records_of(study, SPACE)] == [0, 1, 3, 4, 5]


def test_one_that_fails_leaves_the_stopped_run_as_it_was(study):
    SecondLook(study, SPACE, KeepingTrainer()).take(law(study, t2=2.7))
    ledger.fail(study, study.ask().number, "out of memory")
    assert [r.number for r in ledger.records_of(study, SPACE)] == [0, 1, 2, 3, 4, 5]
    assert [c.run for c in curves_of(study, SPACE)] == ["0", "1", "2", "3", "4"]


def test_one_that_was_lost_is_repeated_for_the_same_run(study):
    SecondLook(study, SPACE, KeepingTrainer()).take(law(study, t2=2.7))
    lost = study.ask()
    assert ledger.requeue_lost(study) == 1
    assert queued(study) == [2]
    study.tell(study.ask(), 2.6)
    assert study.trials[lost.number].state == TrialState.FAIL
    assert [r.number for r in ledger.records_of(study, SPACE)] == [0, 1, 3, 4, 6]
    assert 2 not in [t.number for t in lessons(study, (TrialState.COMPLETE, TrialState.PRUNED))]


# The search


def check(study, trials):
    """No run is continued twice, or counts beside its successor; those that went on ended."""
    continued = [t for t in study.trials if CONTINUES in t.user_attrs]
    ended = [t for t in continued if t.state == TrialState.COMPLETE]
    of = [t.user_attrs[CONTINUES] for t in ended]
    assert len(of) == len(set(of)) > 0
    assert {t.user_attrs[CONTINUES] for t in continued} == set(of)
    for trial in ended:
        stopped = study.trials[trial.user_attrs[CONTINUES]]
        assert stopped.state == TrialState.PRUNED
        assert stopped.params == trial.params
        assert stopped.user_attrs["seed"] == trial.user_attrs["seed"]
        assert stopped.intermediate_values.items() <= trial.intermediate_values.items()
    records = ledger.records_of(study, SPACE)
    assert sum(r.role != "confirmation" for r in records) == trials
    seen = [(*r.mixture.values(), r.seed) for r in records]
    assert len(seen) == len(set(seen))
    assert not {r.number for r in records} & set(of)
    return ended


def test_a_search_continues_what_its_pruner_was_wrong_about(tmp_path):
    log = tmp_path / "log"
    result = search(
        SPACE,
        KeepingTrainer(log=str(log)),
        folder=tmp_path / "run",
        trials=9,
        pruner=StopsAll(),
        confirm_seeds=0,
    )
    study, _ = load_study(tmp_path / "run")
    ended = check(study, 9)
    assert min(t.value for t in ended) < min(r.objective for r in result.records[:2])
    assert len(log.read_text().splitlines()) == 9 + len(ended)
    assert all(r.state == "COMPLETE" for r in result.records if r.label == "continued")
    assert all(
        t.user_attrs.get("predicted")
        == study.trials[t.user_attrs[CONTINUES]].user_attrs.get("predicted")
        for t in ended
    )


SCRIPT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from test_second_look import SPACE, KeepingTrainer, StopsAll
from test_company import hurried
from bimix_tune import search
hurried()

def die(state):
    if sys.argv[4] == "die" and any(run.label == "continued" for run in state.running):
        os._exit(9)

search(SPACE, KeepingTrainer(sleep=float(sys.argv[5])), folder=sys.argv[2],
       storage=sys.argv[3] or None, trials=9, pruner=StopsAll(), confirm_seeds=0, monitor=die)
"""


def start(folder, url, *rest):
    arguments = [str(Path(__file__).parent), str(folder), url, *rest]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stderr=subprocess.PIPE, text=True
    )


def test_a_driver_that_is_killed_meanwhile(tmp_path):
    dead = start(tmp_path / "run", "", "die", "0.3")
    _, errors = dead.communicate(timeout=120)
    assert dead.returncode == 9, errors
    again = start(tmp_path / "run", "", "live", "0")
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    study, _ = load_study(tmp_path / "run")
    check(study, 9)
    lost = [t for t in study.trials if t.user_attrs.get("cause") == ledger.LOST]
    assert [CONTINUES in t.user_attrs for t in lost] == [True]


def test_two_drivers_continue_no_run_twice(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    drivers = [start(tmp_path / name / "run", url, "live", "0.05") for name in "ab"]
    for driver in drivers:
        _, errors = driver.communicate(timeout=300)
        assert driver.returncode == 0, errors
    study = optuna.load_study(study_name="run", storage=url)
    check(study, 9)
    assert len({t.user_attrs["driver"] for t in study.trials}) == 2
    study._storage._backend.engine.dispose()
