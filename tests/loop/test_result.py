import math

import numpy as np
import pytest

from bimix_tune.loop.result import RECOMMENDATION, compare


def runs(mean, effects, noise=0.0, rng=None):
    values = mean + np.array(effects) + (rng.normal(0, noise, len(effects)) if rng else 0)
    return dict(enumerate(values.tolist(), start=1))


def test_a_common_seed_effect_cancels_exactly():
    effects = [0.5, -0.2, 0.1]
    found = compare({RECOMMENDATION: runs(2.0, effects), "uniform": runs(2.3, effects)})
    assert found.noise == pytest.approx(0, abs=1e-12)
    (only,) = found.comparisons
    assert (only.mean, only.low, only.high) == pytest.approx((0.3, 0.3, 0.3))


def test_two_mixtures_give_the_paired_t_test():
    from scipy import stats

    a, b = {1: 2.0, 2: 2.1, 3: 1.9, 4: 2.05}, {1: 2.2, 2: 2.15, 3: 2.0, 4: 2.3}
    found = compare({RECOMMENDATION: a, "x": b}).comparisons[0]
    difference = np.array([b[s] - a[s] for s in a])
    low, high = stats.t.interval(0.95, 3, difference.mean(), stats.sem(difference))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(800):
        effects = rng.normal(0, 0.1, 2)
        table = {
            label: runs(mean, effects, 0.02, rng)
            for label, mean in ((RECOMMENDATION, 2.0), ("a", 2.05), ("b", 2.0), ("c", 2.2))
        }
        found = compare(table)
        a = next(c for c in found.comparisons if c.label == "a")
        hits += a.low <= 0.05 <= a.high
    assert 0.93 <= hits / 800 <= 0.97


def test_rivals_are_sorted_and_one_seed_has_no_interval():
    found = compare({RECOMMENDATION: {1: 2.0}, "far": {1: 3.0}, "near": {1: 2.1}})
    assert [c.label for c in found.comparisons] == ["near", "far"]
    assert math.isnan(found.noise)
    assert math.isnan(found.comparisons[0].low)


def test_seeds_that_a_mixture_lacks_are_left_out():
    found = compare({RECOMMENDATION: {1: 2.0, 2: 2.1}, "a": {2: 2.2, 3: 9.9}})
    assert found.seeds == (2,)
    assert found.comparisons[0].pairs == pytest.approx((0.1,))


def test_a_mixture_that_lacks_a_seed_does_not_cost_the_others_one():
    three, one = {1: 2.0, 2: 2.1, 3: 2.2}, {2: 2.5}
    found = compare({RECOMMENDATION: three, "a": three, "failed": one, "none": {}})
    assert found.seeds == (1, 2, 3)
    assert [c.label for c in found.comparisons] == ["a"]
    assert set(found.objective) == {RECOMMENDATION, "a"}


def test_of_equally_many_seeds_those_of_the_most_mixtures_are_taken():
    own = dict.fromkeys((1, 2, 3), 2.0)
    first, last = dict.fromkeys((1, 2), 2.5), dict.fromkeys((2, 3), 2.5)
    found = compare({"alone": first, RECOMMENDATION: own, "a": last, "b": last, "few": {3: 2.5}})
    assert found.seeds == (2, 3)
    assert {c.label for c in found.comparisons} == {"a", "b"}


@pytest.mark.parametrize(
    "table",
    [{}, {"a": {1: 2.0}}, {RECOMMENDATION: {1: 2.0}}, {RECOMMENDATION: {1: 2.0}, "a": {2: 2.0}}],
)
def test_without_pairs_there_is_no_confirmation(table):
    assert compare(table) is None
