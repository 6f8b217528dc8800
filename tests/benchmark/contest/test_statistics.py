import numpy as np
import pytest

from bimix_tune.benchmark.contest import Ground, standings
from bimix_tune.benchmark.contest.statistics import (
    Comparison,
    Results,
    compare,
    critical_difference,
    mean_ranks,
    results,
    wins,
)

NAN = np.nan


def given(*problems):
    """Results of strategies a, b, c: for each problem rows of regrets."""
    regrets = tuple(np.array(p, dtype=float) for p in problems)
    return Results(
        tuple("abcdefgh"[: len(regrets[0])]), tuple(map(str, range(len(regrets)))), regrets
    )


@pytest.mark.parametrize(
    ("strategies", "problems", "alpha", "expected"),
    [(4, 14, 0.05, 1.25), (4, 14, 0.10, 1.12), (5, 30, 0.05, 1.11)],
)
def test_the_critical_difference_is_that_of_demsar(strategies, problems, alpha, expected):
    # Demsar 2006, section 3.2.2 (first two); q_0.05 = 2.728 for five in his table 5
    assert critical_difference(strategies, problems, alpha) == pytest.approx(expected, abs=0.006)


def test_ranks_are_of_mean_regrets_and_ties_share():
    ranks = mean_ranks(given([[0.1, 0.3], [0.2, 0.2], [0.9, 0.9]], [[0, 0], [1, 1], [1, 1]]), 100)
    assert ranks.mean == pytest.approx([(1.5 + 1) / 2, (1.5 + 2.5) / 2, (3 + 2.5) / 2])
    assert np.all(ranks.low <= ranks.mean)
    assert np.all(ranks.mean <= ranks.high)


def test_the_bootstrap_is_deterministic_and_sure_of_what_is_sure():
    rng = np.random.default_rng(0)
    noisy = given(*(rng.uniform(size=(3, 6)) for _ in range(4)))
    one, two = (mean_ranks(noisy, 300) for _ in range(2))
    assert one.low.tolist() == two.low.tolist()
    assert one.high.tolist() == two.high.tolist()
    assert np.all(one.high > one.low)
    sure = mean_ranks(given(*([[0.1] * 5, [0.2] * 5] for _ in range(3))), 300)
    assert sure.low.tolist() == sure.high.tolist() == [1.0, 2.0]


def test_who_did_not_play_a_problem_has_no_rank_there():
    partial = given([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]], [[NAN, NAN], [0.2, 0.2], [0.1, 0.1]])
    assert mean_ranks(partial, 50).mean.tolist() == [1.0, 2.0, 2.0]
    assert partial.everywhere().strategies == ("b", "c")
    found = compare(partial)
    assert found.strategies == ("b", "c")
    assert found.ranks.tolist() == [1.5, 1.5]


def test_wins_are_over_seeds_and_problems_and_ties_half():
    found = wins(given([[1, 2], [2, 2], [NAN, NAN]], [[1, 1], [2, 2], [0, 1]]), "a")
    assert found == {"b": (0.75 + 1.0) / 2, "c": 0.25}


def test_strategies_closer_than_the_critical_difference_are_alike():
    ranks = np.array([1.0, 1.8, 2.9, 4.5])
    found = Comparison(("a", "b", "c", "d"), ranks, 10, 0.01, 1.2)
    assert found.alike == [(0, 1), (1, 2)]
    assert Comparison(found.strategies, ranks, 10, 0.01, 0.5).alike == []
    assert Comparison(found.strategies, ranks, 10, 0.01, 9.0).alike == [(0, 3)]


def test_a_clear_order_is_seen_by_friedman():
    found = compare(given(*([[0.1] * 3, [0.2] * 3, [0.3] * 3] for _ in range(10))))
    assert found.ranks.tolist() == [1, 2, 3]
    assert found.p < 1e-4
    assert compare(given([[0.1], [0.2]])) is None  # one problem
    assert np.isnan(compare(given([[0.1], [0.1], [0.1]], [[0.1], [0.1], [0.1]])).p)  # all alike


def test_results_are_cut_after_a_share_of_the_runs(make_match):
    matches = [
        make_match(problem=p, strategy=n, seed=s, regret=(0.9, 0.8, 0.7, 0.6))
        for p in ("p", "q") for n in ("a", "b") for s in (0, 1) if (p, n) != ("q", "b")
    ]  # fmt: skip
    found = standings(matches, [Ground(p, "pool", {0.05: 0.1, 0.01: 0.1}) for p in "pq"])
    for share, regret in ((0.25, 0.9), (0.5, 0.8), (0.6, 0.7), (1.0, 0.6)):
        cut = results(found, share)
        assert cut.regrets[0].tolist() == [[regret] * 2] * 2
        assert np.isnan(cut.regrets[1][1]).all()
