"""Whole nodes that come, go and are cut off, under jobs that run on them.

Each cluster lives in a process of its own, beside the one that the other tests share.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

HERE = Path(__file__).parent


def facts(script: str, *arguments: str) -> list[str]:
    """Run a script of this folder to its end and return the facts that it prints."""
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line[6:] for line in done.stdout.splitlines() if line.startswith("fact: ")]


def test_slots_follow_the_nodes_of_a_cluster() -> None:
    assert facts("nodes_come_and_go.py") == [
        "one node: 1 slot",
        "another node: 3 slots",
        "the other node killed: its jobs began again",
        "a third node drained: its job ended there, and no other came",
        "all jobs finished",
        "a job that failed on one node was tried on the other",
        "two slots of two GPUs: gpu0,1 gpu2,3",
        "two slots with a type of GPU: on the node that has it",
        "six slots without a type: on all nodes with GPUs",
        "a type that no node has: the error lists what there is",
    ]


def test_a_run_is_shared_by_nodes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert facts("one_run_on_two_nodes.py", str(tmp_path / "text")) == [
        "refused: have one: set its `processes`",
        "refused: gpus_per_slot must be 2, one for each process",
        "two nodes of one core shared a run of two processes",
        "a run that lost a node began again with another",
        "it was stopped",
        "nothing is reserved any more",
    ]


def can_make_namespaces() -> str:
    """Why hosts cannot be imitated here, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip") or not shutil.which("unshare"):
        return "network namespaces need `ip` and `unshare`"
    name = f"bimix-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return f"no network namespaces here: {made.stderr.strip()}" if made.returncode else ""


def test_a_partitioned_node_loses_its_jobs_to_the_others(tmp_path: Path) -> None:
    reason = can_make_namespaces()
    if reason:
        pytest.skip(reason)
    assert facts("partitioned_hosts.py", str(tmp_path)) == [
        "two hosts: 2 slots, the corpus copied to the second",
        "the link is down: its job began again within twice the heartbeat",
        "all jobs finished",
    ]
