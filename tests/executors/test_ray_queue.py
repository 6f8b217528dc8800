"""Which job a worker gets, and how often one is tried."""

from __future__ import annotations

import pytest

from bimix_tune.executors import Job
from bimix_tune.executors.ray_queue import LOST_NODES, JobQueue
from bimix_tune.mixture import Mixture

MIXTURE = Mixture(["web"], [1.0])


@pytest.fixture
def queue():
    queue = JobQueue(retries=2)
    for number in range(3):
        queue.add(Job(number, MIXTURE, 0))
    return queue


def taken(queue, node, nodes):
    job = queue.take(node, nodes)
    return None if job is None else job.id


def test_jobs_are_taken_in_order_and_returned_ones_first(queue):
    assert taken(queue, "a", {"a"}) == 0
    queue.add_first(Job(0, MIXTURE, 0))
    assert [taken(queue, "a", {"a"}) for _ in range(4)] == [0, 1, 2, None]


def test_a_job_avoids_the_nodes_where_it_broke_off_while_there_are_others(queue):
    queue.broke_off(0, "a", lost=False)
    assert taken(queue, "a", {"a", "b"}) == 1
    assert taken(queue, "b", {"a", "b"}) == 0
    queue.add_first(Job(0, MIXTURE, 0))
    queue.broke_off(0, "b", lost=False)
    assert taken(queue, "a", {"a", "b"}) == 0  # it broke off everywhere
    queue.add_first(Job(0, MIXTURE, 0))
    assert taken(queue, "b", {"a", "b", "c"}) == 2  # until a third node came
    assert taken(queue, "c", {"a", "b", "c"}) == 0


def test_tries_are_bounded(queue):
    assert [queue.broke_off(0, "a", lost=False) for _ in range(3)] == [True, True, False]
    assert queue.tries(0) == 3
    queue.forget(0)
    assert queue.broke_off(0, "a", lost=False)


def test_a_lost_node_is_no_fault_of_the_job_but_ten_are_too_many(queue):
    lost = [queue.broke_off(0, "a", lost=True) for _ in range(LOST_NODES + 1)]
    assert lost == [True] * LOST_NODES + [False]
    queue = JobQueue(retries=0)
    assert queue.broke_off(0, "a", lost=True)
    assert not queue.broke_off(0, "a", lost=False)


def test_only_a_waiting_job_is_removed(queue):
    assert queue.remove(1)
    assert not queue.remove(1)
    assert len(queue) == 2
    queue.clear()
    assert not queue
