import math

import numpy as np
import pytest

from bimix_tune.benchmark.contest import Ground, ground, standings
from bimix_tune.benchmark.contest.metrics import by_tokens, course, half_reached, spent

GROUND = Ground("bowl", "synthetic", {0.05: 0.3, 0.01: 0.1})
NAN = math.nan


def test_the_course_is_the_truth_of_what_measured_best(make_match):
    found = make_match(regret=(0.5, 0.2, 0.4, 0.1), measured=(3.0, 4.0, 2.0, NAN))
    assert course(found).tolist() == [0.5, 0.5, 0.4, 0.4]


def test_before_a_complete_run_it_is_a_typical_mixture_and_the_end_is_carried_on(make_match):
    found = make_match(regret=(0.5, 0.2), measured=(NAN, 2.0), tokens=(300.0, 1000.0), runs=4)
    assert course(found).tolist() == [1.0, 0.2, 0.2, 0.2]
    assert spent(found).tolist() == [0.3, 1.3, 1.3, 1.3]
    lost = make_match(regret=(), runs=2)
    assert course(lost).tolist() == [1.0, 1.0]
    assert by_tokens(lost).tolist() == [1.0, 1.0]


def test_against_tokens_a_run_counts_when_it_has_ended(make_match):
    found = make_match(
        regret=(0.6, 0.5, 0.3, 0.2),
        measured=(4.0, NAN, 3.0, 2.0),
        tokens=(1000.0, 500.0, 1000.0, 1000.0),
    )
    assert by_tokens(found).tolist() == [0.6, 0.6, 0.3, 0.2]  # after 1, 2, 3 and 4 runs' tokens


def test_half_of_the_matches_must_have_arrived():
    inf = math.inf
    assert half_reached(np.array([4.0, inf])) == 4.0
    assert half_reached(np.array([4.0, inf, inf])) == inf
    assert half_reached(np.array([5.0, 1.0, 2.0])) == 2.0


def test_a_standing_by_hand(make_match):
    matches = [
        make_match(seed=0, regret=(0.4, 0.2, 0.2), own=0.3, law=0.05),
        make_match(seed=1, regret=(0.8, 0.8, 0.1), own=NAN, notes=("own: no",)),
        make_match(
            seed=2, regret=(0.6,), tokens=(1000.0,), runs=3, own=0.1, law=NAN, failure="died"
        ),
    ]
    (found,) = standings(matches, [GROUND], reference="nobody")
    assert found.regrets.tolist() == [[0.4, 0.2, 0.2], [0.8, 0.8, 0.1], [0.6, 0.6, 0.6]]
    assert found.by_run.mean == pytest.approx([0.6, 1.6 / 3, 0.3])
    assert found.by_run.median.tolist() == [0.6, 0.6, 0.2]
    assert found.by_run.low == pytest.approx([0.5, 0.4, 0.15])
    assert found.final == pytest.approx(0.3)
    assert dict(found.runs_to) == {0.05: 3.0, 0.01: math.inf}  # at 2, 3 and never; 3, never, never
    assert found.recommended == pytest.approx({"best seen": 0.3, "own": 0.2, "law": 0.05})
    assert (found.spent, found.saved, found.seconds) == (3.0, 0.0, 0.5)
    assert (dict(found.failures), found.broken) == ({"own: no": 1, "died": 1}, 1)
    assert math.isnan(found.ratio)


def test_tokens_to_the_quality_of_the_reference(make_match):
    slow = [make_match(seed=s, strategy="ref", regret=(0.9, 0.9, 0.9, 0.5)) for s in (0, 1)]
    fast = [
        make_match(
            seed=s, strategy="fast", regret=(0.9, 0.5, 0.5, 0.5), tokens=(1e3, 1e3, 500, 1e3)
        )
        for s in (0, 1)
    ]
    never = [make_match(seed=s, strategy="never", regret=(0.9,) * 4) for s in (0, 1)]
    found = standings([*slow, *fast, *never], [GROUND], reference="ref")
    assert [s.tokens_to for s in found] == [4.0, 2.0, math.inf]
    assert [s.ratio for s in found] == [1.0, 0.5, math.inf]
    assert found[1].saved == pytest.approx(0.125)


def test_tops_are_ranks_in_a_pool_and_shares_of_random_mixtures_elsewhere(bowl, pool):
    regrets = np.sort(pool.regret(pool.candidates))
    assert dict(ground(pool).tops) == {0.05: regrets[1], 0.01: regrets[0]}
    tops = ground(bowl).tops
    random = bowl.regret(np.random.default_rng(5).dirichlet(np.ones(3), 4000))
    assert (random <= tops[0.05]).mean() == pytest.approx(0.05, abs=0.015)
    assert (random <= tops[0.01]).mean() == pytest.approx(0.01, abs=0.008)
