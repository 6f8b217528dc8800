import dataclasses

import numpy as np

from bimix_tune.curves import LossCurve
from bimix_tune.loop.result import CONFIRMATION, SearchResult, search_records
from bimix_tune.report.losses import confirmation_runs, table, target_losses, weighted
from bimix_tune.space import SearchSpace, Target


def test_table_orders_by_name_and_marks_what_is_missing() -> None:
    space = SearchSpace(["a", "b"], [Target("x"), Target("y"), Target("z")])
    curve = LossCurve(space.uniform(), [10, 20], [[1, 2], [3, 4]], ["z", "x"])
    expected = [[2, np.nan, 1], [4, np.nan, 3]]
    np.testing.assert_array_equal(table(curve, space), expected)


def test_weighted_ignores_targets_without_weight() -> None:
    space = SearchSpace(["a"], [Target("x", 3.0), Target("y", 0.0), Target("z", 1.0)])
    assert weighted(np.array([1.0, np.nan, 5.0]), space) == 2.0
    assert np.isnan(weighted(np.array([np.nan, 1.0, 5.0]), space))


def test_confirmed_losses_average_the_seeds(result: SearchResult) -> None:
    found = target_losses(result)
    assert found is not None and found.source.startswith("Measured")
    runs = [r for r in result.records if r.role == CONFIRMATION and r.label == "CE"]
    ends = [list(r.curve.final().values()) for r in runs if r.curve]
    np.testing.assert_allclose(found.others["CE"], np.mean(ends, axis=0))
    assert result.confirmation is not None
    gain = weighted(found.others["CE"] - found.recommendation, result.space)
    means = {c.label: c.mean for c in result.confirmation.comparisons}
    np.testing.assert_allclose(gain, means["CE"])


def test_runs_of_an_earlier_recommendation_are_left_out(result: SearchResult) -> None:
    other = next(r for r in result.records if r.role == CONFIRMATION and r.label == "CE")
    stale = dataclasses.replace(other, number=999, label="recommendation")
    some = dataclasses.replace(result, records=(*result.records, stale))
    assert 999 not in [r.number for r in confirmation_runs(some)]
    before, after = target_losses(result), target_losses(some)
    assert before is not None and after is not None
    np.testing.assert_array_equal(before.recommendation, after.recommendation)


def test_a_recommendation_that_is_nearly_the_same_is_another_one(result: SearchResult) -> None:
    """As for the confirmation itself, which would leave these runs out."""
    own = next(r for r in result.records if r.role == CONFIRMATION and r.label == "recommendation")
    shares = result.space.array(result.recommendation)
    shift = 4e-6 * (np.arange(4) == shares.argmax()) - 4e-6 * (np.arange(4) == shares.argsort()[-2])
    for size, kept in ((1.0, False), (1e-5, True)):
        moved = result.space.mixture(shares + size * shift)
        some = dataclasses.replace(
            result, records=(dataclasses.replace(own, number=999, mixture=moved),)
        )
        assert [r.number for r in confirmation_runs(some)] == ([999] if kept else [])


def test_beyond_noise_agrees_with_the_confirmation(result: SearchResult) -> None:
    found = target_losses(result)
    assert found is not None and found.beyond is not None and result.confirmation is not None
    assert found.beyond.shape == (1 + len(result.space.target_names), len(found.others))
    sure = [c.low > 0 or c.high < 0 for c in result.confirmation.comparisons]
    assert found.beyond[0].tolist() == sure


def test_one_seed_says_nothing_about_noise(result: SearchResult) -> None:
    assert result.confirmation is not None
    single = dataclasses.replace(result.confirmation, seeds=(1,))
    found = target_losses(dataclasses.replace(result, confirmation=single))
    assert found is not None and found.beyond is None and "one seed" in found.source


def test_without_confirmation_the_law_speaks_and_says_so(result: SearchResult) -> None:
    found = target_losses(dataclasses.replace(result, confirmation=None))
    assert found is not None and found.source.startswith("Predicted")
    assert result.fit is not None
    expected = result.fit.predict([result.baselines["CE"]], result.target_tokens)[0]
    np.testing.assert_allclose(found.others["CE"], expected)


def test_without_law_a_searched_recommendation_is_compared(result: SearchResult) -> None:
    best = next(r for r in result.records if r.role == "proposal" and r.state == "COMPLETE")
    assert best.mixture is not None and best.curve is not None
    bare = dataclasses.replace(
        result, fit=None, confirmation=None, recommendation=best.mixture,
        records=tuple(search_records(result.records)),
    )  # fmt: skip
    found = target_losses(bare)
    assert found is not None and "during the search" in found.source
    np.testing.assert_allclose(found.recommendation, best.curve.losses[-1])
    assert set(found.others) == set(result.baselines)


def test_nothing_to_compare(result: SearchResult) -> None:
    bare = dataclasses.replace(result, fit=None, confirmation=None)
    assert target_losses(bare) is None  # the search itself never ran the law's optimum
    assert target_losses(dataclasses.replace(bare, baselines={}, records=())) is None
