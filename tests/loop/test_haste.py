"""Proposals in haste, for runs that are shorter than a proposal takes."""

import concurrent.futures
import pickle
import threading

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


@pytest.fixture
def clock(monkeypatch):
    """Seconds of the monotonic clock, in a list, as plans know them."""
    now = [0.0]
    monkeypatch.setattr("bimix_tune.haste.time.monotonic", lambda: now[0])
    return now


def law_of_the_next(study):
    """The law behind the next proposal, which is trained and told."""
    trial = study.ask()
    mixture = suggest_mixture(trial, SPACE)
    law, _ = study.sampler.law_for(study, trial.number)
    study.tell(trial, report_losses(trial, 1000, losses(mixture)))
    return law


def test_a_law_serves_several_hasty_proposals_and_is_then_fitted_anew(study, clock):
    study.sampler.hasty = True
    laws = [law_of_the_next(study) for _ in range(3)]
    assert laws[0] is not None
    assert laws == [laws[0]] * 3
    clock[0] = 1.0  # a plan that was thought out in no time is old now
    law_of_the_next(study)
    concurrent.futures.wait([study.sampler._planner._next], 60)
    newest = law_of_the_next(study)
    assert newest is not laws[0]
    assert "15 runs" in newest.status


def test_slots_are_served_from_the_old_plan_while_the_next_is_thought_out(
    study, clock, monkeypatch
):
    fitted, go_on = study.sampler._fit, threading.Event()
    study.sampler.hasty = True
    first = law_of_the_next(study)

    def slowly(*args):
        assert go_on.wait(60)
        return fitted(*args)

    monkeypatch.setattr(study.sampler, "_fit", slowly)
    clock[0] = 1.0
    assert [law_of_the_next(study) for _ in range(12)] == [first] * 12
    go_on.set()
    concurrent.futures.wait([study.sampler._planner._next], 60)
    assert law_of_the_next(study) is not first


def test_an_error_in_the_thread_is_not_lost(study, clock, monkeypatch):
    study.sampler.hasty = True
    law_of_the_next(study)

    def broken(*args):
        raise ZeroDivisionError("of the thread")

    monkeypatch.setattr(study.sampler, "_fit", broken)
    clock[0] = 1.0
    law_of_the_next(study)
    concurrent.futures.wait([study.sampler._planner._next], 60)
    with pytest.raises(ZeroDivisionError, match="of the thread"):
        law_of_the_next(study)


def test_a_hasty_sampler_can_be_pickled(study):
    study.sampler.hasty = True
    law_of_the_next(study)
    again = pickle.loads(pickle.dumps(study.sampler))
    assert again.hasty
    study.sampler = again
    assert law_of_the_next(study) is not None


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
