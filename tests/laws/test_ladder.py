"""The ladder: which rungs there are, how they are weighed, and what the blend is worth."""

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune.curves import LossCurve
from bimix_tune.laws import fit
from bimix_tune.laws.bimix import Bimix
from bimix_tune.laws.catalogue import ENOUGH_MIXTURES, FEW_MIXTURES, ladder_of
from bimix_tune.laws.ladder import Ladder, Step, climb, covariance
from bimix_tune.laws.observations import observe
from bimix_tune.laws.transfer import Transfer
from bimix_tune.laws.transported import Transported
from bimix_tune.space import SearchSpace, Target

TRUTHS = {
    "own": {},
    "transfer": {"transfer": True},
    "sums": {"ownless": 2, "sums": True},
    "transfer and more targets": {"transfer": True, "ownless": 2},
}


def names_of(seen, space, small=None):
    return [step.name for step in ladder_of(seen, space, small)]


def small_law(known, seen):
    return Transported(climb([Step(Bimix(), False)], seen, known.space), np.zeros(5))


def test_rungs_suit_the_targets_and_the_number_of_mixtures(synthetic):
    rng = np.random.default_rng(0)
    known = synthetic.truth(rng, 4, ownless=1)
    curves = synthetic.runs(known, rng, ENOUGH_MIXTURES, 0.01, 1)
    domains, targets = known.space.domains, known.space.targets
    few, enough = (observe(curves[:n], known.space) for n in (FEW_MIXTURES - 1, FEW_MIXTURES))
    own = SearchSpace(domains, targets[:4])
    assert names_of(few, own) == ["bimix"]
    assert names_of(enough, own) == ["transfer", "bimix + process", "transfer + process"]
    both = names_of(enough, known.space)
    assert both == [*names_of(enough, own), "additive", "additive + process"]
    alone = SearchSpace(domains, targets[4:])
    weightless = SearchSpace(domains, [Target("d0", 0.0, "d0"), *targets[4:]])
    for space in (alone, weightless):
        assert names_of(few, space) == ["additive"]
        assert names_of(enough, space)[:2] == ["additive", "linear"]
        assert not any("bimix" in name for name in names_of(enough, space))


def test_a_smaller_size_is_relied_on_where_runs_are_few(synthetic):
    rng = np.random.default_rng(0)
    known = synthetic.truth(rng, 4, ownless=1)
    curves = synthetic.runs(known, rng, ENOUGH_MIXTURES, 0.01, 1)
    few, enough = (observe(curves[:n], known.space) for n in (ENOUGH_MIXTURES - 1, ENOUGH_MIXTURES))
    small = small_law(known, enough)
    lean = ["transported", "transported + process"]
    assert names_of(few, known.space, small) == lean
    full = names_of(enough, known.space, small)
    assert set(full) > set(lean) and full[0] == "transfer"


@pytest.mark.parametrize("ownless", [0, 1])
def test_weights_sum_to_one_for_every_target(ownless, synthetic):
    """And go as inverse squares of the errors left out, by kind of target, a little sharper: to
    the power of one and a 64th for each run."""
    rng = np.random.default_rng(1)
    known = synthetic.truth(rng, 4, transfer=True, ownless=ownless)
    seen = observe(synthetic.runs(known, rng, 10, 0.01, 3), known.space)
    ladder = climb(ladder_of(seen, known.space, None), seen, known.space)
    np.testing.assert_allclose(ladder.weights.sum(0), 1.0, rtol=1e-12)
    assert (ladder.weights > 0).all()
    left = np.stack([(seen.log_loss - rung.left_out()) for rung in ladder.rungs])
    robust = np.stack([rung.estimate.weight[:, :10] for rung in ladder.rungs]).min(0)
    squares = (robust * left**2).sum(2)
    for kind in (np.arange(4), np.arange(4, 5)[:ownless]):
        if len(kind):
            inverse = squares[:, kind].sum(1) ** -(1 + 10 / 64)
            expected = np.tile((inverse / inverse.sum())[:, None], len(kind))
            np.testing.assert_allclose(ladder.weights[:, kind], expected, rtol=1e-9)
    shares = ladder.shares(known.space.weights)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert list(shares) == [rung.name for rung in ladder.rungs]


