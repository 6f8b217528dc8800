"""A fit as it is asked: forms of mixtures, refusals, deviations, draws and terms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune.errors import FitError, MixtureError
from bimix_tune.laws import fit
from bimix_tune.laws.law_fit import joint_variance


@pytest.fixture(scope="module")
def known(synthetic):
    return synthetic.truth(np.random.default_rng(5), 4, transfer=True)


@pytest.fixture(scope="module")
def found(known, synthetic):
    """Three runs, not judged: enough to ask questions."""
    curves = synthetic.runs(known, np.random.default_rng(6), 3, 0.005)
    return fit(curves, known.space, "transfer", judge=False)


def test_mixtures_may_come_in_any_form(found, known, synthetic):
    rows = np.array([[0.1, 0.2, 0.3, 0.4], [0.25] * 4])
    mixtures = [known.space.mixture(r) for r in rows]
    expected = found.predict(rows, synthetic.END)
    assert expected.shape == (2, 4)
    np.testing.assert_array_equal(found.predict(mixtures, synthetic.END), expected)
    np.testing.assert_allclose(found.predict(mixtures[0], synthetic.END), expected[:1], rtol=1e-13)
    shuffled = {n: mixtures[0][n] for n in reversed(known.space.names)}
    np.testing.assert_allclose(found.predict(shuffled, synthetic.END), expected[:1], rtol=1e-13)
    mean, _ = found.objective(rows, synthetic.END)
    np.testing.assert_allclose(mean, expected @ known.space.weights, rtol=1e-12)


@pytest.mark.parametrize("tokens", [0, -1e6, float("nan"), float("inf")])
def test_refuses_tokens_that_are_none(tokens, found):
    r = np.full(4, 0.25)
    for ask in (
        lambda: found.predict(r, tokens),
        lambda: found.objective(r, tokens),
        lambda: found.slopes(r, tokens),
        lambda: found.gradient(r, tokens),
        lambda: found.terms(tokens),
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
def test_refuses_what_is_no_mixture(mixtures, message, found):
    for ask in (found.predict, found.objective, found.slopes, found.gradient):
        with pytest.raises(MixtureError, match=message):
            ask(mixtures, 1e6)


def test_terms_are_there_for_a_law_alone(known, synthetic):
    """Of a blend the laws in it, of a process none: their sum is not the objective."""
    curves = synthetic.runs(known, np.random.default_rng(6), 8, 0.005)
    r = np.random.default_rng(0).dirichlet(np.ones(4), 5)
    for name, parts in (("transfer", 1), ("bimix", 1), ("auto", 3), ("process", 1), ("linear", 0)):
        found = fit(curves, known.space, name, judge=False)
        assert len(found.all_terms(synthetic.END)) == parts
        assert (found.terms(synthetic.END) is not None) == (name in ("transfer", "bimix"))
        if terms := found.terms(synthetic.END):
            x = terms.eps + (terms.carriers * r[:, None, :] ** terms.power[:, None]).sum(-1)
            total = (terms.c * x**-terms.alpha).sum(1)
            np.testing.assert_allclose(total, found.objective(r, synthetic.END)[0], rtol=1e-10)


def test_coefficients_make_the_predictions(known, synthetic):
    """``(eps + r_own^rho + sum T r^rho)^-alpha (B s^-beta + C)``, less delta at the decay's end."""
    curves = synthetic.runs(known, np.random.default_rng(6), 12, 0.005)
    r, s = np.array([0.2, 0.0, 0.5, 0.3]), 0.3 * synthetic.END
    for name in ("bimix", "transfer"):
        found = fit(curves, known.space, name, judge=False)
        for i, (target, p) in enumerate(found.parameters().items()):
            worth = np.array([p["transfer"][d] for d in known.space.names])
            assert worth[i] == 1.0 and target == f"d{i}"
            x = p["eps"] + r ** p.get("rho", 1.0) @ worth
            loss = x ** -p["alpha"] * (p["B"] * s ** -p["beta"] + p["C"])
            assert found.predict(r, s, decayed=False)[0, i] == pytest.approx(loss, rel=1e-10)
            decayed = found.predict(r, s, decayed=True)[0, i]
            assert decayed == pytest.approx(loss * np.exp(-p["delta"]), rel=1e-10)


def test_coefficients_of_a_blend_are_those_of_its_plain_law(known, synthetic):
    curves = synthetic.runs(known, np.random.default_rng(6), 8, 0.005)
    auto, plain = (fit(curves, known.space, n, judge=False) for n in ("auto", "transfer"))
    assert auto.parameters() == plain.parameters()


def test_default_prediction_is_of_the_decayed_end(known, synthetic):
    curves = synthetic.runs(known, np.random.default_rng(6), 20, 0.005)
    found = fit(curves, known.space, "transfer", judge=False)
    r = np.full(4, 0.25)
    end, constant = (found.predict(r, synthetic.END, d) for d in (None, False))
    np.testing.assert_allclose(np.log(constant / end)[0], known.delta, atol=0.02)


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_joint_variance_is_a_quadratic_form(seed):
    """Of errors with the correlations of the noise and standard deviations of their own."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((3, 5))
    noise, parts, variance = a @ a.T, rng.uniform(0.1, 3, (3, 4)), rng.uniform(0, 1, (3, 4))
    correlation = noise / np.sqrt(np.outer(np.diag(noise), np.diag(noise)))
    expected = []
    for m in range(4):
        sd = parts[:, m] * np.sqrt(variance[:, m])
        expected.append(sd @ correlation @ sd)
    np.testing.assert_allclose(joint_variance(parts, variance, noise), expected, rtol=1e-10)
    independent = joint_variance(parts, variance, np.diag(np.diag(noise)))
    np.testing.assert_allclose(independent, (parts**2 * variance).sum(0), rtol=1e-12)


def test_correlated_targets_widen_the_interval(known, synthetic):
    widths = []
    for correlation in (0.0, 0.9):
        rng = np.random.default_rng(0)
        curves = synthetic.runs(known, rng, 60, 0.01, 3, correlation=correlation)
        found = fit(curves, known.space, "transfer", judge=False)
        widths.append(found.objective(np.full(4, 0.25), synthetic.END)[1][0])
    assert widths[1] > 1.25 * widths[0]


def test_more_runs_make_it_surer(our_law, known, synthetic):
    sds = []
    for count in (5, 40):
        curves = synthetic.runs(known, np.random.default_rng(3), count, 0.01)
        found = fit(curves, known.space, our_law, judge=False)
        sds.append(found.objective(np.full(4, 0.25), synthetic.END, noise=False)[1][0])
    assert sds[1] < 0.6 * sds[0]


def test_draws_spread_like_the_deviation(our_law, known, synthetic):
    """A blend's less: it is the mean of independent draws of its rungs, while the deviation is
    that of a mixture of them."""
    rng = np.random.default_rng(1)
    curves = synthetic.runs(known, rng, 16, 0.01, 3)
    found = fit(curves, known.space, our_law, judge=False)
    r = rng.dirichlet(np.ones(4), 10)
    mean, sd = found.objective(r, synthetic.END, noise=False)
    drawn = np.array([found.draw(rng).objective(r, synthetic.END)[0] for _ in range(150)])
    spread = np.sqrt(((drawn - mean) ** 2).mean(0))
    ratio = spread / sd
    least = 0.33 if our_law == "auto" else 0.6
    assert least < np.median(ratio) < 1.4
    assert ratio.min() > 0.6 * least and ratio.max() < 2.0
