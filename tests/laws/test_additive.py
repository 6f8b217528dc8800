"""The law for targets without own domain: its equation, its optimum, and who gets it."""

import json

import numpy as np
import pytest

from bimix_tune.curves import LossCurve
from bimix_tune.laws import LAWS, LawFit, fit, optimise
from bimix_tune.laws.base import ALPHA, EPS
from bimix_tune.space import Domain, SearchSpace, Target

K = 5
SCALAR = SearchSpace(
    [Domain(f"d{i}", prior=p) for i, p in enumerate((8, 4, 2, 1, 1))], [Target("objective")]
)
ALPHAS = np.array([0.05, 0.3, 0.15, 0.1, 0.2])


def objective(r):
    """A mean of five losses, each of its own domain and with its own exponent, (M, K) -> (M,)."""
    return np.mean((0.02 + r) ** -ALPHAS * np.array([2.0, 1.5, 3.0, 2.5, 1.0]), axis=1)


def scores(rng, count, offset=0.0, noise=0.0, value=objective):
    """Runs of random mixtures that report one number."""
    r = rng.dirichlet(np.ones(K), count)
    y = value(r) + offset + noise * rng.standard_normal(count)
    return [LossCurve(SCALAR.mixture(a), [1.0], [[b]], ["objective"]) for a, b in zip(r, y)]  # noqa: B905


def test_contains_the_first_rung(synthetic):
    """With W = 0 and T = 0 targets without domain are constant, the others BiMix."""
    rng = np.random.default_rng(0)
    space = synthetic.truth(rng, 3, ownless=2).space
    short = LAWS["bimix"].prior(space).mean + 0.3 * rng.standard_normal((5, 6))
    long = np.concatenate([short, np.zeros((5, 3))], axis=1)
    r, t, d = rng.dirichlet(np.ones(3), 6), rng.uniform(0.1, 1, 6), np.zeros(6)
    low, _ = LAWS["bimix"].log_loss(short, space, r, t, d)
    high, _ = LAWS["additive"].log_loss(long, space, r, t, d)
    np.testing.assert_array_equal(low[:3], high[:3])
    constant = np.exp(short[3:, ALPHA, None]) * np.log1p(np.exp(short[3:, EPS, None]))
    np.testing.assert_allclose(high[3:], low[3:] + constant, rtol=1e-12)


@pytest.mark.parametrize("log_alpha", [-30.0, -8.0, -7.0, 0.5])
def test_derivatives_hold_down_to_the_logarithm(log_alpha):
    """From both sides of the switch to a series, and where alpha makes no difference."""
    law, rng = LAWS["additive"], np.random.default_rng(1)
    theta = law.prior(SCALAR).mean + 0.3 * rng.standard_normal((1, 6 + K))
    theta[0, ALPHA] = log_alpha
    r = np.concatenate([np.eye(K), rng.dirichlet(np.ones(K), 5)])
    y, jacobian = law.log_loss(theta, SCALAR, r, np.ones(10), np.zeros(10))
    for p in range(6 + K):
        step = np.zeros_like(theta)
        step[:, p] = 1e-5
        up, down = (
            law.log_loss(theta + s * step, SCALAR, r, np.ones(10), np.zeros(10))[0] for s in (1, -1)
        )
        np.testing.assert_allclose(jacobian[..., p], (up - down) / 2e-5, atol=1e-9, rtol=1e-6)
    if log_alpha == -30.0:
        eps, w = np.exp(theta[0, EPS]), theta[0, 6:] ** 2
        logarithmic = theta[0, 0] + np.log(1 + np.log((eps + 1) / (eps + r)) @ w)
        np.testing.assert_allclose(y[0], logarithmic, rtol=1e-10)


def test_equation_is_the_documented_one(synthetic):
    rng = np.random.default_rng(1)
    known = synthetic.truth(rng, 3, ownless=2, sums=True)
    found = fit(synthetic.runs(known, rng, 10, 0.01), known.space, "additive")
    r, s = np.array([0.2, 0.0, 0.8]), 0.3 * synthetic.END
    parameters = found.parameters()
    assert "additive" not in parameters["d0"] and "transfer" not in parameters["other0"]
    for i, name in enumerate(("other0", "other1"), 3):
        p = parameters[name]
        alpha, eps, w = p["alpha"], p["eps"], [p["additive"][d] for d in known.space.names]
        returns = ((eps + r) ** -alpha - (eps + 1) ** -alpha) / alpha
        loss = (p["B"] * s ** -p["beta"] + p["C"]) * (1 + returns @ w)
        assert found.predict(r, s, decayed=False)[0, i] == pytest.approx(loss, rel=1e-10)
    mixtures = rng.dirichlet(np.ones(3), 7)
    expected = found.predict(mixtures, s) @ known.space.weights
    np.testing.assert_allclose(found.terms(s).parts(mixtures).sum(-1), expected, rtol=1e-10)


def test_round_trip_through_json():
    found = fit(scores(np.random.default_rng(0), 9), SCALAR, "additive")
    back = LawFit.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    r = np.full((1, K), 1 / K)
    for a, b in zip(found.objective(r, 1.0), back.objective(r, 1.0), strict=True):
        np.testing.assert_array_equal(a, b)
    assert back.parameters() == found.parameters()


