"""Proposals in haste, for runs that are shorter than a proposal takes."""

import numpy as np
import optuna
import pytest

from bimix_tune import BiMixSampler, SearchSpace, report_losses, suggest_mixture

SPACE = SearchSpace(["web", "code", "books", "law"])
LEVEL = np.array([2.0, 1.5, 3.0, 2.5])


def losses(mixture):
    r = SPACE.array(mixture)
    return dict(zip(SPACE.names, (LEVEL * (0.02 + r) ** -0.2).tolist(), strict=True))


def run(study, count):
    for _ in range(count):
        trial = study.ask()
        study.tell(trial, report_losses(trial, 1000, losses(suggest_mixture(trial, SPACE))))


@pytest.fixture
def study():
    sampler = BiMixSampler(SPACE, seed=0)
    found = optuna.create_study(sampler=sampler)
    run(found, 12)
    return found


def test_hasty_proposals_are_good_and_differ(study):
    study.sampler.hasty = True
    careful = study.best_value
    run(study, 40)
    mixtures = np.array([list(t.params.values()) for t in study.trials])
    assert mixtures.sum(axis=1) == pytest.approx(np.ones(52), abs=1e-9)
    distance = np.abs(mixtures[:, None] - mixtures[None]).max(axis=2)
    assert distance[~np.eye(52, dtype=bool)].min() > 1e-5
    draws = np.random.default_rng(0).dirichlet(np.ones(4), 2000)
    random = np.median([np.mean(list(losses(SPACE.mixture(r)).values())) for r in draws])
    hasty = [t.value for t in study.trials[12:]]
    assert np.median(hasty) - careful < 0.2 * (random - careful)


def test_a_law_serves_several_hasty_proposals_and_is_then_fitted_anew(study, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("bimix_tune.sampler.time.monotonic", lambda: now[0])
    sampler = study.sampler
    sampler.hasty = True
    laws = []
    for second in range(3):
        now[0] = second
        sampler._plan = sampler._plan and type(sampler._plan)(
            **{**vars(sampler._plan), "until": 1.5}
        )
        trial = study.ask()
        mixture = suggest_mixture(trial, SPACE)
        laws.append(sampler.law_for(study, trial.number)[0])
        study.tell(trial, report_losses(trial, 1000, losses(mixture)))
    assert laws[0] is not None
    assert laws[1] is laws[0]
    assert laws[2] is not laws[0]


def test_an_enqueued_mixture_is_kept_in_haste(study):
    study.sampler.hasty = True
    run(study, 2)
    study.enqueue_trial({"r_web": 0.7})
    trial = study.ask()
    assert suggest_mixture(trial, SPACE)["web"] == 0.7


def test_without_haste_proposals_are_what_they_were(study):
    careful = suggest_mixture(study.ask(), SPACE)
    again = optuna.create_study(sampler=BiMixSampler(SPACE, seed=0))
    again.add_trials(study.trials[:12])
    assert suggest_mixture(again.ask(), SPACE) == careful
