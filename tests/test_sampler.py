import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune import BiMixSampler, Domain, SearchSpace, report_losses, suggest_mixture
from bimix_tune.errors import MixtureError
from bimix_tune.proposals import startup_mixture, trust_region

NAMES = ("web", "code", "books", "law")
SPACE = SearchSpace([Domain(n, prior=p) for n, p in zip(NAMES, (6, 2, 1, 1), strict=True)])
ALPHA = np.array([0.05, 0.3, 0.15, 0.1])
LEVEL = np.array([2.0, 1.5, 3.0, 2.5])


def losses_of(mixture, tokens=1000):
    r = np.array([mixture[n] for n in NAMES])
    values = (0.02 + r) ** -ALPHA * (LEVEL + 20 * tokens**-0.5)
    return dict(zip(NAMES, values.tolist(), strict=True))


def objective(trial):
    mixture = suggest_mixture(trial, SPACE)
    return [report_losses(trial, t, losses_of(mixture, t)) for t in (300, 1000)][-1]


def scalar_objective(trial):
    return float(np.mean(list(losses_of(suggest_mixture(trial, SPACE)).values())))


def study_of(sampler=None, **options):
    return optuna.create_study(sampler=sampler or BiMixSampler(SPACE, seed=0), **options)


def best_possible():
    draws = np.random.default_rng(0).dirichlet(np.ones(4), 20_000)
    return float(np.mean((0.02 + draws) ** -ALPHA * (LEVEL + 20 * 1000**-0.5), axis=1).min())


def test_finds_the_optimum_of_a_law_in_few_trials():
    study = study_of()
    study.optimize(objective, n_trials=12)
    assert study.best_value < best_possible() + 0.002
    sums = [sum(t.params.values()) for t in study.trials]
    assert max(abs(s - 1) for s in sums) < 1e-9


def test_a_study_of_values_alone_improves_on_its_start_up():
    study = study_of()
    study.optimize(scalar_objective, n_trials=20)
    values = [t.value for t in study.trials]
    assert min(values) < min(values[:5])
    assert min(values) < best_possible() + 0.05


def test_maximising_is_the_mirror_image():
    study = study_of(direction="maximize")
    study.optimize(lambda t: -scalar_objective(t), n_trials=20)
    assert study.best_value > -(best_possible() + 0.05)


def test_ask_and_tell_with_a_seed_is_reproducible():
    params = []
    for _ in range(2):
        study = study_of(BiMixSampler(SPACE, seed=7))
        study.optimize(objective, n_trials=9)
        params.append([t.params for t in study.trials])
    assert params[0] == params[1]


def test_proposals_in_parallel_differ():
    study = study_of()
    study.optimize(objective, n_trials=8)
    mixtures = [suggest_mixture(study.ask(), SPACE) for _ in range(4)]
    assert len({tuple(m.values()) for m in mixtures}) == 4


def test_start_up_begins_with_natural_and_uniform():
    study = study_of()
    first = [suggest_mixture(study.ask(), SPACE) for _ in range(2)]
    assert dict(first[0]) == pytest.approx(dict(SPACE.natural()))
    assert dict(first[1]) == pytest.approx(dict(SPACE.uniform()))


def test_threads_share_a_sampler():
    """Runs have noise: of losses without any the law is certain, and draws may have one optimum."""

    def noisy(trial):
        mixture = suggest_mixture(trial, SPACE)
        noise = np.exp(0.003 * np.random.default_rng(trial.number).standard_normal(4))
        losses = np.array(list(losses_of(mixture).values())) * noise
        return report_losses(trial, 1000, dict(zip(NAMES, losses.tolist(), strict=True)))

    study = study_of()
    study.optimize(noisy, n_trials=12, n_jobs=4)
    assert {t.state.name for t in study.trials} == {"COMPLETE"}
    assert len({tuple(t.params.values()) for t in study.trials}) == 12


def test_other_parameters_go_to_the_inner_sampler():
    study = study_of()

    def with_rate(trial):
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return objective(trial) + (np.log10(rate) + 2) ** 2 + (kind == "b")

    study.optimize(with_rate, n_trials=15)
    assert all(set(t.params) == {*("r_" + n for n in NAMES), "rate", "kind"} for t in study.trials)
    assert max(abs(sum(t.params["r_" + n] for n in NAMES) - 1) for t in study.trials) < 1e-9


def test_a_partly_enqueued_mixture_is_completed():
    study = study_of()
    study.optimize(objective, n_trials=8)
    study.enqueue_trial({"r_web": 0.7, "r_code": 0.1})
    mixture = suggest_mixture(study.ask(), SPACE)
    assert (mixture["web"], mixture["code"]) == (0.7, 0.1)
    assert sum(mixture.values()) == pytest.approx(1, abs=1e-9)


def test_an_impossible_enqueued_mixture_is_refused():
    study = study_of()
    study.enqueue_trial({"r_web": 0.9, "r_code": 0.9})
    with pytest.raises(MixtureError, match=r"lower bounds sum to 1\.8"):
        suggest_mixture(study.ask(), SPACE)


def test_bounds_that_disagree_with_the_space_are_refused():
    study = study_of()
    with pytest.raises(MixtureError, match="'r_web'"):
        suggest_mixture(study.ask(), SearchSpace([Domain("web", high=1e-6), *NAMES[1:]]))


