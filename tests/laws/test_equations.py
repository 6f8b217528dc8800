"""Derivatives of every law, and what the equations promise at their edges."""

import numpy as np
import pytest

from bimix_tune.laws import LAWS, fit
from bimix_tune.laws.base import BETA, DELTA, EPS, LEVEL, PHI


def _theta(law, space, rng):
    prior = law.prior(space)
    return prior.mean + 0.5 * rng.standard_normal(prior.mean.shape)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("ownless", [0, 2])
def test_derivatives_match_central_differences(name, ownless, synthetic):
    rng = np.random.default_rng(ownless)
    space = synthetic.truth(rng, 4, ownless=ownless).space
    law, r = LAWS[name], rng.dirichlet(np.ones(4), size=9)
    r[0] = [0.0, 0.5, 0.5, 0.0]
    t, decayed = rng.uniform(0.1, 2.0, 9), (rng.random(9) < 0.5).astype(float)
    theta = _theta(law, space, rng)
    _, jacobian = law.log_loss(theta, space, r, t, decayed)
    for p in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, p] = 1e-5
        up, _ = law.log_loss(theta + step, space, r, t, decayed)
        down, _ = law.log_loss(theta - step, space, r, t, decayed)
        np.testing.assert_allclose(jacobian[..., p], (up - down) / 2e-5, atol=2e-9, rtol=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_gradient_by_proportions_matches_central_differences(name, synthetic):
    rng = np.random.default_rng(3)
    known = synthetic.truth(rng, 4, transfer=True, ownless=1)
    found = fit(synthetic.runs(known, rng, 12, 0.01), known.space, name)
    r, tokens = rng.dirichlet(np.ones(4), size=5), 0.7 * synthetic.END
    gradient = found.gradient(r, tokens)
    if name == "bimix":  # a target without own domain adds a constant, written as sum(r)
        gradient = gradient - gradient.mean(1, keepdims=True)
    for k in range(4):
        step = 1e-6 * (np.eye(4)[k] - 0.25)  # keeps the sum
        up, down = (found.objective(r + s * step, tokens)[0] for s in (1, -1))
        along = gradient @ (np.eye(4)[k] - 0.25)
        np.testing.assert_allclose(along, (up - down) / 2e-6, rtol=1e-6, atol=1e-8)


def test_transfer_without_transfer_is_bimix(synthetic):
    rng = np.random.default_rng(0)
    space = synthetic.truth(rng, 3).space
    theta = _theta(LAWS["bimix"], space, rng)
    r, t, d = rng.dirichlet(np.ones(3), 6), rng.uniform(0.1, 1, 6), np.zeros(6)
    longer = np.concatenate([theta, np.zeros((3, 3))], axis=1)
    low, _ = LAWS["bimix"].log_loss(theta, space, r, t, d)
    high, _ = LAWS["transfer"].log_loss(longer, space, r, t, d)
    np.testing.assert_array_equal(low, high)


def test_equation_is_the_papers(synthetic):
    """(eps + r)^-alpha (B s^-beta + C), and exp(-delta) below it when decayed."""
    rng = np.random.default_rng(1)
    known = synthetic.truth(rng, 3)
    found = fit(synthetic.runs(known, rng, 8, 0.01), known.space, "bimix")
    r, s = np.array([0.2, 0.0, 0.8]), 0.3 * synthetic.END
    for i, (name, p) in enumerate(found.parameters().items()):
        loss = (p["eps"] + r[i]) ** -p["alpha"] * (p["B"] * s ** -p["beta"] + p["C"])
        assert found.predict(r, s, decayed=False)[0, i] == pytest.approx(loss, rel=1e-12)
        decayed = found.predict(r, s, decayed=True)[0, i]
        assert decayed == pytest.approx(loss * np.exp(-p["delta"]), rel=1e-12)
        assert p["transfer"][name] == 1.0


def test_target_without_domain_is_constant_under_bimix_and_not_under_transfer(synthetic):
    rng = np.random.default_rng(2)
    known = synthetic.truth(rng, 3, transfer=True, ownless=1)
    curves = synthetic.runs(known, rng, 20, 0.002)
    r = rng.dirichlet(np.ones(3), 50)
    flat = fit(curves, known.space, "bimix").predict(r, synthetic.END)[:, 3]
    assert np.ptp(flat) < 1e-9
    truth = known.losses(r, synthetic.END, True)[:, 3]
    found = fit(curves, known.space, "transfer").predict(r, synthetic.END)[:, 3]
    assert np.abs(found / truth - 1).mean() < 0.2 * np.abs(flat / truth - 1).mean()


def test_coordinates_of_time_have_no_effect_at_the_reference(synthetic):
    rng = np.random.default_rng(0)
    space = synthetic.truth(rng, 3).space
    _, jacobian = LAWS["bimix"].log_loss(
        _theta(LAWS["bimix"], space, rng), space, np.eye(3), np.ones(3), np.zeros(3)
    )
    assert np.all(jacobian[..., [BETA, PHI, DELTA]] == 0)
    assert np.all(jacobian[..., LEVEL] == 1)
    assert np.all(jacobian[..., EPS] < 0)
