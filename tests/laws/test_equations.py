"""Every equation, written out once more by hand, and its derivatives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune.laws.additive import Additive
from bimix_tune.laws.base import ALPHA, BASE, BETA, DELTA, EPS, LEVEL, PHI, SMALLEST, log_loss
from bimix_tune.laws.bimix import Bimix
from bimix_tune.laws.ladder import Step, climb
from bimix_tune.laws.linear import Linear
from bimix_tune.laws.observations import observe
from bimix_tune.laws.transfer import FIRST, RHO, Transfer
from bimix_tune.laws.transported import Transported
from bimix_tune.space import SearchSpace, Target

EQUATIONS = (Bimix(), Transfer(), Additive(), Linear())
equations = pytest.mark.parametrize("equation", EQUATIONS, ids=lambda e: e.name)
seeds = st.integers(0, 10_000)


def problem(seed, equation, k=None, corners=True):
    """A random space, coordinates, mixtures (some with zeros), tokens and flags."""
    rng = np.random.default_rng(seed)
    k = k or int(rng.integers(2, 6))
    names = [f"d{i}" for i in range(k)]
    own = [None if rng.random() < 0.35 else names[rng.integers(k)] for _ in range(4)]
    space = SearchSpace(names, [Target(f"t{i}", 0.5 + i, d) for i, d in enumerate(own)])
    mean = equation.prior(space).mean
    theta = mean + 0.5 * rng.standard_normal(mean.shape)
    r = rng.dirichlet(np.ones(k), 7)
    if corners:
        r[0] = np.eye(k)[0]
        r[1, :-1] *= rng.random(k - 1) < 0.5
        r[1] /= r[1].sum()
    return space, theta, r, rng.uniform(0.1, 2.0, 7), (rng.random(7) < 0.5).astype(float)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(name, row, own, r, t, decayed):
    """One target's loss, from its coordinates ``row`` and the place of its domain or None."""
    alpha, beta, eps = np.exp(row[[ALPHA, BETA, EPS]])
    k, phi = np.exp(row[LEVEL]), sigmoid(row[PHI])
    b, c = k * phi, k * (1 - phi)
    tokens = (b * t**-beta + c) * np.exp(-(row[DELTA] ** 2) * decayed)
    rest = np.arange(r.shape[1]) != own
    if name == "bimix":
        x = eps + (1.0 if own is None else r[:, own])
        return x**-alpha * tokens
    if name == "linear":
        return np.exp(r @ row[BASE:]) * tokens
    worth = row[FIRST:] ** 2
    if name == "additive" and own is None:
        h = ((eps + r) ** -alpha - (eps + 1) ** -alpha) / alpha
        return (1 + h @ worth) * tokens
    rho = sigmoid(row[RHO])
    x = eps + (0.0 if own is None else r[:, own] ** rho) + r[:, rest] ** rho @ worth[rest]
    return x**-alpha * tokens


@equations
@settings(max_examples=25)
@given(seed=seeds)
def test_losses_are_the_documented_ones(equation, seed):
    space, theta, r, t, decayed = problem(seed, equation)
    losses = np.exp(log_loss(equation, theta, space, r, t, decayed)[0])
    expected = [
        by_hand(equation.name, row, own, r, t, decayed)
        for row, own in zip(theta, space.own, strict=True)
    ]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


@equations
@settings(max_examples=25)
@given(seed=seeds)
def test_derivatives_by_coordinates(equation, seed):
    space, theta, *at = problem(seed, equation)
    _, jacobian = log_loss(equation, theta, space, *at)
    for p in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, p] = 1e-5
        up, down = (log_loss(equation, theta + s * step, space, *at)[0] for s in (1, -1))
        np.testing.assert_allclose(jacobian[..., p], (up - down) / 2e-5, atol=5e-9, rtol=1e-6)


