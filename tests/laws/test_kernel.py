"""The process against scikit-learn and finite differences; what its evidence finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from bimix_tune.laws.kernel import JITTER, Kernel, _Evidence, fit_kernel

seeds = st.integers(0, 10_000)


def kernel(seed, v=3, k=4):
    rng = np.random.default_rng(seed)
    floor = float(rng.normal(np.log(0.05), 1.0))
    scale, size = rng.normal(-1.0, 1.0, (v, k)), rng.normal(-1.0, 0.7, v)
    return Kernel(floor, scale, size, rng.normal(-4.0, 0.5, v), rng.normal(0.0, 0.3))


def mixtures(seed, count, k=4):
    r = np.random.default_rng(seed).dirichlet(np.ones(k), count)
    r[0] = np.eye(k)[0]
    return r


@settings(max_examples=30)
@given(seed=seeds)
def test_covariances_are_those_of_scikit_learn(seed):
    one, r, others = kernel(seed), mixtures(seed, 6), mixtures(seed + 1, 5)
    found = one(r, others)
    assert found.shape == (3, 6, 5)
    z, w = (np.log(a + np.exp(one.floor)) for a in (r, others))
    for v in range(3):
        matern = Matern(np.exp(-0.5 * one.scale[v]), nu=2.5)
        np.testing.assert_allclose(found[v], np.exp(2 * one.size[v]) * matern(z, w), atol=1e-7)


@settings(max_examples=30)
@given(seed=seeds)
def test_covariances_are_valid(seed):
    one, r = kernel(seed), mixtures(seed, 9)
    matrices = one(r, r)
    np.testing.assert_allclose(matrices, np.swapaxes(matrices, 1, 2), atol=1e-12)
    diagonal = np.diagonal(matrices, axis1=1, axis2=2)
    np.testing.assert_allclose(diagonal, np.exp(2 * one.size)[:, None] * np.ones(9), rtol=1e-6)
    assert np.linalg.eigvalsh(matrices).min() > -1e-6


@settings(max_examples=30)
@given(seed=seeds)
def test_slopes(seed):
    rng = np.random.default_rng(seed)
    one, r, others = kernel(seed), rng.dirichlet(np.full(4, 5.0), 5), mixtures(seed, 6)
    weights = rng.standard_normal((3, 6))
    slope = one.slope(r, others, weights)
    for j in range(4):
        step = 1e-6 * np.eye(4)[j]
        up, down = ((one(r + s * step, others) @ weights[..., None])[..., 0] for s in (1, -1))
        np.testing.assert_allclose(slope[..., j], (up - down) / 2e-6, rtol=1e-4, atol=1e-4)


def evidence(seed, n=8, v=3, k=4):
    """A random problem, with a tangent of two directions and runs of unlike weight."""
    rng = np.random.default_rng(seed)
    a = 0.3 * rng.standard_normal((v, n, 2))
    return (
        mixtures(seed, n, k),
        0.1 * rng.standard_normal((v, n)),
        a @ np.swapaxes(a, 1, 2),
        rng.uniform(0.2, 1.0, (v, n)),
    )


@settings(max_examples=30)
@given(seed=seeds)
def test_gradient_of_the_evidence(seed):
    r, z, tangent, weight = evidence(seed)
    problem = _Evidence(r, z, tangent, 1 / weight)
    p = problem.pack(kernel(seed))
    _, gradient = problem(p)
    for i in range(len(p)):
        step = 1e-5 * np.eye(len(p))[i]
        up, down = (problem(p + s * step)[0] for s in (1, -1))
        assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-3, abs=5e-4)


def test_evidence_is_that_of_a_normal_distribution():
    """Up to a constant, without the prior of the hyperparameters."""
    r, z, tangent, weight = evidence(5)
    problem = _Evidence(r, z, tangent, 1 / weight)

    def by_hand(kernel):
        total = 0.0
        for v in range(3):
            c = (
                tangent[v]
                + kernel(r, r)[v]
                + np.diag(np.exp(2 * kernel.noise[v]) * kernel.noise_factor(r) / weight[v])
            )
            c += np.eye(8) * (JITTER * np.trace(c) / 8)
            total -= multivariate_normal(np.zeros(8), c).logpdf(z[v])
        return total

    kernels = [kernel(5), kernel(6)]
    places = [problem.pack(a) for a in kernels]
    found = [problem(p)[0] - problem._prior(p)[0] for p in places]
    expected = [by_hand(a) for a in kernels]
    assert found[0] - found[1] == pytest.approx(expected[0] - expected[1], rel=1e-4)


def test_packing_loses_nothing():
    one = kernel(0)
    problem = _Evidence(*evidence(0))
    back = problem.unpack(problem.pack(one))
    for name in ("floor", "scale", "size", "noise", "unevenness"):
        np.testing.assert_allclose(getattr(back, name), getattr(one, name), rtol=1e-12)
    again = Kernel.from_dict(one.to_dict())
    for name in ("floor", "scale", "size", "noise", "unevenness"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))


def draws(seed, n=60, v=4, k=3, size=0.2, noise=0.01, active=(0,)):
    """Draws of smooth processes that depend on some domains only, and runs with noise."""
    rng = np.random.default_rng(seed)
    scale = np.full((v, k), -8.0)
    scale[:, list(active)] = np.log(0.5)
    true = Kernel(np.log(0.03), scale, np.full(v, np.log(size)), np.full(v, np.log(noise)))
    r = rng.dirichlet(np.ones(k), n)
    root = np.linalg.cholesky(true(r, r) + 1e-8 * np.eye(n))
    g = (root @ rng.standard_normal((v, n, 1)))[..., 0]
    return r, g, rng.standard_normal((v, n)) * noise


@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_finds_the_size_the_noise_and_the_domains_that_count(noise):
    r, g, error = draws(1, noise=noise)
    found = fit_kernel(r, g + error, np.zeros((4, 60, 60)), np.ones((4, 60)))
    np.testing.assert_allclose(np.exp(found.noise), noise, rtol=0.5)
    assert np.all(np.exp(found.size) > 0.05) and np.all(np.exp(found.size) < 0.8)
    assert found.scale[:, 0].mean() > found.scale[:, 1:].mean() + 2


def test_predicts_as_well_as_scikit_learn():
    """Hyperparameters by evidence, shared between targets, against one fit for each."""
    r, g, error = draws(2, n=50)
    z, few = g + error, np.arange(30)
    found = fit_kernel(r[few], z[:, few], np.zeros((4, 30, 30)), np.ones((4, 30)))
    c = found(r[few], r[few]) + np.exp(2 * found.noise)[:, None, None] * np.eye(30)
    mean = (found(r[30:], r[few]) @ np.linalg.solve(c, z[:, few, None]))[..., 0]
    ours = np.sqrt(((mean - g[:, 30:]) ** 2).mean())
    embedded = found.embed(r)
    start = ConstantKernel(0.04) * Matern(np.ones(3), (0.1, 1e3), nu=2.5) + WhiteKernel(1e-4)
    errors = []
    for v in range(4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *a, **k: None)  # a length at its bound
            other = GaussianProcessRegressor(start).fit(embedded[few], z[v, few])
        errors.append(other.predict(embedded[30:]) - g[v, 30:])
    assert ours < 1.2 * np.sqrt(np.mean(np.square(errors)))


def test_what_the_tangent_explains_is_not_taken_for_a_process():
    """A straight line that the law may follow, with a free slope: the process stays small."""
    rng = np.random.default_rng(0)
    r = rng.dirichlet(np.ones(3), 40)
    direction = np.log(r[:, 0] + 0.03)
    z = 0.3 * direction + 0.01 * rng.standard_normal((4, 40))
    free = np.broadcast_to(np.outer(direction, direction), (4, 40, 40)).copy()
    without, with_tangent = (
        fit_kernel(r, z, tangent, np.ones((4, 40))) for tangent in (0 * free, free)
    )
    assert np.exp(with_tangent.size).max() < 0.2 * np.exp(without.size).min()
    np.testing.assert_allclose(np.exp(with_tangent.noise), 0.01, rtol=0.4)


def test_runs_of_little_weight_do_not_raise_the_noise():
    r, g, error = draws(3, noise=0.005)
    weight = np.ones((4, 60))
    weight[:, ::5] = 1e-4
    z = g + error / np.sqrt(weight)
    known, unknown = (
        fit_kernel(r, z, np.zeros((4, 60, 60)), w) for w in (weight, np.ones_like(weight))
    )
    np.testing.assert_allclose(np.exp(known.noise), 0.005, rtol=0.5)
    assert np.exp(unknown.noise).min() > 0.05


def test_noise_of_uneven_mixtures_is_told_from_that_of_even_ones():
    """Its deviation is ``noise (sqrt(K) sum r^2)^unevenness``."""
    rng = np.random.default_rng(0)
    r = rng.dirichlet(np.ones(4), 100)
    uneven = 2.0 * (r**2).sum(1)
    for true in (0.0, 1.0):
        z = 0.01 * uneven**true * rng.standard_normal((4, 100))
        found = fit_kernel(r, z, np.zeros((4, 100, 100)), np.ones((4, 100)))
        assert found.unevenness == pytest.approx(true, abs=0.25)
        np.testing.assert_allclose(found.noise_factor(r), uneven ** (2 * found.unevenness))
        np.testing.assert_allclose(np.exp(found.noise), 0.01, rtol=0.3)


def test_a_good_start_gives_the_same_fit():
    r, g, error = draws(4)
    at = r, g + error, np.zeros((4, 60, 60)), np.ones((4, 60))
    cold = fit_kernel(*at)
    warm = fit_kernel(*at, before=cold)
    problem = _Evidence(*at)
    assert problem(problem.pack(warm))[0] == pytest.approx(problem(problem.pack(cold))[0], abs=0.5)


def test_many_runs_are_thinned():
    """More than MOST_RUNS take no more time than so many: they choose by a part of them."""
    r, g, error = draws(5, n=200, v=2)
    found = fit_kernel(r, g + error, np.zeros((2, 200, 200)), np.ones((2, 200)))
    np.testing.assert_allclose(np.exp(found.noise), 0.01, rtol=0.4)