def test_surface_and_variance_are_those_of_a_mixture(synthetic):
    rng = np.random.default_rng(1)
    known = synthetic.truth(rng, 4, transfer=True)
    seen = observe(synthetic.runs(known, rng, 10, 0.01, 3), known.space)
    ladder = climb(ladder_of(seen, known.space, None), seen, known.space)
    r, at = rng.dirichlet(np.ones(4), 6), (np.ones(6), np.ones(6))
    values = np.stack([rung.shape.log_loss(r, *at) for rung in ladder.rungs])
    own = np.stack([rung.variance(r, *at) for rung in ladder.rungs])
    w = ladder.weights[:, :, None]
    mean = (w * values).sum(0)
    np.testing.assert_allclose(ladder.surface.log_loss(r, *at), mean, rtol=1e-12)
    second = (w * (own + values**2)).sum(0)
    np.testing.assert_allclose(ladder.variance(r, *at), second - mean**2, rtol=1e-6)


class Level:
    """A surface of one log loss for each target."""

    def __init__(self, *levels):
        self.levels = np.array(levels)

    def log_loss(self, r, t, decayed):
        return np.tile(self.levels[:, None], len(r))


class Drawn:
    """A rung whose draws are all off its surface by one value."""

    def __init__(self, level, off):
        self.shape, self.off = Level(level, 2 * level), off

    def draw(self, rng, noise):
        first, second = self.shape.levels
        return Level(first + self.off, second - self.off)


def test_a_draw_is_the_blend_off_by_a_draw_of_one_rung(synthetic):
    """Which is chosen by the mean of its weights over the targets."""
    rungs = (Drawn(1.0, 0.1), Drawn(2.0, 0.01), Drawn(4.0, 0.001))
    weights = np.array([[0.2, 0.4], [0.5, 0.6], [0.3, 0.0]])
    ladder = Ladder(rungs, weights, np.eye(2))
    at = np.full((1, 3), 1 / 3), np.ones(1), np.ones(1)
    blend = [0.2 + 0.5 * 2 + 0.3 * 4, 2 * (0.4 + 0.6 * 2)]
    rng = np.random.default_rng(0)
    off = np.array([ladder.draw(rng).log_loss(*at)[:, 0] for _ in range(1_000)]) - blend
    np.testing.assert_allclose(off[:, 1], -off[:, 0], atol=1e-12)
    share = [np.isclose(off[:, 0], rung.off, atol=1e-12).mean() for rung in rungs]
    np.testing.assert_allclose(share, [0.3, 0.55, 0.15], atol=0.05)
    assert sum(share) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [8, 24])
def test_draws_scatter_about_as_the_variance_says(count, synthetic):
    """In the mean over mixtures and targets, and about the blend."""
    rng = np.random.default_rng(3)
    known = synthetic.truth(rng, 4, transfer=True)
    seen = observe(synthetic.runs(known, rng, count, 0.01, 3), known.space)
    ladder = climb(ladder_of(seen, known.space, None), seen, known.space)
    assert len(ladder.rungs) > 2
    r, at = rng.dirichlet(np.ones(4), 30), (np.ones(30), np.ones(30))
    blend = ladder.surface.log_loss(r, *at)
    off = np.array([ladder.draw(rng).log_loss(r, *at) for _ in range(150)]) - blend
    ratio = np.sqrt((off**2).mean() / ladder.variance(r, *at).mean())
    assert 1 / 1.5 < ratio < 1.5


@cache
def errors(synthetic_truth, synthetic_runs, end):
    """Root mean squares of errors in log loss by truth, runs and rung, of five problems each."""
    found = {}
    for (label, options), count in itertools.product(TRUTHS.items(), (8, 24)):
        squares = {}
        for seed in range(5):
            rng = np.random.default_rng(seed)
            known = synthetic_truth(rng, 4, **options)
            seen = observe(synthetic_runs(known, rng, count, 0.005, 3), known.space)
            ladder = climb(ladder_of(seen, known.space, None), seen, known.space)
            r, at = rng.dirichlet(np.ones(4), 100), (np.ones(100), np.ones(100))
            truth = np.log(known.losses(r, end, True)).T
            parts = {"auto": ladder.surface, **{g.name: g.shape for g in ladder.rungs}}
            for name, surface in parts.items():
                error = np.sqrt(((surface.log_loss(r, *at) - truth) ** 2).mean())
                squares.setdefault(name, []).append(error)
        found[label, count] = {name: np.mean(values) for name, values in squares.items()}
    return found


@pytest.mark.parametrize("rung", ["transfer", "bimix + process", "transfer + process"])
def test_the_blend_beats_every_rung_over_unlike_truths(rung, synthetic):
    """By the geometric mean of the ratio of errors."""
    table = errors(synthetic.truth, synthetic.runs, synthetic.END)
    ratios = [row["auto"] / row[rung] for row in table.values()]
    assert np.exp(np.mean(np.log(ratios))) < 0.95


