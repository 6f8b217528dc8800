import numpy as np
import optuna
import pytest
from scipy import stats

from bimix_tune import BiMixPruner
from bimix_tune.pruner import probability_best


def test_probability_matches_the_textbook_prediction_interval():
    rng = np.random.default_rng(0)
    early = rng.normal(3, 0.3, 12)
    final = 0.5 + 0.8 * early + rng.normal(0, 0.05, 12)
    now = 3.4
    fit = stats.linregress(early, final)
    predicted = fit.intercept + fit.slope * now
    residual = final - fit.intercept - fit.slope * early
    s2 = residual @ residual / 10
    sd = np.sqrt(
        s2 * (1 + 1 / 12 + (now - early.mean()) ** 2 / ((early - early.mean()) ** 2).sum())
    )
    expected = stats.t.cdf((final.min() - predicted) / sd, 10)
    assert probability_best(early, final, now) == pytest.approx(expected, abs=1e-12)


def test_where_early_values_say_nothing_the_probability_is_no_verdict():
    rng = np.random.default_rng(1)
    early, final = rng.normal(size=40), rng.normal(size=40)
    assert probability_best(early, final, 3.0) > 0.05 / 41
    assert probability_best(-final, final, 3.0) == 1.0  # falling
    assert probability_best(np.ones(40), final, 3.0) == 1.0  # constant


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0, 30.0])
def test_few_of_the_runs_that_would_win_are_stopped(noise):
    rng = np.random.default_rng(2)
    stopped = would_win = 0
    for _ in range(4000):
        early = rng.normal(0, 1, 11)
        final = early + rng.normal(0, noise, 11)
        if final[-1] < final[:-1].min():
            would_win += 1
            stopped += probability_best(early[:-1], final[:-1], early[-1]) <= 0.05 / 11
    assert would_win > 200
    assert stopped / would_win <= 0.05


def test_most_hopeless_runs_are_stopped_where_early_values_tell():
    rng = np.random.default_rng(3)
    early = rng.normal(0, 1, 12)
    final = early + rng.normal(0, 0.1, 12)
    now = final.min() + np.linspace(1, 2, 20)
    chances = np.array([probability_best(early, final, x) for x in now])
    assert (chances <= 0.05 / 13).mean() > 0.9


def study_with(direction, sign):
    study = optuna.create_study(direction=direction, pruner=BiMixPruner(n_startup_trials=6))
    for i in range(8):
        trial = study.ask()
        trial.report(sign * (5 + 0.1 * i), 100)
        study.tell(trial, sign * (3 + 0.1 * i))
    return study


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_prunes_the_hopeless_and_keeps_the_hopeful_in_both_directions(direction, sign):
    study = study_with(direction, sign)
    trial = study.ask()
    trial.report(sign * 9.0, 100)
    assert trial.should_prune()
    trial = study.ask()
    trial.report(sign * 4.9, 100)
    assert not trial.should_prune()


def test_prunes_nothing_before_it_has_evidence():
    study = study_with("minimize", 1)
    trial = study.ask()
    assert not trial.should_prune()  # nothing reported
    trial.report(99.0, 200)  # a step that no complete trial has
    assert not trial.should_prune()
    early = optuna.create_study(pruner=BiMixPruner())
    trial = early.ask()
    trial.report(99.0, 100)
    assert not trial.should_prune()


def test_warm_up_is_respected():
    study = study_with("minimize", 1)
    study.pruner = BiMixPruner(n_warmup_tokens=101)
    trial = study.ask()
    trial.report(9.0, 100)
    assert not trial.should_prune()


@pytest.mark.parametrize(
    "options", [{"confidence": 0.2}, {"confidence": 1}, {"n_startup_trials": 3}]
)
def test_arguments_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        BiMixPruner(**options)
