"""Published laws: they recover their own form, and behave where theirs is silent."""

import importlib.util
import json
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune.curves import LossCurve
from bimix_tune.errors import MissingExtraError
from bimix_tune.laws.observations import observe
from bimix_tune.laws.peers import PEERS, missing_library
from bimix_tune.laws.peers.regmix import LightGbm
from bimix_tune.laws.peers.scaling_additive import ScalingAdditive
from bimix_tune.laws.peers.scaling_fit import Terms
from bimix_tune.laws.peers.shared import SMALLEST_SHARE, Limits
from bimix_tune.mixture import Mixture
from bimix_tune.space import SearchSpace, Target

NAMES = ("web", "code", "books")
SPACE = SearchSpace(NAMES)
OWNLESS = SearchSpace(NAMES, [Target("web", 2.0, "web"), Target("exam", 1.0)])
TOKENS = np.array([1e9, 2e9, 5e9, 1e10])
ROOM = Limits(np.zeros(3), np.full(3, np.inf))

LAWS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(missing_library(name) is not None, reason=f"{name}: no library"),
    )
    for name in PEERS
]
SMOOTH = [name for name in PEERS if name != "lightgbm"]


def mixtures(count, seed=0, k=3):
    return np.random.default_rng(seed).dirichlet(np.ones(k), size=count)


def curves_of(truth, r, space=SPACE, tokens=TOKENS, missing=()):
    """Runs of a law ``truth(r (M, K), tokens) -> (M, V)``; ``missing``: (run, target) pairs."""
    curves = []
    for number, row in enumerate(r):
        losses = np.array([truth(row[None], s)[0] for s in tokens])
        for run, target in missing:
            if run == number:
                losses[:, target] = np.nan
        mixture = Mixture(space.names, row)
        curves.append(LossCurve(mixture, tokens, losses, space.target_names, run=f"r{number}"))
    return curves


def fitted(name, curves, space=SPACE):
    return PEERS[name].fit(observe(curves, space), space)


def losses_of(law, r, share=1.0):
    """Predicted losses, (M, V), at a share of the most tokens seen."""
    return np.exp(law.log_loss(r, np.full(len(r), share), np.zeros(len(r)))).T


def powers(r, s):
    """A plain smooth truth that is none of the laws."""
    return (1.0 + (0.05 + r) ** -0.3) * (1.0 + 0.3 * (s / 1e10) ** -0.4)


@cache
def example(name, runs=24, ownless=False):
    space = OWNLESS if ownless else SPACE
    v = len(space.target_names)
    return fitted(name, curves_of(lambda r, s: powers(r, s)[:, :v], mixtures(runs), space), space)


# Each its own form


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_paper_recovers_its_five_coefficients_on_both_axes(factor):
    a, alpha = factor * np.array([2.0, 3.0, 1.5]), np.array([0.1, 0.3, 0.02])
    b, beta = np.array([300.0, 5e3, 80.0]) / factor, np.array([0.3, 0.45, 0.25])
    c = np.array([0.6, 0.8, 1.0]) / factor

    def truth(r, s):
        return a * np.maximum(r, SMALLEST_SHARE) ** -alpha * (b / s**beta + c)

    law = fitted("paper", curves_of(truth, mixtures(6)))
    scale = b / 1e10**beta + c  # the convention: one at the most tokens
    for v, got in enumerate(law.parameters(SPACE).values()):
        assert set(got) == {"A", "alpha", "B", "beta", "C"}
        assert got["B"] / 1e10 ** got["beta"] + got["C"] == pytest.approx(1.0)
        assert got["alpha"] == pytest.approx(alpha[v], abs=1e-6)
        assert got["beta"] == pytest.approx(beta[v], rel=1e-4)
        assert got["A"] == pytest.approx(a[v] * scale[v], rel=1e-5)
        assert got["B"] == pytest.approx(b[v] / scale[v], rel=1e-3)
        assert got["C"] == pytest.approx(c[v] / scale[v], rel=1e-4)
    fresh = mixtures(20, seed=1)
    np.testing.assert_allclose(losses_of(law, fresh, 10.0), truth(fresh, 1e11), rtol=1e-4)