def test_bounds_and_fixed_domains_are_kept():
    space = SearchSpace(
        [
            Domain("web", low=0.5),
            Domain("code", high=0.1),
            Domain("books", low=0.2, high=0.2),
            "law",
        ]
    )
    study = study_of(BiMixSampler(space, seed=0))

    def bounded(trial):
        mixture = suggest_mixture(trial, space)
        assert space.violation(mixture) is None
        return report_losses(trial, 1000, losses_of(mixture))

    study.optimize(bounded, n_trials=10)
    assert {t.state.name for t in study.trials} == {"COMPLETE"}


def test_failed_and_pruned_trials_and_other_trials_do_no_harm():
    study = study_of()
    study.add_trial(
        optuna.trial.create_trial(
            params={"x": 0.5},
            distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
            value=1.0,
        )
    )

    def shaky(trial):
        value = objective(trial)
        if trial.number % 3 == 0:
            raise optuna.TrialPruned
        return float("nan") if trial.number % 4 == 0 else value

    study.optimize(shaky, n_trials=14)
    assert study.best_value < 3.2


def test_pickles_and_goes_on():
    study = study_of()
    study.optimize(objective, n_trials=8)
    expected = study.sampler.propose(study, study.ask()._get_latest_trial())
    copy = pickle.loads(pickle.dumps(study.sampler))
    number = len(study.trials) - 1
    again = copy.propose(study, study.get_trials(deepcopy=False)[number])
    assert again.tolist() == expected.tolist()


def test_several_processes_may_share_a_storage(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=url, study_name="s")

    def work(seed):
        study = optuna.load_study(
            storage=url, study_name="s", sampler=BiMixSampler(SPACE, seed=seed)
        )
        study.optimize(objective, n_trials=4)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    trials = optuna.load_study(storage=url, study_name="s").trials
    assert {t.state.name for t in trials} == {"COMPLETE"}
    assert len(trials) == 12


def test_one_sampler_serves_several_studies():
    """What it learnt in one study must not leak into another."""
    sampler = BiMixSampler(SPACE, seed=0, n_startup_trials=4)

    def favouring(index):
        def objective(trial):
            mixture = suggest_mixture(trial, SPACE)
            losses = dict.fromkeys(NAMES, 1 + 2 * (0.02 + mixture[NAMES[index]]) ** (-0.3))
            return report_losses(trial, 1000, losses)

        return objective

    best = []
    for index in (0, 1):
        study = study_of(sampler)
        study.optimize(favouring(index), n_trials=12)
        best.append(suggest_mixture(study.ask(), SPACE))
    assert best[0]["web"] > 0.5 > best[0]["code"]
    assert best[1]["code"] > 0.5 > best[1]["web"]


def test_losses_in_a_study_that_maximises_are_refused():
    study = study_of(direction="maximize")
    with pytest.raises(ValueError, match="losses are minimised"):
        study.optimize(objective, n_trials=8)


def test_infinite_objectives_teach_nothing():
    study = study_of()
    study.optimize(
        lambda t: np.inf if t.number == 3 else scalar_objective(t),
        n_trials=10,
    )
    assert study.best_value < 3.6


def test_an_unknown_law_is_refused_at_once():
    with pytest.raises(ValueError, match="did you mean 'bimix'"):
        BiMixSampler(SPACE, law="bimx")


def test_a_negative_start_up_is_refused():
    with pytest.raises(ValueError, match="n_startup_trials"):
        BiMixSampler(SPACE, n_startup_trials=-1)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10**6))
def test_start_up_and_trust_region_stay_feasible(k, seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.5 / k, k)
    high = np.minimum(low + rng.uniform(0.5 / k, 1, k), 1)
    high = np.maximum(high, 1.2 / k)
    space = SearchSpace(
        [
            Domain(f"d{i}", low=float(a), high=float(b))
            for i, (a, b) in enumerate(zip(low, high, strict=True))
        ]
    )
    tried = np.empty((0, k))
    for _ in range(6):
        r = startup_mixture(space, tried, rng)
        assert r.sum() == pytest.approx(1, abs=1e-9)
        assert space.violation(space.mixture(r)) is None
        tried = np.vstack([tried, r])
    region = trust_region(space, tried)
    assert (region.low >= space.low).all()
    assert (region.high <= space.high).all()
    assert all(region.violation(space.mixture(r)) is None for r in tried)


def test_start_up_trials_asked_for_at_one_moment_differ():
    """As if by several processes: each trial exists before any of them has its mixture."""
    study = study_of()
    trials = [study.ask() for _ in range(4)]
    mixtures = [suggest_mixture(t, SPACE) for t in reversed(trials)]
    assert len({tuple(m.values()) for m in mixtures}) == 4


def test_two_that_start_at_once_do_not_share_a_mixture_that_is_natural_and_uniform():
    space = SearchSpace([Domain(name) for name in "abc"])
    rng = np.random.default_rng(0)
    first, second = (startup_mixture(space, np.empty((0, 3)), rng, skip=skip) for skip in (0, 1))
    assert first == pytest.approx(np.full(3, 1 / 3))
    assert np.abs(first - second).max() > 1e-3
