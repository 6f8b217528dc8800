"""Jobs on a cluster to which nodes are added, and of which one is killed and one drained."""

import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from bimix_tune.errors import ExecutorError
from bimix_tune.executors import Failed, Finished, Job, Progress, Started
from bimix_tune.executors.ray import RayExecutor
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.synthetic import SyntheticTrainer

MIXTURE = Mixture(["web"], [1.0])
LIMIT = 150.0  # seconds for anything to happen
PREEMPTION = 2  # ray.core.generated.autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION


class Log:
    """All events of an executor, whose queue it keeps filled."""

    def __init__(self, executor):
        self.executor, self.events, self.submitted = executor, [], 0

    def until(self, condition, submit=True):
        """Read events until the condition holds."""
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, self.events
            while submit and self.submitted - len(self.ended()) < 2 * self.executor.slots:
                self.executor.submit(Job(self.submitted, MIXTURE, self.submitted))
                self.submitted += 1
            self.events += self.executor.events(0.2)
            assert not any(isinstance(e, Failed) for e in self.events), self.events

    def ended(self):
        return {e.job_id for e in self.events if isinstance(e, Finished)}

    def starts(self):
        return Counter(e.job_id for e in self.events if isinstance(e, Started))

    def running(self):
        """The slot of each job under way."""
        slots = {e.job_id: e.slot for e in self.events if isinstance(e, Started)}
        return {job: slot for job, slot in slots.items() if job not in self.ended()}


@dataclass(frozen=True)
class Stumbler:
    """Its first training fails; each notes its node."""

    folder: str
    tokens = 1
    targets = ("web",)
    unit = "nats/token"

    def run(self, mixture, seed):
        node = ray.get_runtime_context().get_node_id()
        yield Checkpoint(1, notes={"node": node})
        time.sleep(1.0)  # so that the driver has seen it
        try:
            Path(self.folder, "stumbled").mkdir()
        except FileExistsError:
            return
        raise OSError(28, "No space left on device")


def fact(*words):
    print("fact:", *words, flush=True)  # noqa: T201 - for the test that started this


TRAINER = SyntheticTrainer(domains=("web",), checkpoints=5, sleep=0.4)


def nodes(cluster):
    """Nodes join, are killed and are drained."""
    with RayExecutor(TRAINER, retries=0) as executor:
        log = Log(executor)
        assert executor.slots == 1
        fact("one node: 1 slot")
        log.until(lambda: len(log.running()) == 1)
        head = set(log.running().values())

        other = cluster.add_node(num_cpus=2, num_gpus=0)
        log.until(lambda: executor.slots == 3 and len(log.running()) == 3)
        fact("another node: 3 slots")

        there = [job for job, slot in log.running().items() if slot not in head]
        cluster.remove_node(other, allow_graceful=False)
        # No retries: the loss of a node is no fault of a job's.
        log.until(lambda: executor.slots == 1 and all(log.starts()[job] == 2 for job in there))
        fact("the other node killed: its jobs began again")

        third = cluster.add_node(num_cpus=1, num_gpus=0)
        log.until(lambda: executor.slots == 2 and len(log.running()) == 2)
        gcs = ray._private.worker.global_worker.gcs_client
        accepted, why = gcs.drain_node(third.node_id, PREEMPTION, "test", 2**62)
        assert accepted, why
        log.until(lambda: executor.slots == 1)
        there = {job: slot for job, slot in log.running().items() if slot not in head}
        log.until(lambda: log.ended() >= set(there))
        begun = len(log.events)
        log.until(lambda: len(log.ended()) >= log.submitted - 1, submit=False)
        later = [e.slot for e in log.events[begun:] if isinstance(e, Started)]
        assert set(later) <= head, later
        assert all(log.starts()[job] == 1 for job in there)
        fact("a third node drained: its job ended there, and no other came")

        log.until(lambda: len(log.ended()) == log.submitted, submit=False)
        fact("all jobs finished")


def another_node(cluster):
    """A job that fails is tried elsewhere."""
    cluster.add_node(num_cpus=1, num_gpus=4)
    with RayExecutor(Stumbler(tempfile.mkdtemp()), cpus_per_slot=1, gpus_per_slot=0) as executor:
        log = Log(executor)
        log.until(lambda: executor.slots == 2)
        executor.submit(Job(0, MIXTURE, 0))
        log.until(lambda: 0 in log.ended(), submit=False)
        places = [e.checkpoint.notes["node"] for e in log.events if isinstance(e, Progress)]
        assert len(places) == len(set(places)) == 2, places
        fact("a job that failed on one node was tried on the other")


@dataclass(frozen=True)
class Noter:
    """Notes its node and takes its time."""

    tokens = 1
    targets = ("web",)
    unit = "nats/token"

    def run(self, mixture, seed):
        time.sleep(0.3)
        yield Checkpoint(1, notes={"node": ray.get_runtime_context().get_node_id()})


def gpu_types(cluster):
    """Slots on GPUs of one type, and of any."""
    node = cluster.add_node(num_cpus=1, num_gpus=2, resources={"accelerator_type:H100": 1})
    with RayExecutor(Noter(), gpu_type="H100") as executor:
        log = Log(executor)
        log.until(lambda: executor.slots == 2 and len(log.ended()) > 4)
        places = {e.checkpoint.notes["node"] for e in log.events if isinstance(e, Progress)}
        assert places == {node.node_id}
        fact("two slots with a type of GPU: on the node that has it")
    with RayExecutor(Noter(), gpus_per_slot=1) as executor:
        log = Log(executor)
        log.until(lambda: executor.slots == 6 and len(log.ended()) > 20)
        places = {e.checkpoint.notes["node"] for e in log.events if isinstance(e, Progress)}
        assert len(places) == 2
        fact("six slots without a type: on all nodes with GPUs")
    for slots in (None, 1):  # at once, or when no node of the type has come in time
        with pytest.raises(ExecutorError, match=r"1 GPU of type 'A100'.*1 CPU \+ 2 GPU \(H100"):
            RayExecutor(Noter(), gpu_type="A100", slots=slots, start_timeout=3)
    fact("a type that no node has: the error lists what there is")


def several_gpus():
    """Slots of two GPUs each."""
    with RayExecutor(TRAINER, gpus_per_slot=2) as executor:
        log = Log(executor)
        log.until(lambda: len(log.running()) == 2)
        names = sorted(slot.split("/")[1] for slot in log.running().values())
        fact("two slots of two GPUs:", *names)


if __name__ == "__main__":
    together = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    ray.init(address=together.address, logging_level="ERROR", log_to_driver=False)
    nodes(together)
    another_node(together)
    several_gpus()
    gpu_types(together)
    ray.shutdown()
    together.shutdown()
