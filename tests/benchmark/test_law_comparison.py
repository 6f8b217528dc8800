import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bimix_tune.benchmark import compare_laws, read_results
from bimix_tune.benchmark.judging import judge
from bimix_tune.benchmark.tasks import plan
from bimix_tune.errors import ConfigError

PLAN = {"laws": ["bimix", "mean"], "tasks": ["final"], "runs": [6], "draws": 2}
HERE = {"workers": 0}


def without_time(results):
    return sorted(str(dataclasses.replace(r, seconds=0.0)) for r in results)


def test_an_interrupted_comparison_continues(data, tmp_path):
    seen = []
    whole = compare_laws([data], tmp_path / "a", **PLAN, **HERE)
    kept = (tmp_path / "a" / "results.jsonl").read_text().splitlines(keepends=True)
    path = tmp_path / "b" / "results.jsonl"
    path.parent.mkdir()
    path.write_text("".join(kept[:2]) + kept[2][:40])
    again = compare_laws([data], path.parent, monitor=lambda *a: seen.append(a), **PLAN, **HERE)
    assert seen == [(3, 4), (4, 4)]
    assert path.read_text().startswith("".join(kept[:2]))
    assert without_time(again) == without_time(whole)
    assert [(r.law, r.draw) for r in again] == [
        ("bimix", 0),
        ("bimix", 1),
        ("mean", 0),
        ("mean", 1),
    ]
    assert len(read_results(path)) == 4


def test_nothing_is_measured_twice(data, tmp_path):
    tasks, _ = plan([data], PLAN["laws"], PLAN["tasks"], PLAN["runs"], PLAN["draws"])
    path = tmp_path / "results.jsonl"
    path.write_text("".join(judge(t).to_json() + "\n" for t in tasks))
    before = path.read_text()
    assert len(compare_laws([data], tmp_path, **PLAN)) == 4  # without starting workers
    assert path.read_text() == before


def test_results_of_other_code_are_measured_anew(data, tmp_path):
    compare_laws([data], tmp_path, **PLAN, **HERE)
    path = tmp_path / "results.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"code": "old"}) + "\n" for line in lines))
    compare_laws([data], tmp_path, **PLAN, **HERE)
    assert len(read_results(path)) == 8


def test_a_killed_comparison_continues(tmp_path):
    """SIGKILL in the middle, as a crash would have it."""
    arguments = ["--laws", "auto", "--runs", "8,16,32", "--tasks", "final", "--output", "out"]
    command = [sys.executable, "-m", "bimix_tune", "benchmark", "laws", *arguments]
    command += ["--workers", "0"]
    path = tmp_path / "out" / "results.jsonl"
    environment = {"cwd": tmp_path, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, **environment) as process:
        until = time.monotonic() + 60
        while not (path.exists() and path.read_text().count("\n") >= 3):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    kept = path.read_text()
    assert kept.count("\n") < 30
    subprocess.run(command, check=True, timeout=120, **environment)
    assert path.read_text().startswith(kept[: kept.rfind("\n") + 1])
    assert len(read_results(path)) == 30
    assert (tmp_path / "out" / "report.html").exists()


def test_all_tasks_in_one_table(data, tmp_path):
    found = compare_laws([data], tmp_path, **{**PLAN, "tasks": ["scales", "final"]}, **HERE)
    assert [r.task for r in found] == ["final"] * 4 + ["scales"] * 12
    assert {r.failure for r in found} == {""}


def test_a_fit_that_fails_is_a_result(data):
    task = plan([data], ["bimix"], ["final"], [6], 1)[0][0]
    result = judge(dataclasses.replace(task, fitted=task.fitted[:1] * 6))
    assert result.failure.startswith("FitError: all 6 curves have the same mixture")
    assert np.isnan(result.error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": [20, 40]}, r"must leave 5 to judge by, but got \[20, 40\] .*'synthetic 1M': 24"),
        ({"runs": [1, 8]}, "runs must be >= 2, but got 1"),
        ({"runs": []}, "runs must be >= 2, but got 0"),
        ({"draws": 0}, "draws must be >= 1, but got 0"),
        ({"workers": -1}, "workers must be >= 0, but got -1"),
        ({"tasks": ["finale"]}, "unknown task 'finale'; did you mean 'final'"),
        ({"tasks": []}, "nothing to measure"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(data, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        compare_laws([data], tmp_path, **{**PLAN, **HERE, **change})


def test_an_interrupt_leaves_the_rest_undone(data, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_laws([data], tmp_path, monitor=stop, **PLAN, **HERE)
    assert len(read_results(tmp_path / "results.jsonl")) == 1
