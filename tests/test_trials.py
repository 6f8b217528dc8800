import math

import optuna
import pytest
from optuna.distributions import FloatDistribution

from bimix_tune import Domain, SearchSpace, Target, report_losses, suggest_mixture
from bimix_tune.errors import CurveError, MixtureError
from bimix_tune.trials import curve_of, curves_of, mixture_of

SPACE = SearchSpace(
    ["web", "code", "books"],
    [Target("web", 1, "web"), Target("code", 3, "code")],
)


def new_study(**options):
    return optuna.create_study(**options)


def test_any_sampler_gives_a_mixture_and_what_was_used_is_recorded():
    study = new_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    mixture = suggest_mixture(trial, SPACE)
    assert sum(mixture.values()) == pytest.approx(1, abs=1e-9)
    study.tell(trial, 1.0)
    assert sum(study.trials[0].params.values()) != pytest.approx(1, abs=1e-3)
    assert dict(mixture_of(study.trials[0], SPACE)) == dict(mixture)


def test_an_enqueued_mixture_is_used_as_it_is():
    study = new_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({"r_web": 0.5, "r_code": 0.25, "r_books": 0.25})
    assert dict(suggest_mixture(study.ask(), SPACE)) == {"web": 0.5, "code": 0.25, "books": 0.25}


def test_an_enqueued_mixture_off_the_simplex_is_refused():
    study = new_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({"r_web": 0.5, "r_code": 0.5, "r_books": 0.5})
    with pytest.raises(MixtureError, match=r"sum to 1\.5"):
        suggest_mixture(study.ask(), SPACE)


def test_losses_become_the_weighted_objective_and_a_curve():
    study = new_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    mixture = suggest_mixture(trial, SPACE)
    assert report_losses(trial, 200, {"web": 4.0, "code": 2.0}) == pytest.approx(2.5)
    last = report_losses(trial, 1000, {"web": 3.0, "code": 1.0, "extra": 9.0}, decayed=True)
    assert last == pytest.approx(1.5)
    study.tell(trial, last)
    curve = curve_of(study.trials[0], SPACE)
    assert curve.tokens.tolist() == [200, 1000]
    assert curve.losses.tolist() == [[4.0, 2.0], [3.0, 1.0]]
    assert curve.decayed.tolist() == [False, True]
    assert dict(curve.mixture) == pytest.approx(dict(mixture))
    assert study.trials[0].intermediate_values == {200: 2.5, 1000: 1.5}


def test_a_missing_target_is_named():
    study = new_study()
    trial = study.ask()
    suggest_mixture(trial, SPACE)
    with pytest.raises(CurveError, match="'code'; did you mean 'cod'"):
        report_losses(trial, 10, {"web": 1.0, "cod": 1.0})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_loss_fails_the_trial_and_records_nothing(bad):
    study = new_study()

    def objective(trial):
        suggest_mixture(trial, SPACE)
        return report_losses(trial, 10, {"web": bad, "code": 1.0})

    # an infinite mean is reported as NaN too, since no law can learn from it
    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == optuna.trial.TrialState.FAIL
    assert curve_of(study.trials[0], SPACE) is None


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_a_loss_that_is_not_positive_is_refused(bad):
    study = new_study()
    trial = study.ask()
    suggest_mixture(trial, SPACE)
    with pytest.raises(CurveError, match="that of 'code' is"):
        report_losses(trial, 10, {"web": 1.0, "code": bad})
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert curves_of(study, SPACE) == []


def test_trials_that_are_held_back_teach_nothing():
    study = new_study()
    for held in (False, True):
        trial = study.ask()
        suggest_mixture(trial, SPACE)
        trial.set_user_attr("held_back", held)
        study.tell(trial, report_losses(trial, 10, {"web": 2.0, "code": 1.0}))
    assert [c.run for c in curves_of(study, SPACE)] == ["0"]


@pytest.mark.parametrize(
    ("tokens", "loss", "message"),
    [
        (-1, 1.0, "tokens must be >= 0"),
        (5, "a", "'web' must be a number, but got 'a'"),
        (5, None, "'web' must be a number"),
        (5, True, "'web' must be a number"),
    ],
)
def test_wrong_reports_are_named(tokens, loss, message):
    trial = new_study().ask()
    suggest_mixture(trial, SPACE)
    with pytest.raises(CurveError, match=message):
        report_losses(trial, tokens, {"web": loss, "code": 1.0})


def test_an_evaluation_before_training_goes_to_optuna_alone():
    study = new_study()
    trial = study.ask()
    suggest_mixture(trial, SPACE)
    report_losses(trial, 0, {"web": 9.0, "code": 9.0})
    study.tell(trial, report_losses(trial, 10, {"web": 2.0, "code": 1.0}))
    assert study.trials[0].intermediate_values[0] == 9.0
    assert curve_of(study.trials[0], SPACE).tokens.tolist() == [10]


def test_a_trial_without_a_study_gives_the_nearest_mixture():
    fixed = optuna.trial.FixedTrial({"r_web": 0.6, "r_code": 0.4, "r_books": 0.2})
    expected = {"web": 0.5, "code": 1 / 3, "books": 1 / 6}
    assert dict(suggest_mixture(fixed, SPACE)) == pytest.approx(expected)
    study = new_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.tell(study.ask({"r_" + n: FloatDistribution(0, 1) for n in SPACE.names}), 1.0)
    assert sum(suggest_mixture(study.best_trial, SPACE).values()) == pytest.approx(1)


def test_running_and_failed_trials_leave_no_curve():
    study = new_study()
    for state in (None, optuna.trial.TrialState.FAIL, optuna.trial.TrialState.PRUNED):
        trial = study.ask()
        suggest_mixture(trial, SPACE)
        report_losses(trial, 10, {"web": 2.0, "code": 1.0})
        if state is not None:
            study.tell(trial, state=state)
    assert [c.run for c in curves_of(study, SPACE)] == ["2"]


def test_trials_of_other_parameters_have_no_mixture():
    study = new_study()
    study.add_trial(
        optuna.trial.create_trial(
            params={"x": 0.5},
            distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
            value=1.0,
        )
    )
    assert mixture_of(study.trials[0], SPACE) is None


def test_a_space_of_one_domain_is_a_mixture():
    space = SearchSpace([Domain("all", low=1, high=1)])
    assert dict(suggest_mixture(new_study().ask(), space)) == {"all": 1.0}
