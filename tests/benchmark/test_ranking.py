import numpy as np

from bimix_tune.benchmark import Result, summarise
from bimix_tune.benchmark.ranking import rank


def summaries():
    errors = {"good": (0.1, 0.2), "fair": (0.2, 0.2), "new": (0.05, None), "silent": (None, None)}
    return summarise(
        Result("pile", "abc", n, 0, law, error=np.nan if value is None else value, spearman=0.5)
        for law, values in errors.items()
        for n, value in zip((8, 16), values, strict=True)
    )


def test_laws_are_ordered_by_their_mean_rank_where_they_have_a_score():
    found = rank(summaries(), "error")
    assert found.laws == ("new", "good", "fair")
    np.testing.assert_allclose(found.mean_rank, [1.0, (2 + 1.5) / 2, (3 + 1.5) / 2])
    assert found.columns == (("pile", 8), ("pile", 16))
    np.testing.assert_array_equal(found.values, [[0.05, np.nan], [0.1, 0.2], [0.2, 0.2]])


def test_greater_can_be_better():
    assert rank(summaries(), "error", greater_is_better=True).laws == ("fair", "good", "new")


def test_without_any_score_there_is_no_ranking():
    assert rank(summaries(), "coverage").laws == ()
