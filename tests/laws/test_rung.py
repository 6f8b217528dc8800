"""A law with a process about it: the linear algebra against explicit refits, and the draws."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune.laws.additive import Additive
from bimix_tune.laws.base import log_loss
from bimix_tune.laws.bimix import Bimix
from bimix_tune.laws.fitting import estimate
from bimix_tune.laws.kernel import Kernel
from bimix_tune.laws.linear import Linear
from bimix_tune.laws.observations import observe
from bimix_tune.laws.rung import JITTER, Rung, _waves, with_process
from bimix_tune.laws.transfer import Transfer

EQUATIONS = (Bimix(), Transfer(), Additive(), Linear())
equations = pytest.mark.parametrize("equation", EQUATIONS, ids=lambda e: e.name)
processes = pytest.mark.parametrize("process", [False, True], ids=["law", "process"])


def curves_of(synthetic, seed, count=10, noise=0.01):
    """Runs with repeats of one mixture, one that was stopped, and a missing loss."""
    rng = np.random.default_rng(seed)
    known = synthetic.truth(rng, 3, transfer=True, ownless=1)
    curves = synthetic.runs(known, rng, count, noise, 4)
    twin = synthetic.changed(curves[0], losses=1.01 * curves[0].losses, run="twin", seed=1)
    losses = np.array(curves[1].losses)
    losses[:, 2] = np.nan
    curves[1] = synthetic.changed(curves[1], losses=losses)
    curves[2] = synthetic.cut(curves[2], 2)
    return [*curves, twin], known


def rung_of(synthetic, seed, equation, process, count=10, noise=0.01):
    curves, known = curves_of(synthetic, seed, count, noise)
    seen = observe(curves, known.space)
    alone = estimate(equation, seen, known.space)
    if process:
        return with_process(equation, known.space, seen, alone)
    return Rung(equation, known.space, seen, alone, None)


class Explicit:
    """The linear-Gaussian model of one target, with a covariance matrix for all that is normal.

    ``z = J (theta - m) + g + e``, theta ~ N(m, S), g ~ GP, e ~ noise / weight, of runs and below
    them of falls, the differences between two points of one run, in which g cancels.
    """

    def __init__(self, rung, target):
        prior, theta = rung.estimate.prior, rung.estimate.theta[target]
        self.rung, self.target = rung, target
        self.m, self.s = prior.mean[target], np.diag(prior.sd[target] ** 2)
        self.theta = theta
        seen, falls, self.runs = rung.seen, rung.seen.falls, len(rung.seen.r)
        at_runs = self.law(seen.r, seen.tokens / seen.reference, seen.decayed)
        anywhere = np.full((len(falls.tokens), seen.r.shape[1]), 1 / seen.r.shape[1])
        early = self.law(anywhere, falls.tokens / seen.reference, falls.decayed)
        late = self.law(anywhere, falls.end_tokens / seen.reference, falls.end_decayed)
        self.value, self.j = (
            np.concatenate([a, b - c]) for a, b, c in zip(at_runs, early, late, strict=True)
        )
        y = np.concatenate([seen.log_loss[target], falls.value[target]])
        self.z = y - self.value + self.j @ (theta - self.m)
        weight = np.maximum(rung.estimate.weight[target], 1e-6)
        factor = np.ones(len(weight))
        if rung.kernel is not None:  # see the module of the kernel
            uneven = np.sqrt(seen.r.shape[1]) * (seen.r**2).sum(1)
            factor[: self.runs] = uneven ** (2 * rung.kernel.unevenness)
        self.e = np.diag(rung.noise[target] * factor / weight)

    def law(self, r, t, decayed):
        """Log losses and their derivatives by the coordinates."""
        rung = self.rung
        parts = log_loss(rung.law, rung.estimate.theta, rung.space, r, t, decayed)
        return [part[self.target] for part in parts]

    def g(self, r, others):
        if self.rung.kernel is None:
            return np.zeros((len(r), len(others)))
        return self.rung.kernel(r, others)[self.target]

    def predict(self, known, r, j):
        """Mean and variance of ``J (theta - m) + g`` at mixtures, from some runs and all falls."""
        runs, some = self.rung.seen.r[known], len(known)
        known = np.concatenate([known, np.arange(self.runs, len(self.z))])
        own, across = np.zeros((len(known), len(known))), np.zeros((len(r), len(known)))
        own[:some, :some], across[:, :some] = self.g(runs, runs), self.g(r, runs)
        own = own + JITTER * np.diag(np.diag(own))
        a = self.j[known]
        c = a @ self.s @ a.T + own + self.e[np.ix_(known, known)]
        cross = j @ self.s @ a.T + across
        total = np.diag(j @ self.s @ j.T + self.g(r, r))
        mean = cross @ np.linalg.solve(c, self.z[known])
        return mean, total - np.diag(cross @ np.linalg.solve(c, cross.T))


@equations
@processes
@pytest.mark.parametrize("seed", [0, 1])
def test_left_out_is_a_refit_without_the_mixture(equation, process, seed, synthetic):
    """Of the law linearised at the fit, hyperparameters kept; repeats are left out together."""
    rung = rung_of(synthetic, seed, equation, process)
    seen = rung.seen
    assert seen.mixtures < len(seen.r) and len(seen.falls.tokens) > 2
    left = rung.left_out()
    for target in range(4):
        model = Explicit(rung, target)
        for group in range(seen.mixtures):
            out, known = (np.flatnonzero(m) for m in (seen.group == group, seen.group != group))
            mean, _ = model.predict(known, seen.r[out], model.j[out])
            law = model.value[out] - model.j[out] @ (model.theta - model.m)
            measured = seen.weight[target, out] > 0  # nothing is to be predicted elsewhere
            np.testing.assert_allclose(
                left[target, out][measured], (law + mean)[measured], rtol=1e-5, atol=1e-6
            )


@equations
@processes
@pytest.mark.parametrize(("t", "decayed"), [(1.0, 1.0), (0.2, 0.0), (4.0, 1.0)])
def test_variance_is_the_posterior_one(equation, process, t, decayed, synthetic):
    """Where runs end, earlier, and beyond, of which the falls tell most."""
    rung = rung_of(synthetic, 2, equation, process)
    rng = np.random.default_rng(0)
    r = rng.dirichlet(np.ones(3), 6)
    at = np.full(6, t), np.full(6, decayed)
    found = rung.variance(r, *at)
    jacobian = log_loss(rung.law, rung.estimate.theta, rung.space, r, *at)[1]
    everything = np.arange(len(rung.seen.r))
    for target in range(4):
        _, variance = Explicit(rung, target).predict(everything, r, jacobian[target])
        np.testing.assert_allclose(found[target], variance, rtol=1e-3, atol=1e-8)
    assert np.all(found > 0)


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_far_from_runs_the_process_is_less_certain(seed, synthetic):
    """Than at a run, for a law that is known to start with."""
    rung = rung_of(synthetic, seed, Linear(), True)
    tight = dataclasses.replace(rung.estimate.prior, sd=np.full_like(rung.estimate.prior.sd, 1e-6))
    rung = dataclasses.replace(rung, estimate=dataclasses.replace(rung.estimate, prior=tight))
    r, t, d = rung.seen.r, np.ones(len(rung.seen.r)), np.ones(len(rung.seen.r))
    prior = np.exp(2 * rung.kernel.size)[:, None]
    known = rung.seen.weight > 0
    variance = rung.variance(r, t, d)
    assert np.all(variance <= prior * (1 + 1e-6))
    assert np.all(np.where(known, variance < rung._spread[:, : len(r)], True))


@equations
def test_process_goes_through_runs_without_noise(equation, synthetic):
    """Whatever the law misses, and a line misses much."""
    rng = np.random.default_rng(5)
    known = synthetic.truth(rng, 3, transfer=True)
    curves = synthetic.runs(known, rng, 24, 0.0, 1)
    seen = observe(curves, known.space)
    rung = with_process(equation, known.space, seen, estimate(equation, seen, known.space))
    at = np.ones(24), np.ones(24)
    alone = estimate(equation, seen, known.space)
    missed = np.abs(log_loss(equation, alone.theta, known.space, seen.r, *at)[0] - seen.log_loss)
    left = np.abs(rung.shape.log_loss(seen.r, *at) - seen.log_loss)
    assert left.mean() < 1e-3
    if equation.name in ("bimix", "linear"):
        assert left.mean() < 0.05 * missed.mean()


def test_residuals_of_the_process_are_what_the_model_says(synthetic):
    """At the most probable coordinates the process is the mean of g given the rest."""
    rung = rung_of(synthetic, 4, Transfer(), True)
    seen = rung.seen
    n = len(seen.r)
    t = seen.tokens / seen.reference
    value = log_loss(rung.law, rung.estimate.theta, rung.space, seen.r, t, seen.decayed)[0]
    for v in range(4):
        k = rung.kernel(seen.r, seen.r)[v]
        weight = np.maximum(rung.estimate.weight[v, :n], 1e-6)
        factor = rung.kernel.noise_factor(seen.r)
        noise = np.diag(rung.noise[v] * factor / weight + JITTER * np.diag(k))
        mean = k @ np.linalg.solve(k + noise, seen.log_loss[v] - value[v])
        found = rung.shape.process(seen.r)[v]
        np.testing.assert_allclose(found, mean, rtol=1e-6, atol=1e-9)


@equations
@processes
@pytest.mark.parametrize("t", [1.0, 4.0])
def test_draws_are_centred_on_the_surface_and_spread_as_said(equation, process, t, synthetic):
    """The law is nearly linear within its posterior with many runs of little noise, beyond their
    tokens too."""
    rng = np.random.default_rng(7)
    known = synthetic.truth(rng, 3, sums=True, transfer=equation.name == "transfer")
    seen = observe(synthetic.runs(known, rng, 24, 0.004, 4), known.space)
    alone = estimate(equation, seen, known.space)
    rung = Rung(equation, known.space, seen, alone, None)
    if process:
        rung = with_process(equation, known.space, seen, alone)
    noise = np.diag(rung.noise)
    r, at = rng.dirichlet(np.ones(3), 8), (np.full(8, t), np.ones(8))
    drawn = np.array([rung.draw(rng, noise).log_loss(r, *at) for _ in range(250)])
    sd = np.sqrt(rung.variance(r, *at))
    assert np.abs((drawn.mean(0) - rung.shape.log_loss(r, *at)) / sd).max() < 0.5
    ratio = drawn.std(0) / sd
    assert 0.7 < np.median(ratio) < 1.3
    assert ratio.min() > 0.4 and ratio.max() < 2.0


@processes
@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_certain_where_data_are_nearly_without_noise(process, noise, synthetic):
    """With 22 domains and 40 runs: small differences of large variances do not get lost."""
    rng = np.random.default_rng(0)
    known = synthetic.truth(rng, 22)
    seen = observe(synthetic.runs(known, rng, 40, noise, 3), known.space)
    alone = estimate(Transfer(), seen, known.space)
    rung = Rung(Transfer(), known.space, seen, alone, None)
    if process:
        rung = with_process(Transfer(), known.space, seen, alone)
    at = np.ones(40), np.ones(40)
    fresh = rng.dirichlet(np.ones(22), 40)
    assert np.sqrt(rung.variance(seen.r, *at)).max() < 1e-3
    assert np.sqrt(rung.variance(fresh, *at)).max() < 0.01


@processes
def test_draws_follow_the_generator(process, synthetic):
    rung = rung_of(synthetic, 1, Transfer(), process)
    r, at = rung.seen.r, (np.ones(11), np.ones(11))
    noise = np.diag(rung.noise)
    one, again, other = (
        rung.draw(np.random.default_rng(s), noise).log_loss(r, *at) for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).min() > 1e-9


def test_correlated_noise_moves_the_targets_of_a_draw_together(synthetic):
    rung = rung_of(synthetic, 1, Bimix(), False, count=30)
    middle = np.full((1, 3), 1 / 3)
    spread = np.sqrt(np.outer(rung.noise, rung.noise))
    found = []
    for correlation in (0.0, 0.95):
        noise = spread * (correlation + (1 - correlation) * np.eye(4))
        rng = np.random.default_rng(0)
        drawn = [rung.draw(rng, noise).log_loss(middle, np.ones(1), np.ones(1)) for _ in range(150)]
        found.append(np.corrcoef(np.array(drawn)[..., 0].T)[0, 1])
    assert found[1] > found[0] + 0.3


@processes
def test_slopes_of_surfaces_and_draws(process, synthetic):
    rung = rung_of(synthetic, 3, Transfer(), process)
    rng = np.random.default_rng(0)
    r, at = rng.dirichlet(np.full(3, 5.0), 5), (np.ones(5), np.ones(5))
    drawn = rung.draw(rng, np.diag(rung.noise))
    assert (drawn.waves is not None) == process
    for shape in (rung.shape, drawn):
        slope = shape.slope(r, *at)
        for j in range(3):
            step = 1e-6 * np.eye(3)[j]
            up, down = (shape.log_loss(r + s * step, *at) for s in (1, -1))
            np.testing.assert_allclose(slope[..., j], (up - down) / 2e-6, rtol=1e-4, atol=1e-5)


def test_waves_have_the_covariance_of_the_kernel():
    """Over many draws of random features, at lengths where it falls from one to near zero."""
    rng = np.random.default_rng(0)
    kernel = Kernel(-2.0, np.log([[1.0, 0.3, 3.0]]), np.zeros(1), np.zeros(1))
    r = rng.dirichlet(np.ones(3), 6)
    expected = kernel(r, r)[0]
    values = np.array([_waves(kernel, rng)(r)[0] for _ in range(3_000)])
    np.testing.assert_allclose(values.T @ values / 3_000, expected, atol=0.08)
    assert expected.min() < 0.3


def test_draws_from_two_runs_spread_as_the_prior_lets_them(synthetic):
    """A straight line, whose model is linear: what two runs leave open is as wide as said."""
    rng = np.random.default_rng(0)
    known = synthetic.truth(rng, 4)
    seen = observe(synthetic.runs(known, rng, 2, 0.01, 1), known.space)
    alone = estimate(Linear(), seen, known.space)
    rung = Rung(Linear(), known.space, seen, alone, None)
    at = np.ones(4), np.ones(4)
    drawn = [rung.draw(rng, np.diag(rung.noise)).log_loss(np.eye(4), *at) for _ in range(300)]
    ratio = np.std(drawn, axis=0) / np.sqrt(rung.variance(np.eye(4), *at))
    np.testing.assert_allclose(ratio, 1.0, atol=0.2)


def test_missing_losses_do_not_count(synthetic):
    """A run without a target is where the others say, and its place among them is free."""
    rung = rung_of(synthetic, 0, Linear(), True)
    gap = int(np.flatnonzero(rung.seen.weight[2] == 0)[0])
    spoilt = np.array(rung.seen.log_loss)
    spoilt[2, gap] += 1.0
    other = dataclasses.replace(rung, seen=dataclasses.replace(rung.seen, log_loss=spoilt))
    keep = rung.seen.weight > 0
    np.testing.assert_allclose(rung.left_out()[keep], other.left_out()[keep], atol=5e-4)