@pytest.mark.parametrize("label", TRUTHS)
@pytest.mark.parametrize("count", [8, 24])
def test_the_blend_is_never_far_from_the_best_rung(label, count, synthetic):
    """Which nobody knows beforehand: a rung that is the truth is averaged with others."""
    row = dict(errors(synthetic.truth, synthetic.runs, synthetic.END)[label, count])
    auto = row.pop("auto")
    assert auto < 1.6 * min(row.values()) and auto < 0.9 * max(row.values())


def kinked(r):
    """Losses that fall to a proportion of 0.35, are flat from there and rise again."""
    inside = np.minimum(r, 0.35)
    return np.exp(1.0 - 0.5 * np.sqrt(inside + 0.02) + 0.8 * np.maximum(r - 0.5, 0.0) ** 2)


@pytest.mark.parametrize("name", ["process", "auto"])
def test_what_no_law_says_is_followed(name):
    """From 60 runs, by a process but by no law alone."""
    rng = np.random.default_rng(0)
    space = SearchSpace(["a", "b", "c"])
    r = rng.dirichlet(np.ones(3), 160)
    y = kinked(r) * np.exp(0.003 * rng.standard_normal(r.shape))
    curves = [
        LossCurve(space.mixture(x), [1.0], [row]) for x, row in zip(r[:60], y[:60], strict=True)
    ]

    def error(law):
        found = fit(curves, space, law, judge=False)
        return np.abs(found.predict(r[60:], 1.0) / kinked(r[60:]) - 1).mean()

    assert error(name) < 0.005
    assert error(name) < 0.2 * min(error("transfer"), error("bimix"))


def test_a_ladder_begins_where_an_earlier_one_ended(synthetic):
    """Laws and kernels by name; rungs that the earlier one lacks are fitted anew."""
    rng = np.random.default_rng(2)
    known = synthetic.truth(rng, 4, transfer=True)
    seen = observe(synthetic.runs(known, rng, 12, 0.01, 3), known.space)
    steps = [Step(Transfer(), False), Step(Transfer(), True)]
    short = climb(steps[:1], seen, known.space)
    cold, warm = (climb(steps, seen, known.space, before) for before in (None, short))
    r, at = rng.dirichlet(np.ones(4), 20), (np.ones(20), np.ones(20))
    a, b = (ladder.surface.log_loss(r, *at) for ladder in (cold, warm))
    np.testing.assert_allclose(a, b, atol=0.01)
    assert np.abs(a - b).mean() < 1e-3
    assert isinstance(warm, Ladder) and [g.name for g in warm.rungs] == [s.name for s in steps]


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_covariances_are_valid_and_have_the_given_variances(seed):
    rng = np.random.default_rng(seed)
    v, n = rng.integers(1, 6), rng.integers(1, 30)
    residual = rng.standard_normal((v, n)) * rng.uniform(0, 2, (v, 1))
    weight = (rng.random((v, n)) < 0.8).astype(float)
    variance = rng.uniform(1e-8, 1.0, v)
    found = covariance(residual, weight, variance)
    np.testing.assert_allclose(np.diag(found), variance, rtol=1e-10)
    np.testing.assert_allclose(found, found.T, rtol=1e-9)
    assert np.linalg.eigvalsh(found).min() > 0


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.9])
def test_correlations_are_found_in_many_runs_and_typical_in_none(correlation):
    rng = np.random.default_rng(0)
    matrix = np.array([[1.0, correlation], [correlation, 1.0]])
    residual = rng.multivariate_normal(np.zeros(2), matrix, 500).T
    found = covariance(residual, np.ones((2, 500)), np.ones(2))
    assert found[0, 1] == pytest.approx(correlation, abs=0.06)
    none = covariance(residual[:, :2], np.zeros((2, 2)), np.ones(2))
    assert none[0, 1] == pytest.approx(0.25)


def test_one_outlier_makes_no_correlation():
    """A failed run, to which the fit gives little weight."""
    rng = np.random.default_rng(0)
    residual, weight = 0.01 * rng.standard_normal((2, 60)), np.ones((2, 60))
    residual[:, 0], weight[:, 0] = 1.0, 6 / (5 + 100**2)
    assert abs(covariance(residual, weight, np.ones(2))[0, 1]) < 0.3
