"""Optima beat random mixtures and a general solver, keep the bounds, and settle ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from bimix_tune import simplex
from bimix_tune.laws import fit, optimise
from bimix_tune.laws.optimum.barrier import interior
from bimix_tune.laws.optimum.exact import minimise
from bimix_tune.laws.optimum.water_filling import water_fill
from bimix_tune.laws.terms import Terms
from bimix_tune.space import Domain, SearchSpace


def _problem(seed, k, shared, transfer, tight):
    """Terms and feasible bounds; ``tight`` draws the bounds close around a mixture."""
    rng = np.random.default_rng(seed)
    v = k + shared
    carriers = np.eye(k)[np.concatenate([np.arange(k), rng.integers(0, k, shared)])]
    if transfer:
        carriers = carriers + rng.exponential(0.2, (v, k)) * (rng.random((v, k)) < 0.5)
    terms = Terms(
        rng.uniform(0.0, 3.0, v) * (rng.random(v) < 0.9) + 1e-3,
        np.exp(rng.uniform(np.log(0.01), np.log(1.0), v)),
        np.exp(rng.uniform(np.log(1e-5), np.log(0.1), v)),
        carriers,
        np.where(rng.random(v) < 0.5, 1.0, rng.uniform(0.2, 1.0, v)),
    )
    centre = rng.dirichlet(np.ones(k))
    low = centre * rng.uniform(0, 1, k) * (rng.random(k) < (0.9 if tight else 0.3))
    high = np.minimum(1.0, centre * (1 + rng.exponential(1.0, k))) if tight else np.ones(k)
    return terms, low, high, rng.dirichlet(np.ones(k)), rng


def _value(terms, r):
    return terms.parts(np.atleast_2d(r)).sum(-1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(0, 3), st.booleans(), st.booleans())
def test_beats_random_mixtures_and_slsqp(seed, k, shared, transfer, tight):
    terms, low, high, prior, rng = _problem(seed, k, shared, transfer, tight)
    r = minimise(terms, low, high, prior)
    assert abs(r.sum() - 1) < 1e-9
    assert np.all(r >= low - 1e-12) and np.all(r <= high + 1e-12)
    best = _value(terms, r)[0]
    tolerance = 1e-8 * best
    room = 1.0 - low.sum()
    points = low + room * rng.dirichlet(np.ones(k), 9_000)
    near = low + room * rng.dirichlet(np.maximum((r - low) / max(room, 1e-9), 1e-3) * 300, 1_000)
    points = np.concatenate([points, near, r + rng.uniform(0, 1, (999, 1)) * (prior - r)])
    points = points[np.all((points <= high) & (points >= low), axis=1)]
    clipped = [simplex.scale_into(p, low, high) for p in rng.dirichlet(np.ones(k), 30)]
    feasible = np.concatenate([points, clipped])
    assert _value(terms, feasible).min() >= best - tolerance
    other = minimize(
        lambda x: float(_value(terms, np.maximum(x, 0.0))[0]),
        simplex.scale_into(prior, low, high),
        bounds=list(zip(low, high, strict=True)),
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 300},
    )
    polished = simplex.settle(other.x, low, high)
    assert _value(terms, polished)[0] >= best - tolerance


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 20), st.booleans())
def test_closed_form_and_newton_agree(seed, k, tight):
    terms, low, high, prior, _ = _problem(seed, k, 0, False, tight)
    exact, newton = (solve(terms, low, high, prior) for solve in (water_fill, interior))
    assert _value(terms, exact)[0] <= _value(terms, newton)[0] * (1 + 1e-9)
    assert _value(terms, newton)[0] <= _value(terms, exact)[0] * (1 + 1e-7)
    np.testing.assert_allclose(exact, newton, atol=2e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 7), st.booleans())
def test_gradient_is_the_slope_of_the_sum(seed, k, transfer):
    terms, _, _, r, _ = _problem(seed, k, 2, transfer, False)
    steps = 1e-4 * r[:, None] * np.eye(k)
    up, down = _value(terms, r + steps), _value(terms, r - steps)
    slope = (up - down) / (2e-4 * r)
    np.testing.assert_allclose(terms.gradient(r), slope, rtol=1e-5, atol=1e-6)


def test_diminishing_returns_keep_a_gradient_at_zero():
    terms = Terms(np.ones(1), np.ones(1), np.ones(1), np.ones((1, 2)), np.full(1, 0.5))
    slope = terms.gradient(np.array([0.0, 1.0]))
    assert np.isfinite(slope).all() and slope[0] < 1e5 * slope[1] < 0


def test_many_laws_have_the_values_of_each(monkeypatch):
    """Batches of powers are summed in chunks."""
    monkeypatch.setattr("bimix_tune.laws.terms.CHUNK", 400)
    rng = np.random.default_rng(0)
    shape = (30, 4, 5)
    fields = [rng.uniform(0.1, 1.0, shape[:2]) for _ in range(3)]
    power = np.where(rng.random(shape[:2]) < 0.3, 1.0, rng.uniform(0.2, 1.0, shape[:2]))
    terms = Terms(*fields, rng.random(shape), power)
    r = rng.dirichlet(np.ones(5), 11)
    r[0] = np.eye(5)[0]
    raised = r[:, None, :] ** power[:, None, :, None]
    x = terms.eps[:, None] + (terms.carriers[:, None] * raised).sum(-1)
    expected = terms.c[:, None] * x ** -terms.alpha[:, None]
    np.testing.assert_allclose(terms.parts(r), expected, rtol=1e-12)


def test_equal_carriers_with_diminishing_returns_are_best_spread_evenly():
    terms = Terms(np.ones(1), np.full(1, 0.1), np.full(1, 0.01), np.ones((1, 4)), np.full(1, 0.5))
    prior = np.array([0.7, 0.1, 0.1, 0.1])
    r = minimise(terms, np.zeros(4), np.ones(4), prior)
    np.testing.assert_allclose(r, np.full(4, 0.25), atol=1e-5)


def test_sums_over_domains_share_domains():
    """Two targets, each a sum over all domains: summands alone, several on one domain."""
    rng = np.random.default_rng(1)
    carriers = np.tile(np.eye(6), (2, 1))
    alpha, eps = np.repeat([0.1, 0.6], 6), np.repeat([0.01, 0.05], 6)
    terms = Terms(rng.uniform(0.1, 1.0, 12), alpha, eps, carriers, np.repeat([1.0, 0.6], 6))
    r = minimise(terms, np.zeros(6), np.ones(6), np.full(6, 1 / 6))
    slope = terms.gradient(r)
    assert r @ slope - slope.min() < 1e-6  # bounds the distance to the least value


def test_equal_exponents_without_floor_have_the_textbook_optimum():
    """r_i in proportion to K_i^(1 / (1 + alpha))."""
    c = np.array([1.0, 2.0, 5.0])
    terms = Terms(c, np.full(3, 0.3), np.full(3, 1e-15), np.eye(3), np.ones(3))
    r = minimise(terms, np.zeros(3), np.ones(3), np.full(3, 1 / 3))
    expected = c ** (1 / 1.3)
    np.testing.assert_allclose(r, expected / expected.sum(), rtol=1e-9)


def test_domains_of_no_target_take_what_is_left_in_proportion_to_the_prior():
    terms = Terms(np.ones(2), np.full(2, 0.1), np.full(2, 0.01), np.eye(4)[:2], np.ones(2))
    prior = np.array([0.25, 0.25, 0.4, 0.1])
    free = minimise(terms, np.zeros(4), np.ones(4), prior)
    np.testing.assert_allclose(free, [0.5, 0.5, 0, 0], atol=1e-12)
    high = np.array([0.1, 0.2, 1.0, 1.0])
    for solve in (water_fill, interior):
        capped = solve(terms, np.zeros(4), high, prior)
        np.testing.assert_allclose(capped, [0.1, 0.2, 0.56, 0.14], atol=2e-3)


def test_indifferent_law_keeps_the_prior():
    terms = Terms(np.ones(1), np.full(1, 0.1), np.full(1, 0.01), np.ones((1, 3)), np.ones(1))
    prior = np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(minimise(terms, np.zeros(3), np.ones(3), prior), prior)


@pytest.mark.parametrize("solve", [water_fill, interior])
def test_bounds_that_leave_one_mixture(solve):
    terms = Terms(np.ones(3), np.full(3, 0.1), np.full(3, 0.01), np.eye(3), np.ones(3))
    only = np.array([0.2, 0.3, 0.5])
    for low, high in ((only, np.ones(3)), (np.zeros(3), only), (only, only)):
        np.testing.assert_allclose(solve(terms, low, high, only), only, atol=1e-12)


def test_optimise_takes_a_tighter_space_in_another_order(synthetic):
    rng = np.random.default_rng(0)
    known = synthetic.truth(rng, 4, transfer=True)
    found = fit(synthetic.runs(known, rng, 20, 0.005), known.space, "transfer")
    free = optimise(found, known.space, synthetic.END)
    caps = {"d2": 0.1, "d0": 1.0, "d3": 0.9, "d1": 0.3}
    tight = SearchSpace([Domain(n, high=h) for n, h in caps.items()])
    best = optimise(found, tight, synthetic.END)
    assert best.names == tight.names and tight.violation(best) is None
    assert abs(sum(best.values()) - 1) < 1e-9
    values = found.objective([free, best], synthetic.END)[0]
    assert values[0] < values[1]
    others = [tight.fit_in(r) for r in rng.dirichlet(np.ones(4), 300)]
    assert found.objective(others, synthetic.END)[0].min() >= values[1] - 1e-9
