"""Tasks on real Ray workers; the cluster is the one that all tests share."""

import importlib.util

import pytest

from bimix_tune.benchmark import compare_laws, read_results
from bimix_tune.benchmark.judging import judge
from bimix_tune.benchmark.pool import ThisProcess, open_pool
from bimix_tune.benchmark.tasks import plan
from bimix_tune.errors import ExecutorError, MissingExtraError

pytest.importorskip("ray")
PLAN = {"laws": ["bimix", "mean"], "tasks": ["final"], "runs": [6, 8], "draws": 2}


def make_judge(log, kind):
    """A judge that a worker gets by value: it cannot import a test module."""

    def judge(task):
        import dataclasses
        import os
        import pathlib

        path = pathlib.Path(log)
        with path.open("a") as file:
            file.write(f"{task.key.law} {task.size} {os.environ['OMP_NUM_THREADS']}\n")
        seen = path.read_text().count("bimix")
        if task.key.law == "bimix" and (kind == "always" or (kind == "once" and seen == 1)):
            os._exit(3)
        return dataclasses.replace(task.key, error=0.5)

    return judge


@pytest.fixture
def pool(ray_cluster, tmp_path):
    """Makes a pool whose log is a file of this test."""
    from bimix_tune.benchmark.ray_pool import RayPool

    pools = []

    def make(kind, workers=1):
        pools.append(RayPool(make_judge(str(tmp_path / "log"), kind), workers))
        return pools[-1]

    yield make
    for made in pools:
        made.close()


def tasks_of(data, draws=1, runs=(6,), laws=("bimix", "mean")):
    return plan([data], laws, ["final"], runs, draws)[0]


def test_laws_are_compared_on_ray_as_in_this_process(ray_cluster, data, tmp_path):
    seen = []
    there = compare_laws([data], tmp_path, monitor=lambda *a: seen.append(a), **PLAN)
    here = compare_laws([data], tmp_path / "here", workers=0, **PLAN)
    assert [(r.key, r.error) for r in there] == [(r.key, pytest.approx(r.error)) for r in here]
    assert seen == [(n, 8) for n in range(1, 9)]
    assert len(read_results(tmp_path / "results.jsonl")) == 8


def test_the_longest_come_first_on_one_thread(pool, data, tmp_path):
    assert len(list(pool("never").results(tasks_of(data, runs=(6, 8, 12), laws=["mean"])))) == 3
    assert (tmp_path / "log").read_text() == "mean 96 1\nmean 64 1\nmean 48 1\n"


def test_more_workers_than_cores_share_them(pool, data):
    crowd = pool("never", workers=4)
    assert crowd.slots == 4
    assert len(list(crowd.results(tasks_of(data, draws=6)))) == 12


def test_a_worker_that_dies_costs_its_task_one_try(pool, data, tmp_path):
    found = list(pool("once").results(tasks_of(data)))
    assert {(r.law, r.error, r.failure) for r in found} == {("bimix", 0.5, ""), ("mean", 0.5, "")}
    assert (tmp_path / "log").read_text().count("bimix") == 2


def test_a_task_that_kills_its_workers_is_a_failure_and_the_others_go_on(pool, data):
    found = {r.law: r for r in pool("always").results(tasks_of(data))}
    assert found["bimix"].failure.startswith("WorkerDied: 2 times (")
    assert found["mean"].failure == ""


def test_workers_that_cannot_start_are_an_error(pool, data, monkeypatch):
    from bimix_tune.benchmark import ray_pool

    class Broken(ray_pool.Worker):
        def __init__(self, work):
            raise OSError("no bimix-tune here")

    monkeypatch.setattr(ray_pool, "Worker", Broken)
    with pytest.raises(ExecutorError, match=r"workers cannot start .* on every node"):
        list(pool("never").results(tasks_of(data)))


def test_a_cluster_without_room_is_an_error(pool, data, monkeypatch):
    from bimix_tune.benchmark import ray_pool

    monkeypatch.setattr(ray_pool, "START_SECONDS", 1.0)
    full = pool("never")
    full._kind = full._kind.options(num_cpus=1000)
    with pytest.raises(ExecutorError, match="no Ray worker came up within 1 s"):
        list(full.results(tasks_of(data)))


def test_without_ray_it_is_this_process_with_a_word(monkeypatch):
    notes = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert isinstance(open_pool(judge, say=notes.append), ThisProcess)
    assert notes == ["one after the other in this process: 'ray' is not installed"]
    with pytest.raises(MissingExtraError, match="joining the cluster 'auto' needs 'ray'"):
        open_pool(judge, address="auto")
