"""Studies that ask for what is no mixture: said clearly, never resampled in silence."""

import optuna
import pytest

from bimix_tune import Domain, SearchSpace, suggest_mixture
from bimix_tune.errors import MixtureError


def ask_all(trial, names, high=1.0):
    return [trial.suggest_float("r_" + name, 0, high) for name in names]


def test_a_forgotten_proportion_is_named(problem):
    study = problem.study()

    def objective(trial):
        ask_all(trial, problem.names[:3])
        return 1.0

    with pytest.raises(MixtureError, match=r"3 proportions but not for \['r_law'\]"):
        study.optimize(objective, n_trials=1)
    assert study.trials[0].state.name == "COMPLETE"  # what was computed is not lost


def test_a_trial_that_fails_halfway_is_no_mistake(problem):
    study = problem.study()

    def objective(trial):
        ask_all(trial, problem.names[:3])
        raise ZeroDivisionError

    study.optimize(objective, n_trials=1, catch=ZeroDivisionError)
    assert study.trials[0].state.name == "FAIL"


def test_plain_suggestions_are_a_mixture_too(problem):
    study = problem.study()

    def objective(trial):
        r = ask_all(trial, problem.names)
        assert sum(r) == pytest.approx(1, abs=1e-9)
        return sum(problem.losses(dict(zip(problem.names, r, strict=True))).values())

    study.optimize(objective, n_trials=8)


def test_an_enqueued_sum_that_is_not_one_is_noticed_without_our_helper(problem):
    study = problem.study()
    study.enqueue_trial(dict.fromkeys(("r_web", "r_code", "r_books", "r_law"), 0.5))
    with pytest.raises(MixtureError, match="trial 0 sum to 2, not"):
        study.optimize(lambda t: sum(ask_all(t, problem.names)), n_trials=1)


@pytest.mark.parametrize("names", [("web",), ("web", "code", "books", "law")])
def test_an_enqueued_proportion_outside_its_bounds_is_refused(names):
    space = SearchSpace([Domain("web", high=0.5), "code", "books", "law"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({"r_" + n: 0.7 if n == "web" else 0.1 for n in names})
    with (
        pytest.warns(UserWarning, match="out of range"),
        pytest.raises(MixtureError, match=r"0\.7 of 'web', outside its bounds \[0, 0\.5\]"),
    ):
        suggest_mixture(study.ask(), space)


def test_a_partly_enqueued_proportion_outside_its_bounds_leaves_nothing_to_complete(problem):
    space = SearchSpace([Domain("web", high=0.5), "code", "books", "law"])
    study = problem.study(type(problem.sampler())(space, seed=0))
    study.enqueue_trial({"r_web": 0.7})
    with pytest.raises(MixtureError, match=r"0\.7 of 'web' is outside its bounds"):
        study.ask().suggest_float("r_code", 0, 1)


def test_a_sampler_that_fixes_some_proportions_is_refused(problem):
    fixing = optuna.samplers.PartialFixedSampler
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study = problem.study(fixing({"r_web": 0.5}, problem.sampler()))
    with pytest.raises(MixtureError, match=r"\['r_web'\] are fixed by a sampler around"):
        suggest_mixture(study.ask(), problem.space)


def test_a_sampler_that_fixes_other_parameters_is_welcome(problem):
    fixing = optuna.samplers.PartialFixedSampler
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study = problem.study(fixing({"rate": 0.5}, problem.sampler()))
    study.optimize(lambda t: problem.value(t) + t.suggest_float("rate", 0, 1), n_trials=7)
    assert {t.params["rate"] for t in study.trials} == {0.5}
    sums = [sum(v for k, v in t.params.items() if k != "rate") for t in study.trials]
    assert sums == pytest.approx([1] * 7, abs=1e-9)


def test_foreign_proportions_are_passed_over_with_one_warning(problem):
    study = problem.study(optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: sum(ask_all(t, problem.names)), n_trials=20)
    study.sampler = problem.sampler()
    with pytest.warns(UserWarning, match="20 trials are not learnt from") as caught:
        study.optimize(problem.objective, n_trials=8)
    assert len([w for w in caught if "learnt" in str(w.message)]) == 1
    assert min(t.value for t in study.trials[20:]) < problem.best() + 0.05
