"""Projections onto the box-bounded simplex solve the problems that they state."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bimix_tune import simplex

UNIT = st.floats(0.0, 1.0)


@st.composite
def boxes(draw, least=1, most=8):
    """Bounds (low, high) that contain a mixture."""
    k = draw(st.integers(least, most))
    inside = draw(arrays(float, k, elements=st.floats(0.01, 1.0)))
    inside = inside / inside.sum()
    down = draw(arrays(float, k, elements=UNIT))
    up = draw(arrays(float, k, elements=UNIT))
    return inside * (1 - down), np.minimum(inside + up * (1 - inside), 1.0)


@st.composite
def boxed_points(draw, elements):
    """Bounds, and any point of the same length."""
    low, high = draw(boxes())
    return low, high, draw(arrays(float, len(low), elements=elements))


def feasible_points(low, high, size=64):
    """Random mixtures within bounds, from a walk that knows nothing of projections."""
    rng = np.random.default_rng(0)
    points = []
    for _ in range(size):
        r = low.copy()
        for i in rng.permutation(len(r)):  # fill up in random order, at random depth
            r[i] += min(high[i] - low[i], 1 - r.sum()) * rng.random()
        for i in rng.permutation(len(r)):
            r[i] += min(high[i] - r[i], 1 - r.sum())
        points.append(r)
    return np.array(points)


def assert_mixture(r, low, high):
    assert abs(r.sum() - 1) < 1e-12
    assert np.all(r >= low)
    assert np.all(r <= high)


@given(boxed_points(st.floats(1e-3, 1.0)))
def test_scale_into_gives_the_least_divergence(box):
    low, high, v = box
    r = simplex.scale_into(v, low, high)
    assert_mixture(r, low, high)
    # The gradient of sum r log(r/v) is log(r/v) + 1; r > 0 because v > 0.
    slope = np.log(np.maximum(r, 1e-300) / v)
    assert np.min((feasible_points(low, high) - r) @ slope) > -1e-7


def test_scale_into_keeps_ratios_where_no_bound_acts():
    low, high = np.zeros(3), np.array([1.0, 1.0, 0.1])
    np.testing.assert_allclose(
        simplex.scale_into(np.array([3.0, 1.0, 6.0]), low, high), [0.675, 0.225, 0.1]
    )


def test_scale_into_of_zeros():
    low, high = np.zeros(3), np.ones(3)
    r = simplex.scale_into(np.array([0.0, 1.0, 1.0]), low, high)
    np.testing.assert_allclose(r, [0.0, 0.5, 0.5], atol=1e-11)
    # Where the others cannot reach one, the zero has to give way.
    r = simplex.scale_into(np.array([0.0, 1.0, 1.0]), low, np.array([1.0, 0.2, 0.2]))
    np.testing.assert_allclose(r, [0.6, 0.2, 0.2])
    np.testing.assert_allclose(simplex.scale_into(np.zeros(3), low, high), np.full(3, 1 / 3))


@given(boxes(), st.integers(0, 1000))
def test_scale_into_takes_many(box, seed):
    low, high = box
    rng = np.random.default_rng(seed)
    many = rng.gamma(0.1, size=(6, len(low))) * (rng.random((6, len(low))) < 0.7)
    moved = simplex.scale_into(many, low, high)
    for v, r in zip(many, moved, strict=True):
        assert_mixture(r, low, high)
        np.testing.assert_allclose(r, simplex.scale_into(v, low, high), atol=1e-9)


def test_scale_into_keeps_zeros():
    corner = np.eye(4)[1]
    np.testing.assert_array_equal(simplex.scale_into(corner, np.zeros(4), np.ones(4)), corner)


@given(boxes(), st.floats(-1e-3, 1e-3), st.integers(0, 7))
def test_settle_makes_the_sum_exact(box, error, where):
    low, high = box
    r = feasible_points(low, high, size=1)[0]
    r[where % len(r)] += error
    settled = simplex.settle(r, low, high)
    assert_mixture(settled, low, high)
    assert np.abs(settled - r).max() <= 2e-3 + 1e-12


def test_bisect_to_one():
    r = simplex.bisect_to_one(lambda t: np.array([t, t * t]), 0.0, 5.0)
    golden = (np.sqrt(5) - 1) / 2
    np.testing.assert_allclose(r, [golden, golden**2], rtol=1e-14)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([0.5, 0.6], [1.0, 1.0], "lower bounds sum to 1.1"),
        ([0.0, 0.0], [0.5, 0.4], "upper bounds sum to 0.9"),
        ([0.0, 0.5], [1.0, 0.4], r"exceeds its upper bound \(positions \[1\]\)"),
    ],
)
def test_infeasibility_says_why(low, high, message):
    reason = simplex.infeasibility(np.array(low), np.array(high))
    assert reason is not None

    assert re.search(message, reason)


@given(boxes())
def test_feasible_boxes_are_feasible(box):
    assert simplex.infeasibility(*box) is None


@given(boxes(), st.floats(0.01, 100), st.integers(0, 2**32 - 1))
def test_dirichlet_draws_stay_within_bounds(box, concentration, seed):
    low, high = box
    centre = np.full(len(low), 1 / len(low))
    rng = np.random.default_rng(seed)
    draws = simplex.dirichlet(rng, centre, concentration, low, high, size=5)
    assert draws.shape == (5, len(low))
    for r in draws:
        assert_mixture(r, low, high)


def test_dirichlet_has_its_centre_as_mean():
    centre = np.array([0.6, 0.3, 0.1])
    rng = np.random.default_rng(0)
    draws = simplex.dirichlet(rng, centre, 30.0, np.zeros(3), np.ones(3), size=4000)
    np.testing.assert_allclose(draws.mean(axis=0), centre, atol=0.01)


@given(arrays(float, st.integers(2, 9), elements=st.floats(1e-3, 1.0)))
def test_ilr_round_trip(weights):
    r = weights / weights.sum()
    z = simplex.ilr(r)
    assert z.shape == (len(r) - 1,)
    np.testing.assert_allclose(simplex.ilr_inverse(z), r, rtol=1e-10)


@given(st.integers(2, 9), st.integers(0, 1000))
def test_ilr_is_an_isometry_of_log_ratios(k, seed):
    a, b = np.random.default_rng(seed).dirichlet(np.full(k, 5.0), size=2)
    la, lb = np.log(a), np.log(b)
    aitchison = np.linalg.norm((la - la.mean()) - (lb - lb.mean()))
    between = np.linalg.norm(simplex.ilr(a) - simplex.ilr(b))
    np.testing.assert_allclose(between, aitchison, rtol=1e-6)


def test_ilr_of_many_and_of_zeros():
    r = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    z = simplex.ilr(r, floor=1e-4)
    assert z.shape == (2, 2)
    assert np.isfinite(z).all()
    np.testing.assert_allclose(simplex.ilr_inverse(z)[1], r[1])
    np.testing.assert_allclose(simplex.ilr_inverse(z)[0], [0.5, 0.5, 1e-4], atol=1e-4)
