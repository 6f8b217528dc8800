"""A search on a cluster to which nodes are added and of which one is killed."""

import time

import ray
from ray.cluster_utils import Cluster

from bimix_tune.executors import Failed, Finished, Job, Started
from bimix_tune.executors.ray import RayExecutor
from bimix_tune.mixture import Mixture
from bimix_tune.training.synthetic import SyntheticTrainer

MIXTURE = Mixture(["web"], [1.0])
LIMIT = 150.0  # seconds for anything to happen


def until(executor, condition, events):
    """Read events until the condition holds."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, events
        events += executor.events(0.2)
        assert not any(isinstance(e, Failed) for e in events), events


def running(events):
    """The slot of each job under way."""
    slots = {}
    for event in events:
        if isinstance(event, Started):
            slots[event.job_id] = event.slot
        elif isinstance(event, Finished):
            del slots[event.job_id]
    return slots


cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)

trainer = SyntheticTrainer(domains=("web",), checkpoints=5, sleep=0.4)
with RayExecutor(trainer, retries=0) as executor:
    assert executor.slots == 1
    print("one node: 1 slot")
    events = []
    for number in range(400):
        executor.submit(Job(number, MIXTURE, number))
    until(executor, lambda: len(running(events)) == 1, events)

    other = cluster.add_node(num_cpus=2, num_gpus=0)
    until(executor, lambda: executor.slots == 3 and len(running(events)) == 3, events)
    print("another node: 3 slots")

    head, on_other = None, running(events)
    cluster.remove_node(other, allow_graceful=False)
    until(executor, lambda: executor.slots == 1, events)
    until(
        executor,
        lambda: len(running(events)) == 1 or len(set(running(events).values())) == 1,
        events,
    )
    for number in range(400):  # those that have not started, save for the last few
        if not any(isinstance(e, Started) and e.job_id == number for e in events):
            executor.stop(number)
    done = lambda: {e.job_id for e in events if isinstance(e, Finished)}
    until(executor, lambda: len(done()) == 400, events)
    again = [
        j for j in on_other if sum(isinstance(e, Started) and e.job_id == j for e in events) > 1
    ]
    assert len(again) == 2, (on_other, events)
    assert all(not e.stopped for e in events if isinstance(e, Finished) and e.job_id in on_other)
    print("the other node killed: all jobs finished")

cluster.add_node(num_cpus=0, num_gpus=4)
with RayExecutor(trainer, gpus_per_slot=2) as executor:
    executor.submit(Job(0, MIXTURE, 0))
    executor.submit(Job(1, MIXTURE, 0))
    events = []
    until(executor, lambda: len(running(events)) == 2, events)
    names = sorted(slot.split("/")[1] for slot in running(events).values())
    print("two slots of two GPUs:", *names)
ray.shutdown()
cluster.shutdown()
