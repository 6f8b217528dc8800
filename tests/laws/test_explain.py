"""Explanations against finite differences of the predictions."""

import numpy as np
import pytest

from bimix_tune import LossCurve, Mixture, SearchSpace, fit
from bimix_tune.errors import FitError, MixtureError
from bimix_tune.laws import explain
from bimix_tune.laws.explain import POINT, RELATIVE

SPACE = SearchSpace(["web", "code", "books"])
MIXTURE = {"books": 0.5, "web": 0.2, "code": 0.3}


def curves():
    rng = np.random.default_rng(1)
    for i in range(10):
        r = rng.dirichlet(np.full(3, 2.0))
        losses = (0.02 + r) ** -np.array([0.1, 0.2, 0.3]) * 2 * np.exp(rng.normal(0, 0.002, 3))
        yield LossCurve(Mixture(SPACE.names, r), [1000], [losses], run=str(i))


@pytest.mark.parametrize("name", ["transfer", "process", "linear", "scaling-additive"])
def test_effects_are_differences_of_predictions(name):
    law = fit(list(curves()), SPACE, name, judge=False)
    found = explain(law, MIXTURE, 1000)
    np.testing.assert_allclose(found.mixture, [0.2, 0.3, 0.5])
    step = 1e-5
    for j, share in enumerate(found.mixture):
        moved = []
        for h in (step, -step):
            r = found.mixture * (1 - h / (1 - share))
            r[j] = share + h
            moved.append(law.predict(r[None], 1000)[0])
        slope = (moved[0] - moved[1]) / (2 * step)
        np.testing.assert_allclose(found.effects[:, j], POINT * slope, atol=1e-7)
    np.testing.assert_allclose(found.objective, found.effects.mean(axis=0))
    assert (found.deviation > 0).all() == (name != "scaling-additive")


@pytest.mark.parametrize("name", ["bimix", "paper", *sorted(RELATIVE)])
def test_rates_are_ratios_of_gains_where_a_token_has_a_worth(name):
    law = fit(list(curves()), SPACE, name, judge=False)
    found = explain(law, MIXTURE, 1000)
    if name in RELATIVE:
        assert np.isnan(found.exchange).all()
        return
    gain = -law.gradient(MIXTURE, 1000)[0]
    np.testing.assert_allclose(found.exchange, gain[:, None] / gain)


def test_a_law_without_derivatives_and_foreign_mixtures_are_errors():
    pytest.importorskip("lightgbm")
    law = fit(list(curves()), SPACE, "lightgbm", judge=False)
    with pytest.raises(FitError, match="has no derivatives"):
        explain(law, MIXTURE, 1000)
    with pytest.raises(MixtureError, match="unknown domain 'x'"):
        explain(law, {"x": 1.0}, 1000)