def test_paper_with_one_token_count_is_a_power_of_the_proportion():
    def truth(r, s):
        return np.array([2.0, 3.0, 1.5]) * np.maximum(r, SMALLEST_SHARE) ** -np.array(
            [0.1, 0.3, 0.0]
        )

    law = fitted("paper", curves_of(truth, mixtures(4), tokens=TOKENS[-1:]))
    np.testing.assert_allclose(
        losses_of(law, mixtures(20, seed=1), 50.0), truth(mixtures(20, seed=1), 1.0), rtol=1e-6
    )
    assert [p["B"] for p in law.parameters(SPACE).values()] == [0.0] * 3


def test_paper_has_no_negative_exponent():
    law = fitted("paper", curves_of(lambda r, s: r + 1.0, mixtures(8)))
    np.testing.assert_allclose(np.ptp(losses_of(law, mixtures(5, seed=1)), axis=0), 0.0, atol=1e-5)


def test_paper_reads_zero_as_the_smallest_share_and_is_constant_without_own_domain():
    def truth(r, s):
        own = 2.0 * np.maximum(r[:, 0], SMALLEST_SHARE) ** -0.2
        return np.column_stack([own, np.full(len(r), 3.0)])

    r = np.array([[0.5, 0.5, 0.0], [0.1, 0.9, 0.0], [0.7, 0.3, 0.0]])
    law = fitted("paper", curves_of(truth, r, OWNLESS, TOKENS[-1:]), OWNLESS)
    np.testing.assert_allclose(
        losses_of(law, np.array([[0.0, 1.0, 0.0]])), [[2.0 * SMALLEST_SHARE**-0.2, 3.0]], rtol=1e-6
    )
    assert law.parameters(OWNLESS)["exam"]["alpha"] == 0.0


def test_exponential_recovers_an_exponential_above_a_floor():
    c = np.array([1.0, 2.0, 0.5])
    t = np.array([[-1.5, 0.3, 0.5], [0.2, -2.5, 0.1], [0.3, 0.0, -1.0]])
    law = fitted("exponential", curves_of(lambda r, s: c + np.exp(r @ t.T), mixtures(24)))
    for v, got in enumerate(law.parameters(SPACE).values()):
        assert got["c"] == pytest.approx(c[v], rel=0.02)
        assert got["k"] * np.exp(list(got["t"].values())) == pytest.approx(np.exp(t[v]), rel=0.05)


def test_log_linear_recovers_an_exponential_without_one():
    t = np.array([[-1.5, 0.3, 0.5], [0.2, -2.5, 0.1], [0.3, 0.0, -1.0]])
    law = fitted("log-linear", curves_of(lambda r, s: np.exp(0.3 + r @ t.T), mixtures(8)))
    for v, got in enumerate(law.parameters(SPACE).values()):
        np.testing.assert_allclose(got["c"] + np.array(list(got["A"].values())), 0.3 + t[v], 1e-3)


def test_log_linear_with_noise_alone_shrinks_towards_the_mean():
    rng = np.random.default_rng(0)
    r, fresh = mixtures(12), mixtures(50, seed=1)
    noisy = iter(3.0 * np.exp(0.05 * rng.standard_normal((12, 3))))
    curves = curves_of(lambda row, s: next(noisy)[None], r, tokens=TOKENS[-1:])
    plain = np.linalg.lstsq(r, np.log([c.losses[-1] for c in curves]), rcond=None)[0]
    assert losses_of(fitted("log-linear", curves), fresh).std() < 0.5 * np.exp(fresh @ plain).std()


