import numpy as np
import optuna
import pytest

from bimix_tune import (
    BiMixSampler,
    SearchSpace,
    StopWhenSettled,
    fit,
    report_losses,
    suggest_mixture,
)
from bimix_tune.laws import optimise
from bimix_tune.stopping import expected_gain
from bimix_tune.training.synthetic import SyntheticTrainer

NAMES = ("web", "code", "books", "wiki")
SPACE = SearchSpace(NAMES)


def trained(trial, noise):
    trainer = SyntheticTrainer(domains=NAMES, noise=noise)
    mixture = suggest_mixture(trial, SPACE)
    points = list(trainer.run(mixture, seed=trial.number))
    return [report_losses(trial, p.tokens, p.losses, decayed=p.decayed) for p in points][-1]


def study_of(trials, noise=0.003, **options):
    study = optuna.create_study(sampler=BiMixSampler(SPACE, seed=0))
    study.optimize(lambda t: trained(t, noise), n_trials=trials, **options)
    return study


def test_less_is_to_be_gained_the_more_is_known():
    study = study_of(6)  # with 8 it is little already, and draws of laws decide
    stopper = StopWhenSettled(1e-9)
    early = stopper.gain(study)
    study.optimize(lambda t: trained(t, 0.003), n_trials=24)
    assert 0 < stopper.gain(study) < early


def test_the_gain_is_the_mean_over_draws_of_what_their_optimum_is_better_by():
    """Against random mixtures in place of the search for each draw's optimum."""
    study = study_of(10)
    law, tokens = study.sampler.fitted(study)
    found = expected_gain(law, SPACE, tokens, draws=6, seed=3)
    rng = np.random.default_rng(3)
    pool = np.random.default_rng(0).dirichlet(np.ones(4), 20_000)
    chosen = SPACE.array(optimise(law, SPACE, tokens))
    gains = []
    for _ in range(6):
        losses = law.draw(rng).losses_at(tokens).losses(np.vstack([chosen, pool])).mean(axis=1)
        gains.append(max(losses[0] - losses[1:].min(), 0.0))
    assert found == pytest.approx(np.mean(gains), rel=0.1, abs=2e-4)


def test_a_study_stops_when_no_run_is_worth_it():
    study = study_of(60, callbacks=[StopWhenSettled(0.02)])
    assert 4 <= len(study.trials) < 40
    never = study_of(12, callbacks=[StopWhenSettled(1e-9)])
    assert len(never.trials) == 12


def test_values_alone_are_judged_in_their_own_unit():
    """The same study in units a thousand times as large promises a thousand times the gain."""
    trainer = SyntheticTrainer(domains=NAMES)

    def gain(unit):
        def objective(trial):
            mixture = suggest_mixture(trial, SPACE)
            noise = np.random.default_rng(trial.number).normal(0, 0.003)
            return unit * (np.mean(list(trainer.expected(mixture, 1e6).values())) + noise)

        study = optuna.create_study(sampler=BiMixSampler(SPACE, seed=0))
        study.optimize(objective, n_trials=10)
        return StopWhenSettled(1.0).gain(study)

    assert gain(1000.0) == pytest.approx(1000 * gain(1.0), rel=0.02)


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="worth"):
        StopWhenSettled(0.0)
    study = optuna.create_study()
    with pytest.raises(ValueError, match="BiMixSampler"):
        StopWhenSettled(0.1).gain(study)
    several = optuna.create_study(directions=["minimize"] * 2, sampler=BiMixSampler(SPACE))
    with pytest.raises(ValueError, match="one objective"):
        StopWhenSettled(0.1).gain(several)
    assert StopWhenSettled(0.1).gain(optuna.create_study(sampler=BiMixSampler(SPACE))) is None


def test_a_law_fitted_by_hand_has_a_gain_too():
    study = study_of(8)
    from bimix_tune import curves_of

    law = fit(curves_of(study, SPACE), SPACE, judge=False)
    assert expected_gain(law, SPACE, 1e6, draws=4) >= 0
