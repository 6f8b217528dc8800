"""The law for targets without own domain: what it finds, and who gets it."""

import numpy as np
import pytest

from bimix_tune.curves import LossCurve
from bimix_tune.laws import fit
from bimix_tune.laws.base import log_loss
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
    return [
        LossCurve(SCALAR.mixture(a), [1.0], [[b]], ["objective"]) for a, b in zip(r, y, strict=True)
    ]


def quick(curves, space, law="auto"):
    return fit(curves, space, law, judge=False)


def test_coefficients_make_the_predictions(synthetic):
    rng = np.random.default_rng(1)
    known = synthetic.truth(rng, 3, ownless=2, sums=True)
    found = quick(synthetic.runs(known, rng, 10, 0.01), known.space, "additive")
    r, s = np.array([0.2, 0.0, 0.8]), 0.3 * synthetic.END
    parameters = found.parameters()
    assert "additive" not in parameters["d0"] and "transfer" not in parameters["other0"]
    assert "rho" in parameters["d0"] and "rho" not in parameters["other0"]
    for i, name in enumerate(("other0", "other1"), 3):
        p = parameters[name]
        alpha, eps, w = p["alpha"], p["eps"], [p["additive"][d] for d in known.space.names]
        returns = ((eps + r) ** -alpha - (eps + 1) ** -alpha) / alpha
        loss = (p["B"] * s ** -p["beta"] + p["C"]) * (1 + returns @ w)
        assert found.predict(r, s, decayed=False)[0, i] == pytest.approx(loss, rel=1e-10)


@pytest.mark.parametrize("offset", [0.0, 100.0, -2.3])
def test_the_best_of_many_mixtures_by_losses_known_up_to_a_constant(offset):
    """From ten runs of one number each; the true best is the measure."""
    rng = np.random.default_rng(3)
    found = fit(scores(rng, 10, offset), SCALAR)
    assert next(iter(found.rungs)) == "additive" and found.held_out.spearman > 0.7
    cloud = rng.dirichlet(np.ones(K), 5_000)
    truth = objective(cloud)
    chosen = truth[found.objective(cloud, 1.0)[0].argmin()]
    assert chosen < truth.min() + 0.15 * truth.std()


def test_few_runs_count_all_domains_alike():
    """With hardly any evidence the even mixture is about best, and draws differ."""
    rng = np.random.default_rng(0)
    found = quick(scores(rng, 2, noise=0.001, value=lambda r: np.full(len(r), 3.0)), SCALAR)
    assert list(found.rungs) == ["additive"]
    cloud = np.concatenate([np.full((1, K), 1 / K), rng.dirichlet(np.ones(K), 2_000)])
    best = cloud[found.objective(cloud, 1.0)[0].argmin()]
    np.testing.assert_allclose(best, 1 / K, atol=0.15)
    drawn = [cloud[found.draw(rng).objective(cloud, 1.0)[0].argmin()] for _ in range(20)]
    assert np.std(drawn, axis=0).min() > 0.02


def test_domains_that_do_not_count_get_no_weight():
    rng = np.random.default_rng(2)
    curves = scores(
        rng, 40, value=lambda r: 3 * (0.02 + r[:, 1]) ** -0.2 + (0.02 + r[:, 3]) ** -0.2
    )
    w = np.array(
        list(quick(curves, SCALAR, "additive").parameters()["objective"]["additive"].values())
    )
    assert w[[0, 2, 4]].max() < 0.02 * w[3] and w[1] == pytest.approx(3 * w[3], rel=0.1)


def test_auto_prefers_the_form_that_made_the_runs(synthetic):
    """A sum or an effective proportion: the rungs' weights for targets without domain, which for
    sums differ much, as a power of an effective proportion is no sum."""
    shares = []
    for options in ({"sums": True}, {"transfer": True}):
        ratios = []
        for seed in range(4):
            rng = np.random.default_rng(seed)
            known = synthetic.truth(rng, 4, ownless=2, **options)
            model = quick(synthetic.runs(known, rng, 24, 0.005, 3), known.space).model
            of = {rung.name: w[-1] for rung, w in zip(model.rungs, model.weights, strict=True)}
            ratios.append(of["additive"] / of["transfer"])
        shares.append(np.exp(np.mean(np.log(ratios))))
    assert shares[0] > 3 and shares[1] < 1


def test_auto_is_never_indifferent_to_all_mixtures():
    """Not with noise alone, nor if the targets with own domain do not count."""
    rng = np.random.default_rng(4)
    noise = scores(rng, 8, noise=0.05, value=lambda r: np.full(len(r), 3.0))
    space = SearchSpace(SCALAR.domains, [Target("d0", 0.0, "d0"), Target("objective")])
    both = [
        LossCurve(c.mixture, [1.0], [[1.0 + i, *c.losses[0]]], space.target_names)
        for i, c in enumerate(noise)
    ]
    r = rng.dirichlet(np.ones(K), 30)
    for curves, where in ((noise, SCALAR), (both, space), (both[:3], space)):
        found = quick(curves, where)
        assert not any(name.startswith("bimix") for name in found.rungs)
        assert np.ptp(found.objective(r, 1.0)[0]) > 1e-6


def test_spaces_without_such_targets_are_not_fitted_by_it(synthetic):
    rng = np.random.default_rng(0)
    known = synthetic.truth(rng, 3)
    rungs = quick(synthetic.runs(known, rng, 6, 0.01), known.space).rungs
    assert not any("additive" in name for name in rungs)


def test_of_targets_with_own_domain_it_is_transfer(synthetic):
    """Pools are shared between targets, so a fit of both kinds is near, not equal."""
    rng = np.random.default_rng(0)
    known = synthetic.truth(rng, 3, transfer=True)
    curves = synthetic.runs(known, rng, 10, 0.01)
    a, b = (quick(curves, known.space, law) for law in ("additive", "transfer"))
    np.testing.assert_array_equal(a.predict(np.eye(3), 1e6), b.predict(np.eye(3), 1e6))


def test_no_mixture_makes_a_loss_negative():
    """Losses grow towards every corner of the simplex, however the draws fall."""
    rng = np.random.default_rng(0)
    found = quick(scores(rng, 6, noise=0.1), SCALAR, "additive")
    rung = found.model.rungs[0]
    for _ in range(20):
        shape = found.draw(rng).model.surface.shapes[0]
        value = log_loss(rung.law, shape.theta, SCALAR, np.eye(K), np.ones(K), np.zeros(K))[0]
        level = shape.theta[:, :1]
        assert np.isfinite(value).all() and np.all(value >= level - 1e-12)


@pytest.mark.parametrize("count", [6, 16])
def test_intervals_cover(count):
    """Fresh runs and true values of a mean of losses, of which the law knows the mean alone."""
    fresh, mean = [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        found = fit(scores(rng, count, noise=0.03), SCALAR, "additive")
        r = rng.dirichlet(np.ones(K), 20)
        truth = objective(r)
        run = truth + 0.03 * rng.standard_normal(20)
        for store, loss, noise in ((fresh, run, True), (mean, truth, False)):
            centre, sd = found.objective(r, 1.0, noise=noise)
            store.append(np.abs(loss - centre) < 1.96 * sd)
    assert 0.88 <= np.mean(fresh) <= 0.995
    assert 0.80 <= np.mean(mean) <= 0.999