@pytest.mark.parametrize("offset", [0.0, 100.0, -2.3])
def test_optimum_of_a_mean_of_losses_known_up_to_a_constant(offset):
    """From ten runs; the textbook optimum with the true exponents is the measure."""
    rng = np.random.default_rng(3)
    curves = scores(rng, 10, offset)
    found = fit(curves, SCALAR)
    assert found.law == "additive" and found.held_out.spearman > 0.8
    best = SCALAR.array(optimise(found, SCALAR, 1.0))
    cloud = rng.dirichlet(np.ones(K), 20_000)
    spread = objective(cloud).std()
    assert objective(best[None])[0] < objective(cloud).min() + 0.1 * spread
    assert found.objective(cloud, 1.0)[0].min() >= found.objective(best, 1.0)[0][0] - 1e-12


def test_optimum_of_targets_with_and_without_domain(synthetic):
    """Two sums and two products: several terms for a domain, which Newton's method minds."""
    rng = np.random.default_rng(5)
    known = synthetic.truth(rng, 4, ownless=2, sums=True)
    space = SearchSpace(known.space.domains, known.space.targets[2:])
    found = fit(synthetic.runs(known, rng, 16, 0.005), space, "additive")
    best = optimise(found, space, synthetic.END)
    value = found.objective(best, synthetic.END)[0][0]
    r = space.array(best)
    near = [space.fit_in(np.abs(r + 0.02 * rng.standard_normal(4))) for _ in range(2_000)]
    others = [space.mixture(m) for m in rng.dirichlet(np.ones(4), 2_000)]
    assert found.objective([*near, *others], synthetic.END)[0].min() >= value - 1e-9


def test_few_runs_count_all_domains_alike():
    """With hardly any evidence the best mixture is near the even one, and draws differ."""
    rng = np.random.default_rng(0)
    found = fit(scores(rng, 2, noise=0.001, value=lambda r: np.full(len(r), 3.0)), SCALAR)
    assert found.law == "additive"
    np.testing.assert_allclose(SCALAR.array(optimise(found, SCALAR, 1.0)), 1 / K, atol=0.12)
    drawn = [SCALAR.array(optimise(found.draw(rng), SCALAR, 1.0)) for _ in range(20)]
    assert np.std(drawn, axis=0).min() > 0.02


def test_domains_that_do_not_count_get_no_weight():
    rng = np.random.default_rng(2)
    curves = scores(
        rng, 40, value=lambda r: 3 * (0.02 + r[:, 1]) ** -0.2 + (0.02 + r[:, 3]) ** -0.2
    )
    found = fit(curves, SCALAR, "additive")
    w = np.array(list(found.parameters()["objective"]["additive"].values()))
    assert w[[0, 2, 4]].max() < 0.02 * w[3] and w[1] == pytest.approx(3 * w[3], rel=0.1)


def test_auto_takes_the_form_that_made_the_runs(synthetic):
    """A sum or an effective proportion, whichever predicts better; `bimix` if no domain helps."""
    picked = []
    for transfer, sums in ((False, True), (True, False), (False, False)):
        rng = np.random.default_rng(8)
        known = synthetic.truth(rng, 4, transfer, 2, sums)
        picked.append(fit(synthetic.runs(known, rng, 24, 0.005), known.space).law)
    assert picked == ["additive", "transfer", "bimix"]


def test_auto_is_never_indifferent_to_all_mixtures():
    """Not with noise alone, nor if the targets with own domain do not count."""
    rng = np.random.default_rng(4)
    noise = scores(rng, 8, noise=0.05, value=lambda r: np.full(len(r), 3.0))
    assert fit(noise, SCALAR).law != "bimix"
    space = SearchSpace(SCALAR.domains, [Target("d0", 0.0, "d0"), Target("objective")])
    both = [
        LossCurve(c.mixture, [1.0], [[1.0 + i, *c.losses[0]]], space.target_names)
        for i, c in enumerate(noise)
    ]
    assert fit(both, space).law != "bimix"
    assert fit(both[:3], space).law == "additive"


def test_spaces_without_such_targets_are_not_fitted_thrice(synthetic, monkeypatch):
    rng = np.random.default_rng(0)
    known = synthetic.truth(rng, 3)
    curves = synthetic.runs(known, rng, 6, 0.01)

    def refuse(*args):
        raise AssertionError("additive was tried")

    monkeypatch.setattr(type(LAWS["additive"]), "log_loss", refuse)
    assert fit(curves, known.space).law in ("bimix", "transfer")


@pytest.mark.parametrize("count", [6, 16])
def test_intervals_cover(count):
    """Fresh runs and true values of a mean of losses, of which the law knows the mean alone."""
    fresh, mean = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = fit(scores(rng, count, noise=0.03), SCALAR, "additive")
        r = rng.dirichlet(np.ones(K), 20)
        truth = objective(r)
        run = truth + 0.03 * rng.standard_normal(20)
        for store, loss, noise in ((fresh, run, True), (mean, truth, False)):
            centre, sd = found.objective(r, 1.0, noise=noise)
            store.append(np.abs(loss - centre) < 1.96 * sd)
    assert 0.88 <= np.mean(fresh) <= 0.999
    assert 0.80 <= np.mean(mean) <= 1.0
