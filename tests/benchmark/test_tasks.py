import dataclasses

import numpy as np
import pytest

from bimix_tune.benchmark import DataSet
from bimix_tune.benchmark.fitters import WITH_SMALL
from bimix_tune.benchmark.tasks import plan

LAWS = ["bimix", "mean", WITH_SMALL]


def tasks_of(data, kind, runs=(6,), draws=2, laws=LAWS):
    return plan([data], laws, [kind], runs, draws)[0]


@pytest.mark.parametrize("kind", ["final", "extrapolate"])
def test_all_laws_get_the_same_draws_and_no_run_twice(data, kind):
    tasks = tasks_of(data, kind, [6, 8, 20], 3)
    assert len(tasks) == 2 * 2 * 3  # 20 of 24 would leave too few
    by_key = {(t.key.law, t.key.n, t.key.draw): t for t in tasks}
    drawn = set()
    for n in (6, 8):
        for draw in range(3):
            one, two = by_key["bimix", n, draw], by_key["mean", n, draw]
            names = [c.run for c in one.fitted]
            assert names == [c.run for c in two.fitted]
            assert len(names) == n
            assert len(one.r) == 24 - n
            held_out = {tuple(row) for row in one.r}
            assert not held_out & {tuple(c.mixture.proportions) for c in one.fitted}
            drawn.add(tuple(names))
    assert len(drawn) == 6


def test_extrapolation_sees_the_first_two_fifths_and_is_judged_at_the_end(data):
    task = tasks_of(data, "extrapolate")[0]
    (swarm,) = data.swarms
    seen = [t for t in swarm.curves[0].tokens if t <= 0.4 * swarm.tokens]
    assert 2 <= len(seen) < 8
    assert {tuple(c.tokens) for c in task.fitted} == {tuple(seen)}
    assert task.tokens == swarm.tokens
    assert {tuple(row) for row in task.truth} <= {tuple(row) for row in swarm.truth}


def test_scales_fit_a_few_big_runs_and_one_law_gets_the_small_ones(data):
    tasks = tasks_of(data, "scales", draws=4)
    assert {t.key.n for t in tasks} == {2, 3, 4}
    for task in tasks:
        assert {c.scale for c in task.fitted} == {"8M"}
        assert len(task.r) == 10 - task.key.n
        assert len(task.small) == (24 if task.key.law == WITH_SMALL else 0)
    twos = [{c.run for c in t.fitted} for t in tasks if (t.key.n, t.key.law) == (2, "mean")]
    assert len({frozenset(runs) for runs in twos}) == 4


def test_few_big_runs_give_all_their_subsets(data):
    big = dataclasses.replace(data.pair.big, curves=data.pair.big.curves[:5], truth=None)
    few = dataclasses.replace(data, pair=dataclasses.replace(data.pair, big=big))
    tasks = tasks_of(few, "scales", draws=10, laws=["mean"])
    assert {n: sum(t.key.n == n for t in tasks) for n in (2, 3, 4)} == {2: 10, 3: 10, 4: 0}
    assert len({tuple(c.run for c in t.fitted) for t in tasks}) == 20


def last(curve):
    ends = {k: getattr(curve, k)[-1:] for k in ("tokens", "losses", "decayed")}
    return dataclasses.replace(curve, **ends)


def test_what_cannot_be_asked_is_said(data):
    (swarm,) = data.swarms
    ends = [dataclasses.replace(c, decayed=c.tokens == c.tokens[-1]) for c in swarm.curves]
    decayed = dataclasses.replace(swarm, name="b", curves=tuple(ends))
    ended = dataclasses.replace(swarm, name="c", curves=tuple(map(last, ends)))
    late = [
        dataclasses.replace(c, tokens=c.tokens + 1e6, losses=c.losses, decayed=c.decayed)
        for c in swarm.curves
    ]
    late = dataclasses.replace(swarm, name="d", tokens=2e6, curves=tuple(late))
    other = DataSet("other", (decayed, ended, late), None, "one scale only")
    tasks, notes = plan([other], ["mean"], runs=[6, 20])
    assert {(t.key.task, t.key.swarm) for t in tasks} == {("final", s) for s in "bcd"}
    assert notes == [
        "extrapolate: not on b: its runs end with a decay of the learning rate, which earlier "
        "checkpoints lack",
        "extrapolate: not on c: it takes 5 checkpoints a run, but half have 1",
        "extrapolate: not on d: 0 runs with 2 checkpoints in 40% of the tokens",
        "scales: not on other: one scale only",
        "n = 20: not on b (of 24 runs), c (of 24 runs), d (of 24 runs)",
    ]


def test_keys_tell_tasks_data_and_code_apart(data, monkeypatch):
    keys = {t.key.key for t in plan([data], LAWS, runs=[6], draws=1)[0]}
    assert len(keys) == 2 + 2 + 3 * 3
    monkeypatch.setattr("bimix_tune.benchmark.tasks.code_digest", lambda: "other")
    assert not keys & {t.key.key for t in plan([data], LAWS, runs=[6], draws=1)[0]}
    (swarm,) = data.swarms
    other = dataclasses.replace(swarm, curves=swarm.curves[1:], truth=swarm.truth[1:])
    less = dataclasses.replace(data, swarms=(other,), pair=None)
    assert not keys & {t.key.key for t in plan([less], LAWS, runs=[6], draws=1)[0]}


def test_a_task_does_not_depend_on_what_else_is_asked(data):
    alone = plan([data], ["mean"], ["final"], [8], 1)[0][0]
    among = plan([data], LAWS, runs=[6, 8], draws=3)[0]
    (same,) = (t for t in among if t.key.key == alone.key.key)
    np.testing.assert_array_equal(same.r, alone.r)
