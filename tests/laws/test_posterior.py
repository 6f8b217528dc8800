"""Intervals cover and draws spread as they claim."""

import numpy as np
import pytest

from bimix_tune.laws import LAWS, fit


def _coverage(name, synthetic, count, seeds, correlation):
    """Share of fresh runs and of true means within 95 % intervals."""
    fresh, mean = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        known = synthetic.truth(rng, 4, transfer=name == "transfer")
        found = fit(synthetic.runs(known, rng, count, 0.01, 3, correlation=correlation),
                    known.space, name)  # fmt: skip
        r = rng.dirichlet(np.ones(4), 20)
        cov = 1e-4 * (correlation + (1 - correlation) * np.eye(4))
        truth = known.losses(r, synthetic.END, True)
        run = truth * np.exp(rng.multivariate_normal(np.zeros(4), cov, 20))
        for store, loss, noise in ((fresh, run, True), (mean, truth, False)):
            centre, sd = found.objective(r, synthetic.END, noise=noise)
            store.append(np.abs(loss @ known.space.weights - centre) < 1.96 * sd)
    return np.mean(fresh), np.mean(mean)


@pytest.mark.parametrize("name", ["bimix", "transfer"])  # `additive` has a test of its own
@pytest.mark.parametrize("count", [6, 16])
@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_coverage(name, count, correlation, synthetic):
    """Far from the 68-89 % that independent targets would give, and not empty either."""
    fresh, mean = _coverage(name, synthetic, count, 30, correlation)
    assert 0.90 <= fresh <= 0.999
    assert 0.85 <= mean <= 1.0


def test_correlated_targets_widen_the_interval(synthetic):
    widths = []
    for correlation in (0.0, 0.9):
        rng = np.random.default_rng(0)
        known = synthetic.truth(rng, 4)
        curves = synthetic.runs(known, rng, 60, 0.01, 3, correlation=correlation)
        found = fit(curves, known.space, "bimix")
        widths.append(found.objective(np.full(4, 0.25), synthetic.END)[1][0])
    assert widths[1] > 1.3 * widths[0]


@pytest.mark.parametrize("name", LAWS)
def test_draws_spread_like_the_deviation(name, synthetic):
    rng = np.random.default_rng(1)
    known = synthetic.truth(rng, 4, transfer=True)
    found = fit(synthetic.runs(known, rng, 12, 0.01), known.space, name)
    r = rng.dirichlet(np.ones(4), 10)
    mean, sd = found.objective(r, synthetic.END, noise=False)
    draws = [found.draw(rng) for _ in range(400)]
    drawn = np.array([d.objective(r, synthetic.END)[0] for d in draws])
    spread = np.sqrt(((drawn - mean) ** 2).mean(0))
    np.testing.assert_allclose(spread, sd, rtol=0.25)
    assert len(set(drawn[:, 0])) > 30
    assert draws[0].objective(r, synthetic.END, noise=False)[1] == pytest.approx(0.0, abs=1e-9)
    again = found.draw(np.random.default_rng(7)).theta
    np.testing.assert_array_equal(again, found.draw(np.random.default_rng(7)).theta)


def test_more_runs_make_it_surer(synthetic):
    sds = []
    for count in (5, 40):
        rng = np.random.default_rng(3)
        known = synthetic.truth(rng, 4)
        found = fit(synthetic.runs(known, rng, count, 0.01), known.space, "bimix")
        sds.append(found.objective(np.full(4, 0.25), synthetic.END, noise=False)[1][0])
    assert sds[1] < 0.6 * sds[0]
