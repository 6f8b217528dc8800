import math

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune import BiMixPruner, Domain, SearchSpace, report_losses, suggest_mixture
from bimix_tune.training.synthetic import SyntheticTrainer
from bimix_tune.trials import HELD_BACK

NAMES = ("web", "code", "books", "wiki")


def study_with(direction="minimize", sign=1.0, n=8, **options):
    """A study whose complete trials have values from 3 to 3.7 at the end, 5 to 5.7 at 100."""
    study = optuna.create_study(direction=direction, pruner=BiMixPruner(**options))
    levels = np.linspace(0, 0.7, n) + np.random.default_rng(0).normal(0, 0.01, n)
    for level in levels:
        trial = study.ask()
        trial.report(sign * (5 + level), 100)
        trial.report(sign * (3 + level), 200)
        study.tell(trial, sign * (3 + level + 0.01 * math.sin(99 * level)))
    return study


def verdict_on(study, value, step=100):
    trial = study.ask()
    trial.report(value, step)
    return trial.should_prune()


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_prunes_the_hopeless_and_keeps_the_hopeful_in_both_directions(direction, sign):
    study = study_with(direction, sign)
    assert verdict_on(study, sign * 9.0)
    assert verdict_on(study, sign * 5.5)
    assert not verdict_on(study, sign * 4.9)


def test_the_verdict_is_told():
    study = study_with()
    trial = study.ask()
    trial.report(5.5, 100)
    told = study.pruner.verdict(study, study.trials[trial.number])
    assert told.stop
    assert told.earned
    assert 0 <= told.chance < 0.05
    assert 0 <= told.improvement <= told.allowance


def test_prunes_nothing_before_it_has_evidence():
    study = study_with()
    assert not study.ask().should_prune()  # nothing reported
    assert not verdict_on(study, 99.0, 200)  # the end
    assert not verdict_on(study, 99.0, 50)  # before any other was measured
    assert not verdict_on(study_with(n=5), 99.0)
    assert verdict_on(study_with(n=6), 99.0)
    assert not verdict_on(study_with(n=8, n_startup_trials=9), 99.0)
    assert not verdict_on(optuna.create_study(pruner=BiMixPruner()), 99.0)


def test_a_step_of_its_own_is_judged_between_those_of_the_others():
    study = optuna.create_study(pruner=BiMixPruner())
    for level in np.random.default_rng(1).random(8):
        trial = study.ask()
        for step in (100, 200, 400):
            trial.report(3 + level + 100 / step, step)
        study.tell(trial, 3 + level + 0.01 * math.sin(99 * level))
    assert verdict_on(study, 6.0, 150)
    assert not verdict_on(study, 3.5, 150)


def test_warm_up_is_respected():
    study = study_with(n_warmup_tokens=101)
    assert not verdict_on(study, 9.0)


def test_trials_held_back_neither_teach_nor_are_pruned():
    study = study_with()
    trial = study.ask()
    trial.set_user_attr(HELD_BACK, True)
    trial.report(9.0, 100)
    assert not trial.should_prune()
    fresh = optuna.create_study(pruner=BiMixPruner())
    for other in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        attrs = {HELD_BACK: True} if other.number < 3 else {}
        fresh.add_trial(
            optuna.trial.create_trial(
                value=other.value, intermediate_values=other.intermediate_values, user_attrs=attrs
            )
        )
    assert not verdict_on(fresh, 9.0)


def test_more_trials_ended_leave_less_to_give_up():
    study = study_with()
    trial = study.ask()
    trial.report(5.1, 100)
    frozen = study.trials[trial.number]
    before = study.pruner.verdict(study, frozen)
    for _ in range(8):
        other = study.ask()
        other.report(5.6, 100)
        study.tell(other, state=optuna.trial.TrialState.PRUNED)
    after = study.pruner.verdict(study, frozen)
    assert after.allowance == pytest.approx(before.allowance * 9 / 17)
    assert after.improvement == before.improvement


def test_several_objectives_are_not_pruned():
    study = optuna.create_study(directions=["minimize", "minimize"])
    frozen = optuna.trial.create_trial(values=[1.0, 2.0], intermediate_values={100: 9.0})
    assert not BiMixPruner().prune(study, frozen)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(), st.floats(), st.floats(allow_nan=False)), min_size=5, max_size=8
    ),
    st.floats(),
)
def test_odd_values_never_raise(rows, now):
    study = optuna.create_study(pruner=BiMixPruner(n_startup_trials=5))
    for first, second, final in rows:
        trial = study.ask()
        trial.report(first, 0)
        trial.report(second, 7)
        study.tell(trial, final)
    for step in (0, 3, 7):
        assert verdict_on(study, now, step) in (True, False)


@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler, optuna.samplers.RandomSampler])
def test_saves_tokens_at_equal_quality_under_other_samplers(sampler):
    space = SearchSpace([Domain(name) for name in NAMES])
    trainer = SyntheticTrainer(checkpoints=10)

    def search(pruner):
        study = optuna.create_study(sampler=sampler(seed=3), pruner=pruner)
        used = 0

        def objective(trial):
            nonlocal used
            seen = 0
            for point in trainer.run(suggest_mixture(trial, space), trial.number):
                value = report_losses(trial, point.tokens, point.losses, decayed=point.decayed)
                used, seen = used + point.tokens - seen, point.tokens
                if trial.should_prune():
                    raise optuna.TrialPruned
            return value

        study.optimize(objective, n_trials=30)
        return study.best_value, used / (30 * trainer.tokens)

    whole, all_of_it = search(optuna.pruners.NopPruner())
    thrifty, used = search(BiMixPruner())
    assert all_of_it == 1
    assert used < 0.6
    assert thrifty < whole + 0.01


@pytest.mark.parametrize(
    "options", [{"confidence": 0.2}, {"confidence": 1}, {"n_startup_trials": 4}]
)
def test_arguments_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        BiMixPruner(**options)