def test_scaling_additive_recovers_its_coefficients_on_both_axes():
    terms = Terms(
        np.array([1.2, 2.0, 0.8]),
        np.array([[1.0, 0.3, 0.5], [0.2, 1.5, 0.4], [0.6, 0.1, 2.0]]),
        np.array([[0.3, 0.5, 0.6], [0.5, 0.25, 0.4], [0.5, 0.6, 0.35]]),
        np.array([0.3, 0.5, 0.2]),
        np.array([0.3, 0.45, 0.6]),
    )
    true = ScalingAdditive(terms, 1e10, ROOM)
    r = mixtures(60)
    r[:3] = 0.98 * np.eye(3) + 0.02 / 3
    law = fitted("scaling-additive", curves_of(lambda r, s: losses_of(true, r, s / 1e10), r))
    got, want = law.parameters(SPACE), true.parameters(SPACE)
    for target in NAMES:
        for name, tolerance in (("E", 0.05), ("beta", 0.05), ("B", 0.3)):
            assert got[target][name] == pytest.approx(want[target][name], rel=tolerance)
        for name in ("C", "gamma"):
            assert got[target][name][target] == pytest.approx(want[target][name][target], rel=0.1)
    fresh = mixtures(20, seed=1)
    np.testing.assert_allclose(losses_of(law, fresh, 3.0), losses_of(true, fresh, 3.0), rtol=3e-3)


def test_scaling_additive_with_one_token_count_does_not_depend_on_tokens():
    law = fitted("scaling-additive", curves_of(powers, mixtures(12), tokens=TOKENS[-1:]))
    fresh = mixtures(5, seed=1)
    np.testing.assert_array_equal(losses_of(law, fresh, 0.1), losses_of(law, fresh, 10.0))
    assert [p["B"] for p in law.parameters(SPACE).values()] == [0.0] * 3


def test_lightgbm_finds_a_step():
    pytest.importorskip("lightgbm", reason="the library of this law is optional")
    r, fresh = mixtures(200), mixtures(50, seed=1)
    curves = curves_of(lambda r, s: np.where(r > 0.3, 2.0, 3.0), r, tokens=TOKENS[-1:])
    law = fitted("lightgbm", curves)
    wrong = np.abs(losses_of(law, fresh) - np.where(fresh > 0.3, 2.0, 3.0))
    assert (wrong > 0.5).mean() < 0.05
    assert law.slope(fresh, np.ones(50), np.zeros(50)) is None
    assert 0 < law.parameters(SPACE)["web"]["trees"] <= 1000


# All alike


@pytest.mark.parametrize("name", SMOOTH)
@settings(max_examples=30, deadline=None)
@given(
    shares=st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3),
    t=st.floats(0.05, 20.0),
    ownless=st.booleans(),
)
def test_slopes_are_the_derivatives_by_free_proportions(name, shares, t, ownless):
    law, r = example(name, ownless=ownless), np.array([shares]) / sum(shares)
    step = 1e-6
    ahead, behind = (np.clip(r + sign * step * np.eye(3), 0.0, None) for sign in (1, -1))
    rise = [law.log_loss(x, np.full(3, t), np.zeros(3)) for x in (ahead, behind)]
    slope = law.slope(r, np.full(1, t), np.zeros(1))[:, 0]
    np.testing.assert_allclose(slope, (rise[0] - rise[1]) / (2 * step), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SMOOTH)
def test_slopes_at_the_corners_are_finite(name):
    slope = example(name).slope(np.eye(3), np.ones(3), np.zeros(3))
    assert slope.shape == (3, 3, 3)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("name", LAWS)
def test_json_gives_the_same_bits_back(name):
    law = example(name, runs=60 if name == "lightgbm" else 24)
    again = PEERS[name].from_dict(json.loads(json.dumps(law.to_dict())))
    r = np.concatenate([mixtures(40, seed=1), np.eye(3)])
    t, decayed = np.geomspace(0.1, 10.0, len(r)), np.zeros(len(r))
    np.testing.assert_array_equal(law.log_loss(r, t, decayed), again.log_loss(r, t, decayed))
    if name != "lightgbm":
        np.testing.assert_array_equal(law.slope(r, t, decayed), again.slope(r, t, decayed))
    assert law.parameters(SPACE) == again.parameters(SPACE)
    json.dumps(law.parameters(SPACE))


