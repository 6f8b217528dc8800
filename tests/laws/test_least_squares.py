"""The batched solver against explicit linear algebra and a general solver."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares as reference

from bimix_tune.laws.least_squares import inverse_diagonal, normal, quadratic, solve

sizes = st.tuples(st.integers(1, 8), st.integers(1, 8))


def linear(seed, n, p, batch=3):
    """A batch of linear problems: A, y, weights, centres and precisions."""
    rng = np.random.default_rng(seed)
    shape = (batch, n)
    a, y = rng.standard_normal((*shape, p)), rng.standard_normal(shape)
    weight = rng.uniform(0.0, 2.0, shape) * (rng.random(shape) < 0.8)
    return a, y, weight, rng.standard_normal((batch, p)), rng.uniform(0.1, 3.0, (batch, p))


def exact(a, y, weight, mean, precision):
    """The solution by the normal equations, written out."""
    out = []
    for A, b, w, m, c in zip(a, y, weight, mean, precision, strict=True):
        hessian = A.T @ np.diag(w) @ A + np.diag(c)
        out.append(np.linalg.solve(hessian, A.T @ (w * b) + c * m))
    return np.array(out)


@settings(max_examples=40)
@given(st.integers(0, 10_000), sizes)
def test_linear_problems_are_solved_exactly(seed, size):
    """With fewer and with more coordinates than data, which take different ways."""
    a, y, weight, mean, precision = linear(seed, *size)

    def model(theta):
        return (a @ theta[..., None])[..., 0], a

    start, squares = np.zeros_like(mean), np.zeros(size[1], bool)
    found = solve(model, y, weight, mean, precision, start, squares, 60, tolerance=1e-14)
    expected = exact(a, y, weight, mean, precision)
    np.testing.assert_allclose(found.theta, expected, rtol=1e-5, atol=1e-6)
    assert found.converged
    residual = y - (a @ expected[..., None])[..., 0]
    cost = (weight * residual**2).sum(1) + (precision * (expected - mean) ** 2).sum(1)
    np.testing.assert_allclose(found.cost, cost, rtol=1e-8, atol=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 10_000), sizes)
def test_inverse_diagonal(seed, size):
    a, _, _, _, diagonal = linear(seed, *size)
    expected = [
        np.diag(np.linalg.inv(A.T @ A + np.diag(d))) for A, d in zip(a, diagonal, strict=True)
    ]
    np.testing.assert_allclose(inverse_diagonal(a, diagonal), expected, rtol=1e-8)


@settings(max_examples=40)
@given(st.integers(0, 10_000), sizes, st.integers(1, 4))
def test_quadratic_forms(seed, size, count):
    """With fewer and with more coordinates than data, which take different ways."""
    a, _, _, _, diagonal = linear(seed, *size)
    c = np.random.default_rng(seed).standard_normal((len(a), count, size[1]))
    expected = [
        np.diag(C @ np.linalg.inv(A.T @ A + np.diag(d)) @ C.T)
        for A, d, C in zip(a, diagonal, c, strict=True)
    ]
    np.testing.assert_allclose(quadratic(a, diagonal, c), expected, rtol=1e-8)


def test_quadratic_forms_of_coordinates_of_unlike_size():
    """Well determined ones among others left to a wide prior: small forms do not cancel."""
    rng = np.random.default_rng(0)
    scale = 10.0 ** np.arange(-4, 5)
    a, diagonal = 1e3 * rng.standard_normal((12, 9)) / scale, 1e-2 / scale**2
    c = a[:3] + 1e-3 * rng.standard_normal((3, 9)) / scale
    found = quadratic(a, diagonal, c)
    unit = np.linalg.inv((a * scale).T @ (a * scale) + 1e-2 * np.eye(9))
    expected = np.diag((c * scale) @ unit @ (c * scale).T)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("n", [3, 12])
def test_curved_problems_agree_with_scipy(n):
    rng = np.random.default_rng(n)
    x = rng.uniform(0.1, 2.0, n)
    mean, precision = np.array([0.1, 0.3, 0.0, 0.2]), np.full(4, 0.05)

    def value(p):
        return p[0] + np.exp(p[1]) * np.exp(-np.exp(p[2]) * x) + p[3] * x

    def model(theta):
        step = 1e-6 * np.eye(4)
        columns = [(value(theta + s) - value(theta - s)) / 2e-6 for s in step]
        return value(theta), np.stack(columns, axis=-1)

    y = value(np.array([0.5, 0.4, 0.3, -0.2])) + 0.05 * rng.standard_normal(n)
    found = solve(model, y, np.ones(n), mean, precision, mean, np.zeros(4, bool), 100)
    other = reference(
        lambda p: np.concatenate([value(p) - y, np.sqrt(precision) * (p - mean)]), mean, xtol=1e-14
    )
    assert found.cost <= 2 * other.cost * (1 + 1e-8)
    np.testing.assert_allclose(found.theta, other.x, atol=1e-4)


def test_squares_reach_zero_and_are_curved_there():
    """``f = u^2`` with data that want it negative: u goes to zero, and the curvature of
    ``(y - u^2)^2``, which Gauss-Newton drops, is there."""

    def model(theta):
        return theta**2, 2.0 * theta[..., None] * np.eye(1)

    y, one = np.array([-2.0]), np.ones(1)
    found = solve(model, y, one, np.zeros(1), 1e-3 * one, one, np.array([True]), 100)
    assert abs(found.theta[0]) < 1e-6 and found.converged
    u = np.array([0.3])
    f, jacobian = model(u)
    zero = np.zeros(1)
    _, a, diagonal = normal(jacobian, y - f, one, u, zero, zero, np.array([True]))
    half_hessian = 4 * u**2 - 2 * (y - f)
    np.testing.assert_allclose((a**2).sum(0) + diagonal, half_hessian, rtol=1e-12)


def test_not_converged_is_said():
    a, y, weight, mean, precision = linear(0, 5, 3)

    def model(theta):
        return (a @ theta[..., None])[..., 0] ** 3, 3 * (a @ theta[..., None]) ** 2 * a

    squares = np.zeros(3, bool)
    start = mean + 1.0
    assert not solve(model, y, weight, mean, precision, start, squares, 1).converged
    assert solve(model, y, weight, mean, precision, start, squares, 200).converged
