import dataclasses
import importlib.util
import time

import numpy as np
import pytest

from bimix_tune.benchmark import compare_laws, contenders, read_results
from bimix_tune.benchmark.law_comparison import _tasks, judge
from bimix_tune.errors import ConfigError
from bimix_tune.laws import LAWS

PLAN = {"laws": ["bimix", "mean"], "runs": [6], "draws": 2}


def without_time(results):
    return sorted(dataclasses.astuple(dataclasses.replace(r, seconds=0.0)) for r in results)


def test_an_interrupted_comparison_continues(swarm, tmp_path):
    seen = []
    whole = compare_laws([swarm], tmp_path / "a", **PLAN)
    kept = (tmp_path / "a" / "results.jsonl").read_text().splitlines(keepends=True)
    path = tmp_path / "b" / "results.jsonl"
    path.parent.mkdir()
    path.write_text("".join(kept[:2]) + kept[2][:40])
    again = compare_laws([swarm], path.parent, monitor=lambda *a: seen.append(a), **PLAN)
    assert seen == [(3, 4), (4, 4)]
    assert path.read_text().startswith("".join(kept[:2]))
    assert str(without_time(again)) == str(without_time(whole))
    assert [(r.law, r.draw) for r in again] == [
        ("bimix", 0),
        ("bimix", 1),
        ("mean", 0),
        ("mean", 1),
    ]
    assert len(read_results(path)) == 4


def test_nothing_is_measured_twice_nor_taken_for_other_data(swarm, tmp_path):
    tasks = list(_tasks(swarm, **PLAN))
    path = tmp_path / "results.jsonl"
    path.write_text("".join(judge(t).to_json() + "\n" for t in tasks))
    before = path.read_text()
    assert len(compare_laws([swarm], tmp_path, **PLAN)) == 4
    assert path.read_text() == before
    other = dataclasses.replace(swarm, curves=swarm.curves[1:], truth=swarm.truth[1:])
    assert not {t.key.key for t in _tasks(other, **PLAN)} & {t.key.key for t in tasks}


def test_all_laws_get_the_same_draws_and_no_run_twice(swarm):
    tasks = list(_tasks(swarm, ["bimix", "mean"], [6, 8, 20], 3))
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


@pytest.mark.parametrize("law", [*LAWS, "auto"])
def test_laws_are_judged_with_their_interval(swarm, law):
    (task,) = _tasks(swarm, [law], [12], 1)
    result = judge(task)
    assert result.failure == ""
    assert result.error < 0.05
    assert 0.0 <= result.coverage <= 1.0
    assert result.seconds > 0


def test_the_law_behind_the_synthetic_swarm_beats_the_mean(swarm):
    transfer, mean = (judge(t) for t in _tasks(swarm, ["transfer", "mean"], [16], 1))
    assert transfer.error < 0.3 * mean.error
    assert transfer.spearman > 0.9
    assert mean.spearman == 0.0
    assert np.isnan(mean.coverage)


def test_a_fit_that_fails_is_a_result(swarm):
    (task,) = _tasks(swarm, ["bimix"], [6], 1)
    result = judge(dataclasses.replace(task, fitted=task.fitted[:1] * 6))
    assert result.failure.startswith("FitError: all 6 curves have the same mixture")
    assert np.isnan(result.error)


def test_unknown_laws_are_refused():
    with pytest.raises(ConfigError, match="unknown law 'bimx'; did you mean 'bimix'"):
        contenders(["mean", "bimx"])
    with pytest.raises(ConfigError, match="no law to compare: none was named"):
        contenders([])


def test_a_peer_without_its_library_is_left_out_with_a_word(monkeypatch):
    everything = {*contenders()[0], "lightgbm", "gp-objective"}
    assert {*LAWS, "auto", "mean", "paper", "exponential", "scaling-additive"} <= everything
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    names, notes = contenders()
    assert everything - set(names) == {"lightgbm", "gp-objective"}
    assert notes[0] == "lightgbm is left out: 'lightgbm' is not installed"
    with pytest.raises(ConfigError, match="no law to compare: lightgbm is left out"):
        contenders(["lightgbm"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": [20, 40]}, r"must leave 5 to judge by, but got \[20, 40\] .*'synthetic': 24"),
        ({"runs": [1, 8]}, "runs must be >= 2, but got 1"),
        ({"runs": []}, "runs must be >= 2, but got 0"),
        ({"draws": 0}, "draws must be >= 1, but got 0"),
        ({"workers": 0}, "workers must be >= 1, but got 0"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(swarm, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        compare_laws([swarm], tmp_path, **{**PLAN, **change})


def test_an_interrupt_leaves_the_rest_undone(swarm, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        compare_laws([swarm], tmp_path, laws=["auto"], runs=[18], draws=1000, monitor=stop)
    assert time.monotonic() - began < 15  # 1000 fits take longer
    assert len(read_results(tmp_path / "results.jsonl")) == 1
