import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tune.loop.pace import BUSY_SHARE, MOST_AHEAD, Pace


def pace(ask, run, careful=True):
    found = Pace()
    for _ in range(3):
        found.asked(ask, careful)
        found.ran(run)
    return found


def test_nothing_is_made_ahead_before_anything_was_measured():
    assert Pace().ahead(8) == 0
    assert not Pace().overrun(8)


@pytest.mark.parametrize(
    ("slots", "ask", "run", "ahead"),
    [
        (1, 0.3, 600.0, 0),  # a lone slot waits for the newest result
        (1, 0.3, 2.0, 1),  # but not for more than a tenth of a run
        (8, 0.3, 600.0, 1),  # one of several waits for 50 ms at most
        (8, 0.04, 600.0, 0),
        (8, 0.04, 0.5, 1),  # and for 1 % of a run
        (8, 0.1, 0.2, 4),
        (64, 0.05, 1.0, 4),
    ],
)
def test_jobs_ahead(slots, ask, run, ahead):
    assert pace(ask, run, careful=False).ahead(slots) == ahead


@given(st.integers(1, 64), st.floats(1e-3, 10), st.floats(1e-3, 100))
def test_slots_that_come_free_during_an_ask_are_covered(slots, ask, run):
    ahead = pace(ask, run, careful=False).ahead(slots)
    assert 0 <= ahead <= MOST_AHEAD * slots
    if ahead:
        free = min(slots * ask / run, MOST_AHEAD * slots)
        assert free - 1e-6 <= ahead < free + 1 + 1e-6


def test_in_haste_each_slot_has_its_next_job():
    found = pace(0.1, 0.2)
    for _ in range(40):
        found.asked(1e-4, careful=False)
    assert found.ahead(8) == 8
    assert pace(0.5, 0.2).ahead(8) == 20


def test_haste_is_for_runs_shorter_than_thinking():
    assert not pace(0.1, 10.0).overrun(8)
    assert pace(0.1, 0.2).overrun(8)
    assert not pace(0.1, 0.2, careful=False).overrun(8)  # hasty asks say nothing of careful ones
    assert BUSY_SHARE < 1
