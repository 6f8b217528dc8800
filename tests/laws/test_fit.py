"""What fits recover, survive and warn of."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune.curves import LossCurve
from bimix_tune.errors import FitError
from bimix_tune.laws import LAWS, fit, least_squares
from bimix_tune.mixture import Mixture
from bimix_tune.space import SearchSpace, Target


@pytest.fixture(scope="module")
def known(synthetic):
    return synthetic.truth(np.random.default_rng(5), 4, transfer=True)


@pytest.fixture(scope="module")
def curves(synthetic, known):
    return synthetic.runs(known, np.random.default_rng(6), 20, 0.005)


def quick(curves, space, law="auto", **options):
    return fit(curves, space, law, judge=False, **options)


@pytest.mark.parametrize(
    ("name", "ownless"),
    [("bimix", 0), ("bimix", 1), ("transfer", 0), ("transfer", 1), ("additive", 1)],
)
@pytest.mark.parametrize("checkpoints", [6, 1])
def test_recovers_its_own_curves(name, ownless, checkpoints, synthetic):
    """Priors vanish with the noise, at zero proportions too."""
    rng = np.random.default_rng(7)
    truth = synthetic.truth(rng, 4, name == "transfer", ownless, sums=name == "additive")
    found = quick(synthetic.runs(truth, rng, 40, 0.0, checkpoints), truth.space, name)
    r = rng.dirichlet(np.ones(4), 100)
    r[:4] = np.eye(4)
    most, mean = {"bimix": (1e-5, 1e-6), "transfer": (1e-2, 1e-4), "additive": (2e-3, 2e-4)}[name]
    for tokens, decayed in ((synthetic.END, True), (synthetic.END / 3, False))[:checkpoints]:
        got = found.predict(r, tokens, decayed)
        error = np.abs(got / truth.losses(r, tokens, decayed) - 1)
        assert error.max() < most and error.mean() < mean
    if name == "bimix":  # elsewhere coordinates at their limits, T = 0 and rho = 1, take long
        assert not found.warnings


def test_recovers_a_straight_line():
    rng = np.random.default_rng(0)
    space = SearchSpace(["a", "b", "c"], [Target("score")])
    slope = np.array([0.5, -0.3, 0.1])
    curves = [
        LossCurve(space.mixture(r), [1.0], [np.exp(r @ slope)], ["score"])
        for r in rng.dirichlet(np.ones(3), 12)
    ]
    r = rng.dirichlet(np.ones(3), 30)
    found = quick(curves, space, "linear")
    np.testing.assert_allclose(found.predict(r, 1.0)[:, 0], np.exp(r @ slope), rtol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_auto_takes_the_simplest_law_from_few_mixtures(count, known, curves):
    rungs = quick(curves[:count], known.space).rungs
    assert (list(rungs) == ["bimix"]) == (count < 4)


def test_single_token_count_is_exact_there(known, synthetic):
    rng = np.random.default_rng(9)
    single = synthetic.runs(known, rng, 30, 0.0, checkpoints=1)
    found = quick(single, known.space, "transfer")
    r = rng.dirichlet(np.ones(4), 20)
    truth = known.losses(r, synthetic.END, True)
    np.testing.assert_allclose(found.predict(r, synthetic.END), truth, rtol=1e-4)
    assert np.all(found.predict(r, 2 * synthetic.END) < truth)  # by the prior
    assert found.parameters()["d0"]["delta"] == 0.0  # cannot be told from the level


def test_without_decayed_points_both_predictions_agree(known, synthetic):
    plain = synthetic.runs(known, np.random.default_rng(1), 8, 0.005, decayed=False)
    found = quick(plain, known.space)
    r = np.full(4, 0.25)
    constant, decayed = (found.predict(r, synthetic.END, d) for d in (False, True))
    np.testing.assert_allclose(constant, decayed, rtol=1e-5)


def test_stopped_runs_help(known, synthetic):
    rng = np.random.default_rng(2)
    full = synthetic.runs(known, rng, 16, 0.004)
    stopped = [synthetic.cut(c, 3) for c in full[4:]]
    r = rng.dirichlet(np.ones(4), 200)
    truth = known.losses(r, synthetic.END, True)
    for name in ("auto", "transfer", "process"):
        alone, both = (
            np.abs(quick(c, known.space, name).predict(r, synthetic.END) / truth - 1).mean()
            for c in (full[:4], full[:4] + stopped)
        )
        assert both < 0.7 * alone
    assert fit(full[:4] + stopped, known.space).held_out.runs == ("r0", "r1", "r2", "r3")


def test_one_outlier_hardly_matters(our_law, known, curves, synthetic):
    """Neither for predictions nor for how sure of them the law is."""
    broken = synthetic.changed(curves[7], losses=1.4 * curves[7].losses)
    r = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    clean, spoilt = (
        fit(c, known.space, our_law) for c in (curves, [*curves[:7], broken, *curves[8:]])
    )
    a, b = (f.predict(r, synthetic.END) for f in (clean, spoilt))
    assert np.abs(b / a - 1).mean() < (0.012 if our_law == "linear" else 0.006)
    sds = [f.objective(r, synthetic.END)[1].mean() for f in (clean, spoilt)]
    assert sds[1] < 3 * sds[0]
    assert spoilt.inflation < 1.5 * clean.inflation


def test_missing_losses(our_law, known, curves, synthetic):
    losses = np.array(curves[0].losses)
    losses[:, 1] = np.nan
    gap = synthetic.changed(curves[0], losses=losses)
    without = synthetic.changed(
        curves[1], losses=curves[1].losses[:, 1:], targets=curves[1].targets[1:]
    )
    found = fit([gap, without, *curves[2:]], known.space, our_law)
    full = quick(curves, known.space, our_law)
    r = np.full(4, 0.25)
    a, b = (f.predict(r, synthetic.END) for f in (found, full))
    np.testing.assert_allclose(a, b, rtol=0.02)
    assert np.isnan(found.held_out.observed).sum() == 2
    assert np.isfinite(found.held_out.relative_error).all()
    assert np.isfinite(found.held_out.spearman)


def test_a_target_known_early_only(our_law, known, curves, synthetic):
    """It counts where it was measured, and the falls of the other targets carry it on."""
    late = []
    for curve in curves:
        losses = np.array(curve.losses)
        losses[-1, 0] = np.nan
        late.append(synthetic.changed(curve, losses=losses))
    found = quick(late, known.space, our_law)
    r = np.random.default_rng(0).dirichlet(np.full(4, 3.0), 30)
    truth = known.losses(r, curves[0].tokens[-2], False)[:, 0]
    got = found.predict(r, curves[0].tokens[-2], False)[:, 0]
    assert np.abs(got / truth - 1).mean() < 0.05


def test_extra_targets_are_ignored(known, curves, synthetic):
    space = SearchSpace(known.space.domains, [known.space.targets[i] for i in (3, 1)])
    small, full = quick(curves, space), quick(curves, known.space)
    r = np.array([0.1, 0.2, 0.3, 0.4])
    a, b = small.predict(r, synthetic.END), full.predict(r, synthetic.END)[:, [3, 1]]
    np.testing.assert_allclose(a, b, rtol=0.01)


def test_a_target_without_domain_is_constant_under_bimix_alone(synthetic):
    rng = np.random.default_rng(2)
    known = synthetic.truth(rng, 3, transfer=True, ownless=1)
    curves = synthetic.runs(known, rng, 20, 0.002)
    r = rng.dirichlet(np.ones(3), 50)
    flat = quick(curves, known.space, "bimix").predict(r, synthetic.END)[:, 3]
    assert np.ptp(flat) < 1e-9
    truth = known.losses(r, synthetic.END, True)[:, 3]
    worst = np.abs(flat / truth - 1).mean()
    for name in set(LAWS) & {"auto", "transfer", "additive", "process"}:
        found = quick(curves, known.space, name).predict(r, synthetic.END)[:, 3]
        assert np.abs(found / truth - 1).mean() < 0.3 * worst


def test_the_right_order_of_mixtures(known, curves):
    found = fit(curves, known.space)
    assert found.held_out.spearman > 0.9 and found.held_out.r2 > 0.9
    assert found.status.startswith("auto law from 20 runs (20 mixtures): ")


def test_warns_of_a_domain_that_never_varied(our_law, synthetic, known):
    rng = np.random.default_rng(0)
    r = np.concatenate([np.full((9, 1), 0.2), 0.8 * rng.dirichlet(np.ones(3), 9)], axis=1)
    curves = [
        LossCurve(known.space.mixture(row), [1e6], known.losses(row[None], 1e6, True)) for row in r
    ]
    warnings = quick(curves, known.space, our_law).warnings
    assert [w for w in warnings if "of d0 hardly varied" in w]


def test_warns_of_an_exponent_above_any_published(known):
    rng = np.random.default_rng(0)
    r = rng.dirichlet(np.ones(4), 12)
    curves = [LossCurve(known.space.mixture(row), [1e6], 0.1 * (0.05 + row) ** -3.0) for row in r]
    assert any("alpha" in w and "'d0'" in w for w in quick(curves, known.space, "bimix").warnings)


def test_warns_when_not_converged(known, curves, monkeypatch):
    solve = least_squares.solve

    def hasty(*args, **kwargs):
        return solve(*args[:7], 0, **{k: v for k, v in kwargs.items() if k != "iterations"})

    monkeypatch.setattr(least_squares, "solve", hasty)
    assert "the least-squares fit did not converge" in quick(curves, known.space).warnings


@pytest.mark.parametrize("seed", range(3))
def test_no_warning_without_reason(our_law, seed, synthetic):
    rng = np.random.default_rng(seed)
    known = synthetic.truth(rng, 4, transfer=True, ownless=1)
    assert quick(synthetic.runs(known, rng, 12, 0.01), known.space, our_law).warnings == ()


def test_refuses_nothing_to_fit(law, known, curves):
    with pytest.raises(FitError, match="at least 2 different mixtures, but got none"):
        fit([], known.space, law)
    with pytest.raises(FitError, match=r"all 2 curves have the same mixture.*at least 2"):
        fit([curves[0], curves[0]], known.space, law)


def test_refuses_unknown_names(known, curves):
    with pytest.raises(FitError, match=r"unknown law 'bimx'; did you mean 'bimix'.*auto"):
        fit(curves, known.space, "bimx")
    with pytest.raises(FitError, match="curve 'r0' does not fit the space: unknown domain 'd3'"):
        fit(curves, SearchSpace(known.space.names[:3]))


def test_refuses_mixed_units(known, curves, synthetic):
    other = synthetic.changed(curves[0], unit="bits/byte")
    with pytest.raises(FitError, match=r"one unit, but got \['bits/byte', 'nats/token'\]"):
        fit([other, *curves[1:]], known.space)


@settings(max_examples=12)
@given(st.integers(0, 10_000))
def test_any_curves_give_finite_answers(seed):
    """Wild losses, gaps, mixtures near corners, targets without domain, far token counts."""
    rng = np.random.default_rng(seed)
    k, v, count = rng.integers(2, 7), rng.integers(1, 5), rng.integers(2, 10)
    names = [f"d{i}" for i in range(k)]
    own = [None if rng.random() < 0.3 else names[rng.integers(k)] for _ in range(v)]
    space = SearchSpace(names, [Target(f"t{i}", domain=d) for i, d in enumerate(own)])
    curves = []
    for number in range(count):
        losses = np.exp(rng.normal(rng.uniform(-2, 2), 0.3, (rng.integers(1, 6), v)))
        gaps = rng.random(losses.shape) < 0.2
        losses[gaps & (number > 0)] = np.nan
        tokens = np.sort(rng.uniform(1, 1e12, len(losses)))
        r = rng.dirichlet(np.full(k, rng.choice([0.1, 1.0, 100.0])))
        decayed = np.arange(len(losses)) == rng.integers(10)
        curves.append(LossCurve(Mixture(names, r), tokens, losses, space.target_names, decayed))
    found = fit(curves, space)
    tokens = 10 ** rng.uniform(3, 13)
    r = rng.dirichlet(np.ones(k), 20)
    for fitted in (found, found.draw(rng)):
        for values in (*fitted.objective(r, tokens), fitted.slopes(r, tokens)):
            assert np.isfinite(values).all()
    json.dumps(found.to_dict(), allow_nan=False)
