import dataclasses
import math

import pytest

from bimix_tune.loop.result import RECOMMENDATION, Comparison, SearchResult, compare
from bimix_tune.report.verdict import decimals, interval, judge, verdict


def with_losses(result: SearchResult, **objective: list[float]) -> SearchResult:
    """The search with these confirmed objectives, one per seed."""
    table = {name: dict(enumerate(values)) for name, values in objective.items()}
    return dataclasses.replace(result, confirmation=compare(table))


def test_better_names_the_best_baseline_and_its_interval(result: SearchResult) -> None:
    found = with_losses(
        result, recommendation=[3.0, 3.1], CE=[3.031, 3.13], uniform=[3.2, 3.301], SE=[3.4, 3.5]
    )
    said = verdict(found)
    assert said.kind == "better"
    assert found.confirmation is not None
    rival = found.confirmation.comparisons[0]
    assert said.sentence == (
        "The recommendation beats the best training-free baseline (CE) by 0.0305 bits/byte, "
        f"95 % interval {rival.low:.4f} to {rival.high:.4f}, 2 paired seeds."
    )


def test_equal_is_said_although_the_mean_is_better(result: SearchResult) -> None:
    said = verdict(with_losses(result, recommendation=[3.0, 3.1], CE=[3.05, 3.06], SE=[3.4, 3.5]))
    assert said.kind == "equal"
    assert "No difference beyond noise" in said.sentence
    assert "0.005 bits/byte lower" in said.sentence
    assert "contains zero" in said.sentence and "beats" not in said.sentence


def test_worse_is_said_with_a_positive_interval(result: SearchResult) -> None:
    said = verdict(with_losses(result, recommendation=[3.2, 3.3], CE=[3.0, 3.101], SE=[3.4, 3.5]))
    assert said.kind == "worse"
    assert "worse than the best training-free baseline (CE) by 0.1995 bits/byte" in said.sentence
    low, high = said.sentence.split("interval ")[1].split(",")[0].split(" to ")
    assert 0 < float(low) < 0.1995 < float(high)


def test_the_rival_is_the_best_baseline_not_another_confirmed_mixture(result: SearchResult) -> None:
    said = verdict(with_losses(result, recommendation=[3.0, 3.1], mine=[2.0, 2.1], CE=[3.2, 3.301]))
    assert said.kind == "better" and "(CE)" in said.sentence


def test_without_baselines_the_best_other_mixture_is_named(result: SearchResult) -> None:
    said = verdict(with_losses(result, recommendation=[3.0, 3.1], mine=[3.2, 3.301]))
    assert "the best other mixture (mine)" in said.sentence


@pytest.mark.parametrize(("own", "side"), [(3.0, "lower"), (3.4, "higher")])
def test_one_seed_claims_nothing(result: SearchResult, own: float, side: str) -> None:
    said = verdict(with_losses(result, recommendation=[own], CE=[3.2]))
    assert said.kind == "single"
    assert f"0.200 bits/byte {side}" in said.sentence and "1 paired seed;" in said.sentence
    assert "may be noise" in said.sentence


def test_unconfirmed_tells_absent_from_failed_runs(result: SearchResult) -> None:
    lost = dataclasses.replace(result, confirmation=None)
    assert verdict(lost).kind == "unconfirmed"
    assert "no confirmation run could be compared" in verdict(lost).sentence
    never = dataclasses.replace(lost, records=())
    assert "no fresh paired runs exist" in verdict(never).sentence


def test_a_difference_that_is_not_a_number_is_no_rival(result: SearchResult) -> None:
    said = verdict(with_losses(result, recommendation=[3.0, 3.1], CE=[math.nan, 3.2]))
    assert said.kind == "unconfirmed"


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(0.1, 0.3, "better"), (-0.1, 0.3, "equal"), (-0.3, -0.1, "worse"), (0.0, 0.3, "equal")],
)
def test_judge(low: float, high: float, kind: str) -> None:
    assert judge(Comparison("a", (low + high) / 2, low, high, (0.0, 0.1))) == kind


def test_decimals_tell_an_end_from_zero() -> None:
    near = Comparison("a", 0.0023, -0.0004, 0.005, (0.001, 0.004))
    assert interval(near) == "-0.0004 to 0.0050"
    assert interval(near, -1) == "-0.0050 to 0.0004"
    assert decimals(Comparison("a", 0.0, math.nan, math.nan, (0.0,))) == 3
    assert decimals(Comparison("a", 1e-9, 0.0, 2e-9, (0.0,))) == 6


def test_the_recommendation_is_the_reference(result: SearchResult) -> None:
    assert result.confirmation is not None
    assert RECOMMENDATION not in [c.label for c in result.confirmation.comparisons]
