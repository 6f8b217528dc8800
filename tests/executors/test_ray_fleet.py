"""How the fleet follows its cluster and its workers, with a cluster that only exists here."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")

from bimix_tune.errors import ExecutorError
from bimix_tune.executors import ray_fleet as module
from bimix_tune.executors import ray_recipe
from bimix_tune.executors.ray_fleet import Fleet
from bimix_tune.executors.ray_recipe import Node, WorkerRecipe
from bimix_tune.executors.ray_worker import Began, Down, Up


class FakeCluster:
    """Nodes, and actors that answer what a test puts into `answers`."""

    def __init__(self):
        self.nodes = []
        self.answers = {}  # by the reference of a question
        self.asked = []  # (actor, confirmed)
        self.killed = []
        self.death = threading.Event()
        self.death.set()
        self.names = itertools.count()

    # What `ray_fleet` uses of Ray

    def wait(self, refs, num_returns=1, timeout=0):
        ready = [ref for ref in refs if ref in self.answers]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref, timeout):
        answer = self.answers.pop(ref)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor, no_restart):
        assert no_restart
        self.death.wait()
        self.killed.append(actor)

    # The recipe

    def start(self):
        actor = SimpleNamespace(name=next(self.names), question=None)

        def remote(confirmed, timeout):
            actor.question = object()
            self.asked.append((actor.name, confirmed))
            return actor.question

        actor.news = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=remote))
        return actor, None

    def places(self, nodes):
        return WorkerRecipe(None, None, None, 1.0, 0.0).places(nodes)

    def add(self, name, cpus=1):
        self.nodes.append(Node(name, False, {"CPU": float(cpus)}))

    def answer(self, slot, *messages):
        self.answers[slot.actor.question] = list(messages)


@pytest.fixture
def cluster(monkeypatch):
    cluster = FakeCluster()
    errors = ("ActorUnavailableError", "GetTimeoutError", "ActorDiedError")
    cluster.exceptions = SimpleNamespace(**{e: type(e, (Exception,), {}) for e in errors})
    monkeypatch.setattr(module, "ray", cluster)
    monkeypatch.setattr(module, "live_nodes", lambda: list(cluster.nodes))
    monkeypatch.setattr(module, "ADJUST_SECONDS", 0.0)
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.0)
    return cluster


def read(fleet):
    return list(fleet.poll(0.0))


def bring_up(cluster, fleet, node):
    """Let a worker that waits come up on a node."""
    slot = next(slot for slot in fleet.slots if not slot.up)
    cluster.answer(slot, Up(f"{node}/{slot.actor.name}", node))
    read(fleet)
    return slot


def test_workers_as_many_as_there_is_room_now_and_later(cluster):
    cluster.add("a", cpus=2)
    fleet = Fleet(cluster, None, 60.0)
    assert len(fleet.slots) == 2
    assert not fleet.reached
    bring_up(cluster, fleet, "a")
    assert [slot.name for slot in fleet.ready] == ["a/0"]
    cluster.add("b", cpus=3)
    fleet.adjust()
    assert len(fleet.slots) == 5
    cluster.nodes.pop()
    fleet.adjust()
    assert len(fleet.slots) == 2
    assert fleet.ready  # those that wait for room go first


def test_a_limit_is_kept_with_or_without_room(cluster):
    fleet = Fleet(cluster, 3, 60.0)
    assert len(fleet.slots) == 3  # an autoscaler sees what is wanted
    cluster.add("a", cpus=8)
    fleet.adjust()
    assert len(fleet.slots) == 3


def test_a_node_that_leaves_takes_no_new_work_and_loses_its_idle_workers(cluster):
    cluster.add("a")
    cluster.add("b")
    fleet = Fleet(cluster, None, 60.0)
    first, second = bring_up(cluster, fleet, "a"), bring_up(cluster, fleet, "b")
    second.jobs.append("job")
    cluster.nodes[1] = Node("b", True, {"CPU": 1.0})
    fleet.adjust()
    assert fleet.ready == [first]
    assert second in fleet.slots  # its training may yet end
    second.jobs.clear()
    fleet.adjust()
    assert fleet.slots == [first]


def test_messages_are_confirmed_by_the_next_question(cluster):
    cluster.add("a")
    fleet = Fleet(cluster, None, 60.0)
    slot = bring_up(cluster, fleet, "a")
    cluster.answer(slot, Began(1), Began(2))
    assert read(fleet) == [(slot, Began(1)), (slot, Began(2))]
    assert [confirmed for _, confirmed in cluster.asked] == [0, 1, 3]


def test_an_answer_that_got_lost_is_asked_for_again(cluster):
    cluster.add("a")
    fleet = Fleet(cluster, None, 60.0)
    slot = bring_up(cluster, fleet, "a")
    for error in ("ActorUnavailableError", "GetTimeoutError"):
        cluster.answers[slot.actor.question] = getattr(cluster.exceptions, error)()
        assert read(fleet) == []
    cluster.answers.clear()
    read(fleet)
    assert cluster.asked[-1] == (slot.actor.name, 1)
    assert fleet.slots == [slot]


def test_a_worker_that_dies_is_told_of_and_replaced(cluster):
    cluster.add("a")
    fleet = Fleet(cluster, None, 60.0)
    slot = bring_up(cluster, fleet, "a")
    error = cluster.exceptions.ActorDiedError("gone")
    cluster.answers[slot.actor.question] = error
    assert read(fleet) == [(slot, error)]
    fleet.replace(slot)
    fleet.replace(slot)  # twice does no harm
    assert len(fleet.slots) == 1
    assert fleet.slots[0] is not slot


def test_silence_counts_from_the_last_answer_and_only_once_placed(cluster, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    cluster.add("a", cpus=2)
    fleet = Fleet(cluster, None, 60.0)
    slot = bring_up(cluster, fleet, "a")
    clock[0] += 59
    assert fleet.silent() == []
    clock[0] += 2
    assert fleet.silent() == [slot]  # not the one that still waits for room
    cluster.answer(slot)  # nothing to tell, but alive
    read(fleet)
    assert fleet.silent() == []
    assert slot.known == 100.0  # it answered a question of then; the next one tells of now
    clock[0] += 1
    cluster.answer(slot)
    read(fleet)
    assert slot.known == 161.0


def test_nothing_waits_for_a_kill_that_does_not_return(cluster, monkeypatch):
    monkeypatch.setattr(module, "KILL_SECONDS", 0.2)
    cluster.add("a", cpus=3)
    fleet = Fleet(cluster, None, 60.0)
    slot = bring_up(cluster, fleet, "a")
    cluster.death.clear()
    fleet.replace(slot)
    fleet.close()
    assert cluster.killed == []
    cluster.death.set()


def test_a_slot_that_cannot_start_is_given_up_and_the_last_one_is_an_error(cluster):
    cluster.add("a", cpus=2)
    fleet = Fleet(cluster, None, 60.0)
    good = bring_up(cluster, fleet, "a")
    for _ in range(module.STARTS):
        slot = next(slot for slot in fleet.slots if slot is not good)
        cluster.answer(slot, Down("CorpusError: damaged"))
        read(fleet)
    fleet.adjust()
    assert fleet.slots == [good]
    cluster.add("b")  # a new node may be whole
    fleet.adjust()
    assert len(fleet.slots) == 3

    fleet = Fleet(cluster, 1, 60.0)
    with pytest.raises(ExecutorError, match=r"cannot start \(.*damaged.*installed on every node"):
        for _ in range(module.STARTS):
            cluster.answer(fleet.slots[0], Down("CorpusError: damaged"))
            read(fleet)


@pytest.mark.parametrize(
    ("cpus", "gpus", "sizes"),
    [(None, 4, (0.0, 1.0)), (2, 0, (0.5, 0.0)), (None, None, (1.0, 0.0)), (8, 4.0, (2.0, 1.0))],
)
def test_processes_have_equal_parts_of_a_slot(monkeypatch, cpus, gpus, sizes):
    monkeypatch.setattr(ray_recipe, "live_nodes", list)
    assert ray_recipe._sizes(cpus, gpus, None, 4) == sizes


def test_wrong_parts_of_a_slot_are_named():
    for gpus in (1, 0.5, 2, 8):
        with pytest.raises(ExecutorError, match="gpus_per_slot must be 4, one for each process"):
            ray_recipe._sizes(None, gpus, None, 4)
    with pytest.raises(ExecutorError, match="cpus_per_slot must be above 0"):
        ray_recipe._sizes(0, 0, None, 4)


@pytest.mark.parametrize(
    ("cpus", "gpus", "kind", "places"),
    [
        (1.0, 0.0, None, 11),
        (4.0, 0.0, None, 2),
        (0.0, 1.0, None, 6),
        (0.0, 0.5, None, 12),
        (0.0, 4.0, None, 1),
        (2.0, 2.0, None, 3),
        (0.0, 1.0, "H100", 4),
        (2.0, 1.0, "A100", 1),
        (0.0, 1.0, "B200", 0),
    ],
)
def test_places_on_nodes_of_different_kinds(cpus, gpus, kind, places):
    nodes = [
        Node("cpu", False, {"CPU": 4.0}),
        Node("small", False, {"CPU": 3.0, "GPU": 2.0, "accelerator_type:A100": 1.0}),
        Node("large", False, {"CPU": 4.0, "GPU": 4.0, "accelerator_type:H100": 1.0}),
        Node("goes", True, {"CPU": 64.0, "GPU": 8.0, "accelerator_type:H100": 1.0}),
    ]
    assert WorkerRecipe(None, None, None, cpus, gpus, kind).places(nodes) == places
    assert [str(node) for node in nodes[:2]] == ["4 CPU + 0 GPU", "3 CPU + 2 GPU (A100)"]
    for bundles in (2, 4):
        spread = WorkerRecipe(None, None, None, cpus, gpus, kind, bundles)
        assert spread.places(nodes) == places // bundles
