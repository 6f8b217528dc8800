"""What fits recover, choose, survive and refuse."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune.curves import LossCurve
from bimix_tune.errors import FitError, MixtureError
from bimix_tune.laws import LAWS, LawFit, fit, least_squares, optimise
from bimix_tune.mixture import Mixture
from bimix_tune.space import SearchSpace, Target


def _changed(curve, **changes):
    fields = ("mixture", "tokens", "losses", "targets", "decayed", "seed", "unit", "scale", "run")
    return LossCurve(**{name: changes.get(name, getattr(curve, name)) for name in fields})


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def known(synthetic):
    return synthetic.truth(np.random.default_rng(5), 4, transfer=True)


@pytest.fixture(scope="module")
def curves(synthetic, known):
    return synthetic.runs(known, np.random.default_rng(6), 20, 0.005)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("ownless", [0, 1])
@pytest.mark.parametrize("checkpoints", [6, 1])
def test_recovers_its_own_curves(name, ownless, checkpoints, synthetic):
    """Priors vanish with the noise, at zero proportions too."""
    rng = np.random.default_rng(7)
    truth = synthetic.truth(rng, 4, name == "transfer", ownless, sums=name == "additive")
    found = fit(synthetic.runs(truth, rng, 30, 0.0, checkpoints), truth.space, name)
    r = rng.dirichlet(np.ones(4), 100)
    r[:4] = np.eye(4)
    end = truth.losses(r, synthetic.END, True)
    np.testing.assert_allclose(found.predict(r, synthetic.END), end, rtol=1e-6)
    if checkpoints > 1:
        early = truth.losses(r, synthetic.END / 3, False)
        np.testing.assert_allclose(found.predict(r, synthetic.END / 3, False), early, rtol=1e-6)
    assert not found.warnings


def test_auto_takes_the_law_that_made_the_runs(synthetic):
    picked = []
    for transfer in (False, True):
        rng = np.random.default_rng(8)
        truth = synthetic.truth(rng, 4, transfer=transfer)
        found = fit(synthetic.runs(truth, rng, 24, 0.005), truth.space)
        picked.append(found.law)
        assert found.status.startswith(f"{found.law} law from 24 runs (24 mixtures), held-out")
        assert found.held_out.spearman > 0.9 and found.held_out.r2 > 0.9
    assert picked == ["bimix", "transfer"]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("name", ["auto", *LAWS])
def test_few_runs(count, name, known, curves, synthetic):
    found = fit(curves[:count], known.space, name)
    loss, sd = found.objective(np.eye(4), synthetic.END)
    assert np.isfinite(loss).all() and (sd > 0).all()
    assert (found.law == "bimix") if name == "auto" and count < 4 else True
    assert any("different mixtures" in w for w in found.warnings) == (count < 4)
    optimise(found, known.space, synthetic.END)


def test_single_token_count_is_exact_there(known, synthetic):
    rng = np.random.default_rng(9)
    single = synthetic.runs(known, rng, 30, 0.0, checkpoints=1)
    found = fit(single, known.space, "transfer")
    r = rng.dirichlet(np.ones(4), 20)
    truth = known.losses(r, synthetic.END, True)
    np.testing.assert_allclose(found.predict(r, synthetic.END), truth, rtol=1e-6)
    assert np.all(found.predict(r, 2 * synthetic.END) < truth)  # by the prior
    assert found.parameters()["d0"]["delta"] == 0.0  # cannot be told from the level


def test_without_decayed_points_both_predictions_agree(known, synthetic):
    plain = synthetic.runs(known, np.random.default_rng(1), 8, 0.005, decayed=False)
    found = fit(plain, known.space, "bimix")
    r = np.full(4, 0.25)
    constant, decayed = (found.predict(r, synthetic.END, d) for d in (False, True))
    np.testing.assert_allclose(constant, decayed, rtol=1e-5)


def test_default_prediction_is_of_the_decayed_end(known, curves, synthetic):
    found = fit(curves, known.space, "bimix")
    r = np.full(4, 0.25)
    end, constant = (found.predict(r, synthetic.END, d) for d in (None, False))
    ratio = np.log(constant / end)[0]
    np.testing.assert_allclose(ratio, known.delta, atol=0.02)


def test_pruned_curves_help(known, synthetic):
    rng = np.random.default_rng(2)
    full = synthetic.runs(known, rng, 16, 0.004)
    cut = [
        _changed(c, tokens=c.tokens[:3], losses=c.losses[:3], decayed=c.decayed[:3])
        for c in full[4:]
    ]
    r = rng.dirichlet(np.ones(4), 200)
    truth = known.losses(r, synthetic.END, True)
    alone, both = (
        np.abs(fit(c, known.space, "transfer").predict(r, synthetic.END) / truth - 1).mean()
        for c in (full[:4], full[:4] + cut)
    )
    assert both < 0.7 * alone
    assert fit(full[:4] + cut, known.space).held_out.runs == ("r0", "r1", "r2", "r3")


@pytest.mark.parametrize("name", LAWS)
def test_one_outlier_hardly_matters(name, known, curves, synthetic):
    bad = [*curves[:7], _changed(curves[7], losses=1.4 * curves[7].losses), *curves[8:]]
    r = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    clean, spoilt = (fit(c, known.space, name).predict(r, synthetic.END) for c in (curves, bad))
    assert np.abs(spoilt / clean - 1).mean() < 0.005


def test_missing_losses(known, curves, synthetic):
    losses = np.array(curves[0].losses)
    losses[:, 1] = np.nan
    without = _changed(curves[1], losses=curves[1].losses[:, 1:], targets=curves[1].targets[1:])
    found = fit([_changed(curves[0], losses=losses), without, *curves[2:]], known.space, "bimix")
    full = fit(curves, known.space, "bimix")
    r = np.full(4, 0.25)
    np.testing.assert_allclose(
        found.predict(r, synthetic.END), full.predict(r, synthetic.END), rtol=0.01
    )
    assert np.isnan(found.held_out.observed).sum() == 2
    assert np.isfinite(found.held_out.relative_error).all()
    assert np.isfinite(found.held_out.spearman)


def test_extra_targets_are_ignored_and_order_is_the_spaces(known, curves, synthetic):
    space = SearchSpace(
        [known.space.domains[i] for i in (2, 0, 3, 1)], [known.space.targets[i] for i in (3, 1)]
    )
    small, full = fit(curves, space, "bimix"), fit(curves, known.space, "bimix")
    mixture = Mixture(known.space.names, [0.1, 0.2, 0.3, 0.4])
    a = small.predict(mixture, synthetic.END)
    np.testing.assert_allclose(a, full.predict(mixture, synthetic.END)[:, [3, 1]], rtol=0.01)


def test_held_out_is_near_real_refits(known, synthetic):
    rng = np.random.default_rng(4)
    curves = synthetic.runs(known, rng, 12, 0.01)
    curves.append(_changed(curves[0], losses=1.01 * curves[0].losses, run="twin"))
    for name in LAWS:
        shortcut = fit(curves, known.space, name).held_out
        real = np.concatenate(
            [
                fit([c for c in curves if c.mixture != d.mixture], known.space, name).predict(
                    d.mixture, synthetic.END
                )
                for d in curves
            ]
        )
        a, b = (np.log(p / shortcut.observed) for p in (shortcut.predicted, real))
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
        assert np.sqrt((a**2).mean() / (b**2).mean()) == pytest.approx(1.0, abs=0.25)


def test_mixtures_may_come_in_any_form(known, curves, synthetic):
    found = fit(curves, known.space, "bimix")
    rows = np.array([[0.1, 0.2, 0.3, 0.4], [0.25] * 4])
    mixtures = [known.space.mixture(r) for r in rows]
    expected = found.predict(rows, synthetic.END)
    assert expected.shape == (2, 4)
    np.testing.assert_array_equal(found.predict(mixtures, synthetic.END), expected)
    np.testing.assert_array_equal(found.predict(mixtures[0], synthetic.END), expected[:1])
    shuffled = {n: mixtures[0][n] for n in reversed(known.space.names)}
    np.testing.assert_array_equal(found.predict(shuffled, synthetic.END), expected[:1])
    mean, _ = found.objective(rows, synthetic.END)
    np.testing.assert_allclose(mean, expected @ known.space.weights, rtol=1e-12)


def test_round_trip_through_json(known, curves, synthetic):
    losses = np.array(curves[0].losses)
    losses[-1, 0] = np.nan
    found = fit([_changed(curves[0], losses=losses), *curves[1:]], known.space)
    text = json.dumps(found.to_dict(), allow_nan=False)
    back = LawFit.from_dict(json.loads(text))
    assert back.to_dict() == found.to_dict()
    r = np.full((1, 4), 0.25)
    for a, b in zip(found.objective(r, 1e6), back.objective(r, 1e6), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(found.held_out.observed, back.held_out.observed)


def test_same_curves_same_fit(known, curves):
    assert fit(curves, known.space).to_dict() == fit(curves, known.space).to_dict()


def test_warns_of_a_domain_that_never_varied(synthetic, known):
    rng = np.random.default_rng(0)
    r = np.concatenate([np.full((9, 1), 0.2), 0.8 * rng.dirichlet(np.ones(3), 9)], axis=1)
    curves = [
        LossCurve(known.space.mixture(row), [1e6], known.losses(row[None], 1e6, True)) for row in r
    ]
    warnings = fit(curves, known.space, "bimix").warnings
    assert [w for w in warnings if "of d0 hardly varied" in w]


def test_warns_of_an_exponent_above_one(known, synthetic):
    rng = np.random.default_rng(0)
    r = rng.dirichlet(np.ones(4), 12)
    curves = [LossCurve(known.space.mixture(row), [1e6], 0.1 * (0.05 + row) ** -2.0) for row in r]
    assert any("alpha" in w and "above 1" in w for w in fit(curves, known.space).warnings)


def test_refuses_nothing_to_fit(known, curves):
    with pytest.raises(FitError, match="at least 2 different mixtures, but got none"):
        fit([], known.space)
    with pytest.raises(FitError, match=r"all 2 curves have the same mixture.*at least 2"):
        fit([curves[0], curves[0]], known.space)


def test_refuses_unknown_names(known, curves):
    with pytest.raises(FitError, match=r"unknown law 'bimx'; did you mean 'bimix'.*auto"):
        fit(curves, known.space, "bimx")
    fewer = SearchSpace(known.space.names[:3])
    with pytest.raises(FitError, match="curve 'r0' does not fit the space: unknown domain 'd3'"):
        fit(curves, fewer)
    more = SearchSpace([*known.space.names, "web"])
    with pytest.raises(FitError, match=r"curve 'r0'.*no proportion for \['web'\]"):
        fit(curves, more)
    other = SearchSpace(known.space.names, [Target("d0", domain="d0"), Target("news")])
    with pytest.raises(FitError, match=r"no curve has a loss of target \['news'\]"):
        fit(curves, other)


def test_refuses_mixed_units(known, curves):
    with pytest.raises(FitError, match=r"one unit, but got \['bits/byte', 'nats/token'\]"):
        fit([_changed(curves[0], unit="bits/byte"), *curves[1:]], known.space)


def test_refuses_mixed_scales(known, curves):
    with pytest.raises(FitError, match=r"one scale \(model size\), but got \['', '1B'\]"):
        fit([_changed(curves[0], scale="1B"), *curves[1:]], known.space)


def test_optimise_refuses_other_domains(known, curves):
    found = fit(curves[:3], known.space)
    with pytest.raises(FitError, match=r"domains \['a', 'b'\], but the law was fitted to \['d0'"):
        optimise(found, SearchSpace(["a", "b"]), 1e6)


@pytest.mark.parametrize("tokens", [0, -1e6, float("nan"), float("inf")])
def test_predictions_refuse_tokens_that_are_none(tokens, known, curves):
    found, r = fit(curves[:3], known.space), np.full(4, 0.25)
    for ask in (
        lambda: found.predict(r, tokens),
        lambda: found.objective(r, tokens),
        lambda: found.gradient(r, tokens),
        lambda: found.terms(tokens),
        lambda: optimise(found, known.space, tokens),
    ):
        with pytest.raises(FitError, match=f"tokens must be a finite number > 0, but got {tokens}"):
            ask()


@pytest.mark.parametrize(
    ("mixtures", "message"),
    [
        (np.full((2, 3), 1 / 3), r"shape \(M, 4\), .* but has \(2, 3\)"),
        (np.full((1, 2, 4), 0.25), r"but has \(1, 2, 4\)"),
        (np.array([[0.25] * 4, [0.5] * 4]), r">= 0 and sum to 1, but a mixture is \[0.5, 0.5"),
        (np.array([1.5, -0.5, 0.0, 0.0]), r"a mixture is \[1.5, -0.5"),
        (np.array([np.nan, 1.0, 0.0, 0.0]), r"a mixture is \[nan, 1.0"),
        ({"d0": 2.0, "d1": 0.0, "d2": 0.0, "d3": 0.0}, r"a mixture is \[2.0"),
        ([{"d0": 1.0}], r"no proportion for \['d1'"),
    ],
)
def test_predictions_refuse_what_is_no_mixture(mixtures, message, known, curves):
    found = fit(curves[:3], known.space)
    for ask in (found.predict, found.objective, found.gradient):
        with pytest.raises(MixtureError, match=message):
            ask(mixtures, 1e6)


def test_warns_when_not_converged(known, curves, monkeypatch):
    solve = least_squares.solve

    def hasty(*args, **kwargs):
        return solve(*args[:7], 0, **{k: v for k, v in kwargs.items() if k != "iterations"})

    monkeypatch.setattr(least_squares, "solve", hasty)
    assert "the least-squares fit did not converge" in fit(curves, known.space, "bimix").warnings


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_any_curves_give_finite_answers(seed):
    """Wild losses, gaps, mixtures near corners, targets without domain, far token counts."""
    rng = np.random.default_rng(seed)
    k, v, count = rng.integers(2, 7), rng.integers(1, 5), rng.integers(2, 10)
    names = [f"d{i}" for i in range(k)]
    own = [None if rng.random() < 0.3 else names[rng.integers(k)] for _ in range(v)]
    space = SearchSpace(names, [Target(f"t{i}", domain=d) for i, d in enumerate(own)])
    curves = []
    for _ in range(count):
        losses = np.exp(rng.normal(rng.uniform(-2, 2), 0.3, (rng.integers(1, 6), v)))
        losses[1:][rng.random(losses[1:].shape) < 0.2] = np.nan
        tokens = np.sort(rng.uniform(1, 1e12, len(losses)))
        r = rng.dirichlet(np.full(k, rng.choice([0.1, 1.0, 100.0])))
        decayed = np.arange(len(losses)) == rng.integers(10)
        curves.append(LossCurve(Mixture(names, r), tokens, losses, space.target_names, decayed))
    found = fit(curves, space)
    tokens = 10 ** rng.uniform(3, 13)
    for values in found.objective(rng.dirichlet(np.ones(k), 20), tokens):
        assert np.isfinite(values).all()
    best = optimise(found.draw(rng), space, tokens)
    assert abs(sum(best.values()) - 1) < 1e-9
    json.dumps(found.to_dict(), allow_nan=False)