@equations
@settings(max_examples=25)
@given(seed=seeds)
def test_slopes_by_proportions(equation, seed):
    """Inside the simplex by central differences; along the simplex alone for targets that
    `bimix` writes as a constant."""
    space, theta, r, _, _ = problem(seed, equation, corners=False)
    r = (r + 0.05) / (r + 0.05).sum(1, keepdims=True)
    slope = equation.slope(theta, space, r)
    assert slope.shape == (4, 7, r.shape[1])
    for j in range(r.shape[1]):
        step = 1e-6 * np.eye(r.shape[1])[j]
        up, down = (equation.share(theta, space, r + s * step)[0] for s in (1, -1))
        np.testing.assert_allclose(slope[..., j], (up - down) / 2e-6, atol=1e-7, rtol=1e-6)


@equations
def test_slopes_at_zero_are_finite_and_those_of_the_least_proportion(equation):
    space, theta, _, _, _ = problem(3, equation, k=4)
    r = np.array([[0.0, 0.4, 0.6, 0.0], [SMALLEST, 0.4, 0.6, SMALLEST]])
    zero, least = np.moveaxis(equation.slope(theta, space, r), 1, 0)
    assert np.isfinite(zero).all()
    np.testing.assert_allclose(zero, least, rtol=1e-6)


@equations
@settings(max_examples=25)
@given(seed=seeds)
def test_terms_sum_to_the_weighted_losses(equation, seed):
    space, theta, r, _, _ = problem(seed, equation)
    factor = np.random.default_rng(seed).uniform(0.1, 3.0, 4)
    terms = equation.terms(theta, space, factor)
    share = np.exp(equation.share(theta, space, r)[0])
    if terms is None:
        assert equation.name == "linear"
        return
    total = 0.0
    for c, alpha, eps, carriers, power in zip(*terms, strict=True):
        total = total + c * (eps + r**power @ carriers) ** -alpha
    np.testing.assert_allclose(total, factor @ share, rtol=1e-10)


@equations
def test_batches_are_their_members(equation):
    """Leading axes of the coordinates are fits side by side."""
    space, theta, *at = problem(1, equation)
    both = np.stack([theta, theta + 0.1])
    values, jacobians = log_loss(equation, both, space, *at)
    slopes = equation.slope(both, space, at[0])
    for i, one in enumerate(both):
        value, jacobian = log_loss(equation, one, space, *at)
        np.testing.assert_allclose(values[i], value, rtol=1e-13)
        np.testing.assert_allclose(jacobians[i], jacobian, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(slopes[i], equation.slope(one, space, at[0]), rtol=1e-12)


@settings(max_examples=25)
@given(seed=seeds)
def test_transfer_contains_bimix(seed):
    """With T = 0 and rho towards one; a target without domain has one for all domains."""
    space, short, *at = problem(seed, Bimix())
    own = np.array([[i == d for i in range(len(space.names))] for d in space.own])
    none = ~own.any(1, keepdims=True)
    rho = np.full((4, 1), 30.0)
    long = np.hstack([short, rho, np.where(none, 1.0, 0.0) * np.ones_like(own)])
    low, high = (
        log_loss(e, theta, space, *at)[0] for e, theta in ((Bimix(), short), (Transfer(), long))
    )
    np.testing.assert_allclose(high, low, rtol=1e-9, atol=1e-9)


@settings(max_examples=25)
@given(seed=seeds)
def test_additive_contains_transfer_for_targets_with_own_domain_and_constants(seed):
    space, theta, *at = problem(seed, Transfer())
    theta[[i for i, d in enumerate(space.own) if d is None], FIRST:] = 0.0
    low, high = (log_loss(e, theta, space, *at)[0] for e in (Transfer(), Additive()))
    for i, own in enumerate(space.own):
        if own is None:
            r = at[0]
            constant = by_hand("linear", np.append(theta[i, :BASE], 0.0 * r[0]), None, *at)
            np.testing.assert_allclose(high[i], np.log(constant), rtol=1e-12)
        else:
            np.testing.assert_array_equal(high[i], low[i])


@pytest.mark.parametrize("log_alpha", [-30.0, -8.0, -7.0, 0.5])
def test_additive_holds_down_to_the_logarithm(log_alpha):
    """Derivatives from both sides of the switch to a series, and where alpha is no matter."""
    rng, k = np.random.default_rng(1), 5
    space = SearchSpace([f"d{i}" for i in range(k)], [Target("mean")])
    theta = Additive().prior(space).mean
    theta = theta + 0.3 * rng.standard_normal(theta.shape)
    theta[0, ALPHA] = log_alpha
    at = np.concatenate([np.eye(k), rng.dirichlet(np.ones(k), 5)]), np.ones(10), np.zeros(10)
    y, jacobian = log_loss(Additive(), theta, space, *at)
    for p in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, p] = 1e-5
        up, down = (log_loss(Additive(), theta + s * step, space, *at)[0] for s in (1, -1))
        np.testing.assert_allclose(jacobian[..., p], (up - down) / 2e-5, atol=1e-9, rtol=1e-6)
    if log_alpha == -30.0:
        eps, w = np.exp(theta[0, EPS]), theta[0, FIRST:] ** 2
        logarithmic = theta[0, 0] + np.log(1 + np.log((eps + 1) / (eps + at[0])) @ w)
        np.testing.assert_allclose(y[0], logarithmic, rtol=1e-10)


