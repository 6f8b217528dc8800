"""Regions hold what they promise, and say why they would be empty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune.errors import SpaceError
from bimix_tune.laws.optimum.groups import Group, region_of

NAMES = ("a", "b", "c", "d", "e")


def random_region(seed, tied=False):
    """Bounds and groups about a random mixture; ``tied`` fixes a domain and a group."""
    rng = np.random.default_rng(seed)
    r = rng.dirichlet(np.ones(5))
    low, high = r * rng.random(5), r + (1 - r) * rng.random(5)
    groups = []
    for size in (2, 3):
        chosen = rng.choice(5, size, replace=False)
        total = float(r[chosen].sum())
        least, most = total * rng.random(), total + (1 - total) * rng.random()
        groups.append(Group([NAMES[i] for i in chosen], least, min(most, 1.0)))
    if tied:
        low[0] = high[0] = r[0]
        total = float(r[1:3].sum())
        groups.append(Group(("b", "c"), total, total))
    return region_of(NAMES, low, high, tuple(groups)), rng


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.booleans())
def test_mixtures_are_moved_inside(seed, tied):
    region, rng = random_region(seed, tied)
    wishes = rng.dirichlet(np.full(5, 0.3), 20)
    moved = region.inside(wishes)
    assert max(region.violation(r) for r in moved) < 1e-9
    np.testing.assert_allclose(region.inside(moved), moved, atol=1e-8)  # they stay where they are
    assert region.violation(region.middle) < 1e-9


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_the_least_along_a_slope_is_an_extreme(seed):
    region, rng = random_region(seed)
    slope = rng.normal(size=5)
    best = region.lowest(slope)
    assert region.violation(best) < 1e-7
    others = region.inside(rng.dirichlet(np.full(5, 0.3), 200))
    assert (others @ slope).min() >= best @ slope - 1e-7
    most = region.extremes().diagonal()
    assert np.all(others <= most + 1e-7)


def test_groups_that_leave_no_choice():
    """Bounds that are met only on the edge of others: the middle is all there is."""
    group = Group(("a", "b"), 0.5, 1.0)
    region = region_of(NAMES, np.zeros(5), np.array([0.2, 0.3, 1, 1, 1]), (group,))
    moved = region.inside(np.full((1, 5), 0.2))
    assert region.violation(moved[0]) < 1e-9
    np.testing.assert_allclose(moved[0, :2], [0.2, 0.3], atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), "a group needs different domains"),
        ((("a", "a"),), "a group needs different domains"),
        ((("a", "b"), 0.5, 0.4), r"group a\+b: bounds must satisfy .* got low=0.5, high=0.4"),
        ((("a",), -0.1), "group a: bounds must satisfy"),
        ((("a",), 0.0, float("nan")), "group a: bounds must satisfy"),
    ],
)
def test_groups_check_themselves(arguments, message):
    with pytest.raises(SpaceError, match=message):
        Group(*arguments)


@pytest.mark.parametrize(
    ("low", "high", "groups", "message"),
    [
        (np.zeros(4), np.ones(5), (), r"must have shape \(5,\)"),
        (np.full(5, 0.3), np.ones(5), (), "lower bounds sum to 1.5"),
        (np.array([0.5, 0, 0, 0, 0]), np.full(5, 0.4), (), "domain 'a'.* low=0.5, high=0.4"),
        (np.zeros(5), np.ones(5), (Group(("a", "bb")),), r"group a\+bb has an unknown domain 'bb'"),
        (
            np.zeros(5),
            np.array([0.1, 0.2, 1, 1, 1]),
            (Group(("a", "b"), 0.5), Group(("d",), 0.1)),
            r"a\+b is to be in \[0.5, 1\], but is at best 0.3; widen",
        ),
        (
            np.zeros(5),
            np.ones(5),
            (Group(("a", "b"), 0.7), Group(("b", "c"), 0.0, 0.5), Group(("c", "d", "e"), 0.4)),
            "no mixture satisfies the bounds and all groups",
        ),
    ],
)
def test_empty_regions_say_why(low, high, groups, message):
    with pytest.raises(SpaceError, match=message):
        region_of(NAMES, low, high, groups)
