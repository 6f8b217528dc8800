"""What every problem promises, run over the catalogue."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from bimix_tune.benchmark import synthetic_data
from bimix_tune.benchmark.problems import Training, problem_names, problems
from bimix_tune.training.synthetic import SyntheticTrainer

DATA = [synthetic_data(runs=24, domains=3)]
NAMES = [*problem_names(DATA), "synthetic-training"]
FAST = {"starter-mean", "starter-surrogate-mean", "transfer-7", "synthetic-worst"}
"""Those whose digests are computed again in another process."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All problems by name; each is made and solved once."""
    (pool,) = problems(["synthetic-mean"], DATA)
    trainer = SyntheticTrainer(domains=pool.space.names, checkpoints=8)
    training = Training.of(
        pool, trainer, tmp_path_factory.mktemp("judged"), name="synthetic-training"
    )
    return {p.name: p for p in [*problems(None, DATA), training]}


@pytest.fixture(params=NAMES)
def problem(request, made):
    return made[request.param]


def some(problem, count=200):
    """Mixtures that can be run."""
    rng = np.random.default_rng(5)
    if problem.candidates is not None:
        return problem.candidates
    if problem.kind == "training":
        count = 4
    alpha = np.ones(len(problem.space.names))
    dense, sparse = rng.dirichlet(alpha, count), rng.dirichlet(0.1 * alpha, count)
    return np.concatenate([dense, sparse])


def end(problem, r, seed):
    last = list(problem.train(r, seed))[-1]
    losses = np.array([last.losses[t] for t in problem.space.target_names])
    return float(problem.objective.value(losses, problem.space.weights))


def test_a_run_has_all_losses_and_ends_at_the_tokens(problem):
    points = list(problem.train(some(problem)[0], 3))
    tokens = [p.tokens for p in points]
    assert sorted(set(tokens)) == tokens
    assert tokens[-1] == problem.tokens
    for point in points:
        assert set(point.losses) == set(problem.space.target_names)
        assert all(np.isfinite(v) and v > 0 for v in point.losses.values())


def test_a_run_repeats_itself_and_has_the_noise_of_its_seed(problem):
    points = some(problem)
    ends = [[end(problem, r, s) for s in range(3)] for r in points[:8]]
    assert ends[0] == [end(problem, points[0], s) for s in range(3)]
    if problem.kind != "pool":
        assert len(set(ends[0])) == 3


def test_truth_is_what_runs_scatter_around(problem):
    """To a few percent of a loss: two of the objectives are differences or greatest of losses."""
    points = some(problem)[:6]
    ends = np.array([[end(problem, r, s) for s in range(12)] for r in points])
    level = np.mean(list(list(problem.train(points[0], 0))[-1].losses.values()))
    np.testing.assert_allclose(ends.mean(axis=1), problem.truth(points), atol=0.04 * level)


def test_nothing_is_better_than_the_best(problem):
    if problem.kind == "training":
        pytest.skip("a search may beat the recorded runs that set the scale")
    points = some(problem, 4000)
    assert problem.truth(points).min() >= problem.best - 1e-9
    assert problem.truth(points).min() < problem.typical


def test_regret_is_zero_at_the_best_and_one_at_a_typical_mixture(problem):
    assert problem.typical > problem.best
    if problem.kind == "training":
        return
    regret = problem.regret(some(problem))
    assert regret.min() >= -1e-9
    np.testing.assert_allclose(problem.regret(problem.optimum[None]), 0, atol=1e-9)
    if problem.kind == "pool":
        np.testing.assert_allclose(np.median(regret), 1)


def test_the_setting_is_within_the_rules(problem):
    setting = problem.setting(7)
    assert (setting.runs, setting.seed) == (problem.runs, 7)
    assert problem.setting(7, 5).runs == 5
    assert problem.name == problem.name.lower()
    assert " " not in problem.name
    for mixture in [*problem.known.values(), *map(problem.space.mixture, some(problem)[:5])]:
        assert problem.space.violation(mixture) is None
    if problem.candidates is not None:
        assert problem.runs <= len(problem.candidates) / 2


def test_a_problem_pickles(problem):
    copy = pickle.loads(pickle.dumps(problem))
    assert copy.digest == problem.digest
    r = some(problem)[0]
    assert end(copy, r, 1) == end(problem, r, 1)
    np.testing.assert_array_equal(copy.truth(r[None]), problem.truth(r[None]))


def test_digests_differ_and_are_the_same_in_another_process(made):
    digests = {name: p.digest for name, p in made.items()}
    assert len(set(digests.values())) == len(digests)
    code = f"""
        import json
        from bimix_tune.benchmark import synthetic_data
        from bimix_tune.benchmark.problems import problems
        found = problems({sorted(FAST)}, [synthetic_data(runs=24, domains=3)])
        print(json.dumps({{p.name: p.digest for p in found}}))
    """.replace("\n        ", "\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {name: digests[name] for name in FAST}
