"""Security and metrics of clusters: what listens where, who is warned, what is counted."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from bimix_tune.observing import (
    LawFitted,
    RunCheckpoint,
    RunEnded,
    RunRetried,
    RunStarted,
    SlotsChanged,
)

pytest.importorskip("ray")
ROOT = Path(__file__).parent.parent.parent

OWN_CLUSTER = """
import glob, os, ray
from bimix_tune.executors.ray_cluster import connect
from bimix_tune.executors.ray_metrics import dashboard_url
from bimix_tune.executors.ray_security import has_token

def family(pid):
    yield str(pid)
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        for child in open(path).read().split():
            yield from family(child)

def listening():
    found = {}
    for name in ("tcp", "tcp6"):
        for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":  # LISTEN
                found[words[9]] = words[1].split(":")[0]
    return found

with connect(None):
    ray.get(ray.remote(lambda: 1).remote())  # so that a worker is up
    sockets = listening()
    mine = set()
    for pid in family(os.getpid()):
        for fd in glob.glob(f"/proc/{pid}/fd/*"):
            try:
                link = os.readlink(fd)
            except OSError:
                continue
            if link.startswith("socket:[") and link[8:-1] in sockets:
                mine.add(sockets[link[8:-1]])
    print("token", has_token(), "dashboard", dashboard_url())
    def read(pid, name):
        return open(f"/proc/{pid}/{name}").read()
    # Workers write their titles over their environments, so the servers are asked.
    servers = [p for p in list(family(os.getpid()))[1:] if "session_" in read(p, "cmdline")]
    off = ["RAY_USAGE_STATS_ENABLED=0" in read(p, "environ") for p in servers]
    print("usage", not (len(off) >= 2 and all(off)))
    print("addresses", *sorted(mine))
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_cluster_of_our_own_is_closed_to_the_outside(tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", OWN_CLUSTER],
        env={**kept, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert said["token"] == "True dashboard None"
    assert said["usage"] == "False"
    addresses = set(said["addresses"].split())
    assert addresses and addresses <= LOOPBACK
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o077 == 0
    token = (tmp_path / ".ray" / "auth_token").read_text()
    assert token not in done.stdout + done.stderr


def node(address, alive=True):
    return {"NodeManagerAddress": address, "Alive": alive}


@pytest.mark.parametrize(
    ("nodes", "token", "warned"),
    [
        ([node("127.0.0.1")], False, False),
        ([node("::1"), node("localhost")], False, False),
        ([node("192.0.2.7")], False, True),
        ([node("127.0.0.1"), node("2001:db8::7")], False, True),
        ([node("head.example.com")], False, True),
        ([node("192.0.2.7")], True, False),
        ([node("127.0.0.1"), node("192.0.2.7", alive=False)], False, False),
    ],
)
def test_an_open_cluster_is_warned_of(nodes, token, warned, monkeypatch, caplog):
    from bimix_tune.executors import ray_security

    monkeypatch.setattr(ray_security, "has_token", lambda: token)
    ray_security.warn_if_open(nodes)
    assert bool(caplog.records) == warned
    if warned:
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "RAY_AUTH_MODE=token" in record.getMessage()
        assert nodes[-1]["NodeManagerAddress"] in record.getMessage()


class Metric:
    """As `ray.util.metrics` declares its classes; remembers values by name and tags."""

    values: ClassVar[dict] = {}

    def __init__(self, name, description="", boundaries=None, tag_keys=None):
        self.name, self.keys, self.tags = name, set(tag_keys), {}

    def set_default_tags(self, tags):
        self.tags = tags

    def record(self, value, tags):
        tags = {**self.tags, **(tags or {})}
        assert set(tags) == self.keys  # which Ray insists on
        key = (self.name, tags.get("state"))
        self.values[key] = self.combine(self.values.get(key, 0), value)


class Counter(Metric):
    combine = staticmethod(lambda old, new: old + new)

    def inc(self, value=1.0, tags=None):
        assert value > 0  # which Ray insists on
        self.record(value, tags)


class Gauge(Metric):
    combine = staticmethod(lambda old, new: new)

    def set(self, value, tags=None):
        self.record(value, tags)


class Histogram(Counter):
    def observe(self, value, tags=None):
        self.record(1, tags)


def test_metrics_count_what_happens(monkeypatch):
    import ray.util.metrics

    from bimix_tune.executors import ray_metrics

    clock = [1000.0]
    monkeypatch.setattr(ray_metrics.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Metric, "values", {})
    for kind in (Counter, Gauge, Histogram):
        monkeypatch.setattr(ray.util.metrics, kind.__name__, kind)
    metrics = ray_metrics.RayMetrics("my-search")
    for event in (
        SlotsChanged(2),
        RunStarted(0, "a"),
        RunStarted(1, "b"),
        RunCheckpoint(0, 1000, {}, 2.5),
        RunCheckpoint(1, 2000, {}, 2.5),
        RunRetried(1, "lost"),
        RunStarted(1, "c"),
        RunCheckpoint(1, 2000, {}, 2.5),  # trained again
        RunEnded(0, "COMPLETE", 3000, 0.0, 12.0),
        RunEnded(2, "FAIL", 0, None, 0.0, "never started"),
        LawFitted("from 1 run"),
    ):
        metrics(event)
    assert Metric.values == {
        ("bimix_slots", None): 2,
        ("bimix_slots_busy", None): 1,
        ("bimix_tokens", None): 1000 + 2000 + 2000 + 2000,
        ("bimix_tokens_per_second", None): 7000 / 60,
        ("bimix_run_retries", None): 1,
        ("bimix_runs_ended", "complete"): 1,
        ("bimix_runs_ended", "fail"): 1,
        ("bimix_run_seconds", None): 2,
        ("bimix_best_objective", None): 0.0,
    }
    metrics(RunStarted(3, "a"))
    clock[0] += 61
    metrics(RunEnded(3, "PRUNED", 600, 2.0, 1.0))
    metrics(RunEnded(4, "COMPLETE", 0, 1.0, 1.0))
    assert Metric.values["bimix_tokens_per_second", None] == 10
    assert Metric.values["bimix_best_objective", None] == 0.0
    metrics.close()
    assert Metric.values["bimix_slots_busy", None] == 0


def test_the_metrics_are_those_that_ray_has(ray_cluster):
    from bimix_tune.executors.ray_metrics import RayMetrics

    metrics = RayMetrics("my-search")
    for event in (SlotsChanged(1), RunStarted(0, "a"), RunEnded(0, "COMPLETE", 10, 1.0, 0.0)):
        metrics(event)
    metrics.close()