def test_transported_stretches_the_smaller_law(synthetic):
    """``log growth + alpha (log S - centre)``, with derivatives; a copy at alpha one."""
    rng = np.random.default_rng(0)
    known = synthetic.truth(rng, 3, transfer=True, ownless=1)
    source = climb(
        [Step(Transfer(), False), Step(Transfer(), True)],
        observe(synthetic.runs(known, rng, 9, 0.01), known.space),
        known.space,
    )
    equation = Transported(source, rng.standard_normal(4))
    theta = equation.prior(known.space).mean + 0.3 * rng.standard_normal((4, BASE))
    r = rng.dirichlet(np.ones(3), 6)
    contrast = source.surface.log_loss(r, np.ones(6), np.ones(6)) - equation.centre[:, None]
    value, jacobian = equation.share(theta, known.space, r)
    np.testing.assert_allclose(value, np.exp(theta[:, [ALPHA]]) * contrast, rtol=1e-12)
    step = np.zeros_like(theta)
    step[:, ALPHA] = 1e-5
    up, down = (equation.share(theta + s * step, known.space, r)[0] for s in (1, -1))
    np.testing.assert_allclose(jacobian[..., ALPHA], (up - down) / 2e-5, rtol=1e-7, atol=1e-9)
    assert not np.delete(jacobian, ALPHA, axis=-1).any()
    slope = equation.slope(theta, known.space, r)
    for j in range(3):
        step = 1e-6 * np.eye(3)[j]
        up, down = (equation.share(theta, known.space, r + s * step)[0] for s in (1, -1))
        np.testing.assert_allclose(slope[..., j], (up - down) / 2e-6, atol=1e-6)
    assert equation.terms(theta, known.space, np.ones(4)) is None


def test_coordinates_of_time_have_no_effect_at_the_reference():
    space, theta, r, _, _ = problem(0, Bimix())
    _, jacobian = log_loss(Bimix(), theta, space, r, np.ones(7), np.zeros(7))
    assert np.all(jacobian[..., [BETA, PHI, DELTA]] == 0)
    assert np.all(jacobian[..., LEVEL] == 1)
    assert np.all(jacobian[..., EPS] < 0)


@equations
def test_tokens_may_differ_between_targets(equation):
    space, theta, r, t, decayed = problem(2, equation)
    every = np.stack([t, 2 * t, t**2, 1 / t])
    flags = np.stack([decayed, 1 - decayed, decayed, decayed])
    whole, _ = log_loss(equation, theta, space, r, every, flags)
    for i in range(4):
        one, _ = log_loss(equation, theta, space, r, every[i], flags[i])
        np.testing.assert_array_equal(whole[i], one[i])