@pytest.mark.parametrize("name", LAWS)
def test_a_target_is_fitted_to_the_runs_that_have_it(name):
    r = mixtures(20)
    missing = [(run, 1) for run in range(8)]
    law = fitted(name, curves_of(powers, r, missing=missing))
    alone = fitted(name, curves_of(powers, r[8:]))
    whole = fitted(name, curves_of(powers, r))
    fresh = mixtures(10, seed=1)
    got = losses_of(law, fresh)
    np.testing.assert_allclose(got[:, 1], losses_of(alone, fresh)[:, 1], rtol=1e-9)
    np.testing.assert_array_equal(got[:, [0, 2]], losses_of(whole, fresh)[:, [0, 2]])


@pytest.mark.parametrize("name", LAWS)
def test_a_target_of_a_single_run_is_constant_in_the_mixture_or_nearly_so(name):
    law = fitted(name, curves_of(powers, mixtures(6), missing=[(run, 1) for run in range(5)]))
    got = losses_of(law, np.concatenate([mixtures(10, seed=1), np.eye(3)]))[:, 1]
    np.testing.assert_allclose(got, powers(mixtures(6)[-1:], 1e10)[0, 1], rtol=0.05)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("runs", range(2, 9))
@pytest.mark.parametrize("k", [3, 9])
def test_few_runs_with_zeros_give_finite_predictions(name, runs, k):
    space = SearchSpace([f"d{i}" for i in range(k)])
    r = mixtures(runs, k=k)
    r[0] = np.eye(k)[0]
    law = fitted(name, curves_of(powers, r, space), space)
    everywhere = np.concatenate([np.eye(k), mixtures(20, seed=1, k=k)])
    assert np.isfinite(losses_of(law, everywhere)).all()
    assert np.isfinite(losses_of(law, everywhere, 100.0)).all()
    assert (losses_of(law, everywhere) > 0).all()


@pytest.mark.parametrize("name", ["exponential", "log-linear", "lightgbm"])
def test_static_laws_ignore_tokens_and_decay(name):
    if missing_library(name):
        pytest.skip(f"{name}: no library")
    law, r = example(name), mixtures(5, seed=1)
    late = law.log_loss(r, np.full(5, 7.0), np.ones(5))
    np.testing.assert_array_equal(late, law.log_loss(r, np.full(5, 0.1), np.zeros(5)))


@pytest.mark.parametrize("name", ["exponential", "log-linear"])
def test_laws_that_explode_between_runs_stay_near_the_fitted_losses(name):
    r = np.random.default_rng(0).dirichlet(np.full(17, 0.2), size=56)
    space = SearchSpace([f"d{i}" for i in range(17)])
    curves = curves_of(lambda r, s: 3 + (0.01 + r) ** -0.1, r[:16], space, TOKENS[-1:])
    law, ends = fitted(name, curves, space), 3 + (0.01 + r[:16]) ** -0.1
    predicted, spread = losses_of(law, r[16:]), np.ptp(ends, axis=0)
    assert (predicted <= ends.max(axis=0) + spread + 1e-9).all()
    assert (predicted >= ends.min(axis=0) - 0.5 * spread - 1e-9).all()


def test_clipped_predictions_are_positive_and_flat():
    limits = Limits.around([np.array([1.0, 9.0])])
    values = np.array([[-5.0, 3.0, 1e9]])
    np.testing.assert_array_equal(limits.clip(values), [[0.5, 3.0, 17.0]])
    np.testing.assert_array_equal(limits.inside(values), [[0.0, 1.0, 0.0]])


def test_a_missing_library_is_named(monkeypatch):
    assert missing_library("paper") is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing_library("lightgbm") == "lightgbm"
    with pytest.raises(MissingExtraError, match=r"pip install .bimix-tune\[benchmark\]"):
        LightGbm.fit(observe(curves_of(powers, mixtures(3)), SPACE), SPACE)
    assert LightGbm.from_dict({"models": ["tree"]}).to_dict() == {"models": ["tree"]}
