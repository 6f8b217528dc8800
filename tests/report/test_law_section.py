"""The section about the law, for laws of every kind."""

import dataclasses
import html
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bimix_tune.curves import LossCurve
from bimix_tune.laws import LAWS, HeldOut, fit, optimise
from bimix_tune.laws.peers import PEERS, missing_library
from bimix_tune.loop.result import CONFIRMATION, PROPOSAL, SearchResult
from bimix_tune.mixture import Mixture
from bimix_tune.report import law_section, tables
from bimix_tune.space import Domain, SearchSpace, Target

EQUATIONS = {
    "auto": "r′ = r_own^ρ + Σ T_j r_j^ρ",
    "bimix": "r′: the own domain's proportion.",
    "additive": "(1 + Σ W h(r))",
    "linear": "exp(Σ c_j r_j)",
    "transfer": "L = (ε + r′)^−α (B s^−β + C)",
    "process": "r_own^ρ",
    "paper": "L = A r^−α (B s^−β + C)",
    "exponential": "L = c + k exp(Σ t_j r_j)",
    "log-linear": "L = exp(c + Σ A_j r_j)",
    "scaling-additive": "L = E + 1 / Σ C_j r_j^γ_j + B s^−β",
    "lightgbm": "Boosted trees",
}


@pytest.fixture(scope="module")
def found(make: Callable[..., SearchResult]) -> SearchResult:
    domains = [Domain("web", 4.0), Domain("code", 1.0), Domain("books", 1.0)]
    targets = [Target(d.name, domain=d.name) for d in domains]
    return make(SearchSpace(domains, [*targets, Target("exam")]), Path("runs/some"), 12, "transfer")


def with_law(found: SearchResult, name: str) -> SearchResult:
    curves = [r.curve for r in found.records if r.curve and r.role != CONFIRMATION]
    return dataclasses.replace(found, fit=fit(curves, found.space, name))


def test_every_law_is_in_the_table() -> None:
    assert set(EQUATIONS) == set(LAWS)


@pytest.mark.parametrize("name", LAWS)
def test_every_law_has_its_equation_and_its_effects(found: SearchResult, name: str) -> None:
    if missing_library(name):
        pytest.skip(f"{name} needs a library")
    text = html.unescape(law_section.law(with_law(found, name)))
    assert EQUATIONS[name] in text
    assert ("plot-effects" in text) == (name != "lightgbm")
    assert ("has no derivatives" in text) == (name == "lightgbm")
    assert ("does not say how uncertain" in text) == (name in PEERS)
    assert ("part of the law" in text) == (name == "auto")
    relative = name in ("linear", "exponential", "log-linear")
    assert ("Exchange rates" in text) == (not relative and name != "lightgbm")
    assert ("plot-linear" in text) == (name == "linear")
    published = {"exponential": "t, by target", "scaling-additive": "gamma, by target"}
    assert published.get(name, "") in text


def test_a_few_runs_of_a_larger_size_have_the_equation_of_the_stretched_law(
    found: SearchResult,
) -> None:
    curves = [r.curve for r in found.records if r.curve]
    sizes = [
        LossCurve(c.mixture, c.tokens, c.losses, c.targets, c.decayed, 0, c.unit, scale, c.run)
        for scale, count in (("1M", len(curves)), ("10M", 6))
        for c in curves[:count]
    ]
    text = law_section.law(dataclasses.replace(found, fit=fit(sizes, found.space)))
    assert "the law of the smaller model size, stretched" in text
    assert "log L = log(B s^−β + C)" in text


def test_what_the_intervals_promise(found: SearchResult) -> None:
    assert found.fit is not None
    text = law_section.coverage(found, found.fit)
    assert f"times {found.fit.inflation:.2f} to meet the errors on runs left out" in text
    proposals = [r for r in found.records if r.role == PROPOSAL and r.predicted]
    done = [r for r in proposals if r.state == "COMPLETE"]
    assert 0 < len(done) < len(proposals)
    sure = tuple(
        dataclasses.replace(r, predicted=(r.objective, 1e-9))
        if r in done[1:]
        else dataclasses.replace(r, predicted=(0.0, 1e-9))
        if r in done
        else r
        for r in found.records
    )
    text = law_section.coverage(dataclasses.replace(found, records=sure), found.fit)
    assert f"{len(done) - 1} of {len(done)} ended in the 95 % interval" in text
    alone = dataclasses.replace(found.fit, held_out=HeldOut.nothing(found.space.weights))
    text = law_section.coverage(dataclasses.replace(found, records=()), alone)
    assert text.endswith("no runs were left out to check them.")


def test_exchange_rates_are_those_of_a_mixture_where_they_say_something(
    found: SearchResult,
) -> None:
    uneven = Mixture(found.space.names, [0.9, 0.05, 0.05])
    text = law_section.law(dataclasses.replace(found, recommendation=uneven))
    assert "Exchange rates between domains at the recommendation" in text
    assert found.fit is not None
    inner = optimise(found.fit, found.space, found.target_tokens)
    text = law_section.law(dataclasses.replace(found, recommendation=inner))
    assert "Exchange rates between domains at the natural mixture" in text


def test_proportions_that_no_run_tried_are_notes(found: SearchResult) -> None:
    far = Mixture(found.space.names, [0.998, 0.001, 0.001])
    text = law_section.law(dataclasses.replace(found, recommendation=far))
    assert "web: 99.8% is outside what was tried" in text


def test_a_law_of_other_domains_has_no_effects(found: SearchResult) -> None:
    space = SearchSpace(["a", "b"])
    other = dataclasses.replace(found, space=space, recommendation=space.uniform())
    assert "plot-effects" not in law_section.law(other)


def test_rungs_are_bars_in_order_of_their_share() -> None:
    text = tables.rungs({"bimix": 0.2, "<new>": 0.5, "transfer + process": 0.3})
    assert (
        text.index("&lt;new&gt;") < text.index("transfer\u00a0+\u00a0process") < text.index("bimix")
    )
    assert "width:100.00%" in text and "width:40.00%" in text


def test_exchange_rates_in_numbers() -> None:
    rates = np.array([[1.0, 12.34], [np.nan, 5000.0]])
    text = tables.exchange(rates, ["a", "b"])
    assert "1.00" in text and ">12<" in text and "–" in text and "&gt; 999" in text
