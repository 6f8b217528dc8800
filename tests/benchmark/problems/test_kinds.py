"""What is particular to each kind of problem."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.optimize import minimize

from bimix_tune.benchmark import data_set, synthetic_data
from bimix_tune.benchmark.problems import Pool, Surrogate, Training, problems
from bimix_tune.benchmark.problems.lowest import lowest
from bimix_tune.benchmark.problems.pool import aim
from bimix_tune.benchmark.problems.starter import starter_swarm
from bimix_tune.benchmark.problems.surrogate import accuracy, fit_model
from bimix_tune.benchmark.problems.synthetic import NOISE, SYNTHETIC, Heteroscedastic, Saturation
from bimix_tune.curves import LossCurve
from bimix_tune.errors import ConfigError, CurveError, MixtureError, TrainingError
from bimix_tune.laws.optimum.objectives import Regret
from bimix_tune.mixture import Mixture
from bimix_tune.space import Domain, SearchSpace, Target
from bimix_tune.training.synthetic import SyntheticTrainer


@pytest.fixture(scope="module")
def repeated():
    """24 mixtures of two domains, the first three with three seeds; a target outside."""
    rng = np.random.default_rng(0)
    space = SearchSpace(["a", "b"], [Target("a", domain="a"), Target("b", domain="b"), Target("c")])
    curves = []
    for i, share in enumerate(np.linspace(0.02, 0.98, 24)):
        for seed in range(3 if i < 3 else 1):
            logs = [-0.1 * np.log(share), -0.2 * np.log(1 - share), 0.3 * share]
            noise = 0.01 * rng.standard_normal(3)
            rows = np.exp([1 + np.array(logs) + level + noise for level in (0.2, 0)])
            mixture = Mixture(["a", "b"], [share, 1 - share])
            curves.append(LossCurve(mixture, [50, 100], rows, ["a", "b", "c"], seed=seed))
    return data_set("two", curves, space=space, known={"uniform": space.uniform()}).swarms[0]


def test_a_pool_replays_what_was_recorded(repeated):
    pool = Pool.of(repeated, "two", "mean")
    assert pool.candidates.shape == (24, 2)
    assert pool.runs == 6
    assert set(pool.known) == {"uniform"}
    first = [[c.losses["a"] for c in pool.train(pool.candidates[0], s)] for s in range(4)]
    np.testing.assert_array_equal(first[:3], [c.losses[:, 0] for c in repeated.curves[:3]])
    assert first[3] == first[0]
    ends = np.mean([c.losses[-1, :2].mean() for c in repeated.curves[:3]])
    np.testing.assert_allclose(pool.truth(pool.candidates[:1]), ends)
    with pytest.raises(MixtureError, match="recorded mixtures only"):
        pool.truth(np.array([[0.5, 0.5]]))


def test_objectives_weigh_targets_and_leave_the_others_to_learn_from(repeated):
    weights = {o: aim(repeated, o)[0].weights.tolist() for o in ("mean", "ood", "b", "worst")}
    assert weights["mean"] == weights["worst"] == [0.5, 0.5, 0]
    assert (weights["ood"], weights["b"]) == ([0, 0, 1], [0, 1, 0])
    assert len(next(Pool.of(repeated, "two", "ood").train(repeated.proportions[0], 0)).losses) == 3
    space, worst = aim(repeated, "worst")
    assert isinstance(worst, Regret)
    assert worst.targets == space.target_names
    assert Pool.of(repeated, "two", "worst").best > 0
    with pytest.raises(ConfigError, match="no objective 'man' for two; did you mean 'mean'"):
        aim(repeated, "man")
    with pytest.raises(ConfigError, match="no objective 'ood'"):
        aim(synthetic_data(runs=24, domains=3).swarms[0], "ood")


def test_one_is_the_target_least_served_by_its_own_domain(repeated):
    """The second target is best in the runs with most of the first domain."""
    losses = [c.losses[:, [0, 0, 2]] + [0, 0.1, 0] for c in repeated.curves]
    curves = [
        dataclasses.replace(c, losses=x) for c, x in zip(repeated.curves, losses, strict=True)
    ]
    swarm = dataclasses.replace(repeated, curves=tuple(curves))
    assert aim(swarm, "one")[0].weights.tolist() == [0, 1, 0]


def test_the_embedded_swarm_is_complete():
    swarm = starter_swarm()
    k, targets = swarm.space.names, swarm.space.target_names
    assert (len(k), len(targets)) == (6, 7)
    assert [t for t in targets if t not in k] == ["recipes"]
    assert {len(c.tokens) for c in swarm.curves} == {10}
    assert {"natural", "uniform", "UniMax", "SE", "CE", "JE", "VNE"} == set(swarm.known)


def test_a_surrogate_predicts_runs_it_was_not_fitted_to():
    for objective in ("mean", "worst"):
        explained, ranks = accuracy(starter_swarm(), objective)
        assert explained > 0.7
        assert ranks > 0.9


def test_the_noise_of_a_surrogate_is_that_of_the_seeds(repeated):
    made = Surrogate.of(repeated, "two", "mean")
    model = made.model
    draws = [list(made.train(np.array([0.3, 0.7]), s))[-1].losses["a"] for s in range(400)]
    off = [repeated.final[3 * i : 3 * i + 3, 0] for i in range(3)]
    measured = np.sqrt(np.mean([np.log(o).var(ddof=1) for o in off]))
    assert np.log(draws).std() == pytest.approx(measured, rel=0.15)
    assert model is Surrogate.of(repeated, "two", "ood").model
    alone = dataclasses.replace(repeated, curves=repeated.curves[3:])
    assert fit_model(alone).scatter is not None
    assert fit_model(dataclasses.replace(repeated, curves=repeated.curves[9:])).scatter is None


def test_a_surrogate_needs_checkpoints_in_common(repeated):
    first = dataclasses.replace(repeated.curves[0], tokens=[1, 2])
    with pytest.raises(CurveError, match="no checkpoint in common"):
        fit_model(dataclasses.replace(repeated, curves=(first, *repeated.curves[1:])))


@pytest.mark.parametrize("name", SYNTHETIC)
def test_the_best_of_a_formula_is_found_by_another_search_too(name):
    """Sequential quadratic programming from many mixtures gets no lower than the pattern search."""
    (made,) = problems([name])
    k = len(made.space.names)
    starts = np.random.default_rng(2).dirichlet(np.full(k, 0.5), 2000)
    starts = starts[made.truth(starts).argsort()[:4]]
    total = {"type": "eq", "fun": lambda r: r.sum() - 1}
    for start in starts:
        found = minimize(
            lambda r: made.truth(np.clip(r, 0, 1)[None])[0],
            start,
            bounds=[(0, 1)] * k,
            constraints=total,
            method="SLSQP",
        )
        r = np.clip(found.x, 0, None)
        assert made.regret((r / r.sum())[None])[0] > -1e-4


def test_the_best_keeps_to_bounds_and_finds_a_kink():
    space = SearchSpace([Domain("a", high=0.5), Domain("b"), Domain("c", low=0.1)])
    found = lowest(lambda r: np.abs(r - [0.6, 0.25, 0.15]).max(axis=1), space)
    np.testing.assert_allclose(found, [0.5, 0.3, 0.2], atol=0.05)
    assert np.abs(found - [0.6, 0.25, 0.15]).max() == pytest.approx(0.1, abs=1e-5)


def test_optima_are_uneven():
    for made in problems(list(SYNTHETIC)):
        assert made.regret(np.full((1, len(made.space.names)), 1 / len(made.space.names)))[0] > 0.3
        assert 0.2 < made.optimum.max() < 0.95


def test_saturation_moves_with_the_tokens():
    made = Saturation.of(7)
    r = np.eye(7)
    np.testing.assert_array_equal(made.useful(r, 1.0).max(axis=1), np.minimum(made.caps, 1))
    assert (made.useful(r, 0.1).max(axis=1) >= made.useful(r, 1.0).max(axis=1)).all()


def test_the_noise_depends_on_the_mixture():
    made = Heteroscedastic.of(7)
    flat, corner = np.full(7, 1 / 7), np.eye(7)[0]
    assert made.spread(corner) == pytest.approx(10 * made.spread(flat))
    assert made.spread(flat) < NOISE < made.spread(corner)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counting(SyntheticTrainer):
    """Notes down the seeds of its trainings."""

    seen: list[int] = dataclasses.field(default_factory=list, compare=False, repr=False)
    short: bool = False

    def run(self, mixture, seed):
        self.seen.append(seed)
        points = list(super().run(mixture, seed))
        yield from points[:-1] if self.short else points


@pytest.fixture
def pool():
    return Pool.of(synthetic_data(runs=24, domains=3).swarms[0], "synthetic", "mean")


def test_a_training_is_judged_once_by_seeds_of_its_own(pool, tmp_path):
    trainer = Counting(domains=pool.space.names, checkpoints=8)
    made = Training.of(pool, trainer, tmp_path)
    assert made.name == "synthetic-mean-training"
    points = pool.candidates[:2]
    truth = made.truth(points)
    assert len(trainer.seen) == 4
    assert min(trainer.seen) > 1000
    np.testing.assert_array_equal(made.truth(points[::-1]), truth[::-1])
    assert len(trainer.seen) == 4
    kept = [json.loads(p.read_text()) for p in tmp_path.iterdir()]
    assert len(kept) == 2
    assert (made.best, made.typical) == (pool.best, pool.typical)


def test_a_training_needs_the_trainer_of_its_pool(pool, tmp_path):
    with pytest.raises(ConfigError, match="use the run file that it was recorded with"):
        Training.of(pool, SyntheticTrainer(domains=pool.space.names, tokens=2_000_000), tmp_path)


def test_a_training_that_ends_early_is_no_judgement(pool, tmp_path):
    made = Training.of(pool, Counting(domains=pool.space.names, short=True), tmp_path)
    with pytest.raises(TrainingError, match="ended before 1000000 tokens"):
        made.truth(pool.candidates[:1])
    assert not list(tmp_path.iterdir())
