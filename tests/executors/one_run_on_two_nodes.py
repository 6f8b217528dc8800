"""A run that two nodes of one core share; it is stopped, and loses a node."""

import os
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from bimix_tune.benchmark.training_speed.text import DOMAINS, write_text
from bimix_tune.errors import ExecutorError
from bimix_tune.executors import Failed, Finished, Job, Progress, Retried
from bimix_tune.executors.ray import RayExecutor
from bimix_tune.mixture import Mixture
from bimix_tune.training.llama import LlamaTrainer

MIXTURE = Mixture(DOMAINS, [0.5, 0.3, 0.2])
LIMIT = 300.0  # seconds for anything to happen


def fact(*words):
    print("fact:", *words, flush=True)  # noqa: T201 - for the test that started this


def trainer(corpus, **options):
    chosen = {"tokens": 4096, "size": "0.1M", "sequence_length": 16, "batch_tokens": 128}
    return LlamaTrainer(corpus=corpus, device="cpu", **{**chosen, "compile": "never", **options})


def until(executor, events, condition):
    """Read events until one meets the condition."""
    end = time.monotonic() + LIMIT
    while not any(condition(event) for event in events):
        assert time.monotonic() < end, events
        events += executor.events(0.5)
        assert not any(isinstance(e, Failed) for e in events), events


def nodes_in_use():
    """Nodes of the bundles of each placement group that there is."""
    table = ray.util.placement_group_table().values()
    groups = [group for group in table if group["state"] != "REMOVED"]
    return [set(group["bundles_to_node_id"].values()) for group in groups]


def shares_a_run(cluster, corpus):
    """The losses are those of one process, from two nodes."""
    alone = {c.tokens: c.losses for c in trainer(corpus).run(MIXTURE, 0) if c.losses}
    with RayExecutor(trainer(corpus, processes=2), spread=True) as executor:
        assert executor.slots == 1
        executor.submit(Job(0, MIXTURE, 0))
        events = []
        until(executor, events, lambda e: isinstance(e, Finished))
        (nodes,) = nodes_in_use()
        assert len(nodes) == 2
    points = [e.checkpoint for e in events if isinstance(e, Progress) and e.checkpoint.losses]
    assert {c.tokens for c in points} == alone.keys(), events
    for point in points:
        for name, loss in alone[point.tokens].items():
            assert abs(point.losses[name] / loss - 1) < 1e-2  # bfloat16, another order of sums
    fact("two nodes of one core shared a run of two processes")


def recovers_and_stops(cluster, corpus, second):
    """A node that is lost costs a try; a stop frees the nodes."""
    long = trainer(corpus, processes=2, tokens=10**9)
    with RayExecutor(long, spread=True, retries=1) as executor:
        executor.submit(Job(0, MIXTURE, 0))
        until(executor, [], lambda e: isinstance(e, Progress))
        cluster.remove_node(second, allow_graceful=False)
        until(executor, [], lambda e: isinstance(e, Retried))
        cluster.add_node(num_cpus=1, num_gpus=0)
        until(executor, [], lambda e: isinstance(e, Progress))
        fact("a run that lost a node began again with another")
        executor.stop(0)
        until(executor, [], lambda e: e == Finished(0, stopped=True))
        fact("it was stopped")
    end = time.monotonic() + LIMIT
    while nodes_in_use():
        assert time.monotonic() < end
        time.sleep(0.2)
    fact("nothing is reserved any more")


if __name__ == "__main__":
    os.environ.update(RAY_worker_niceness="0")  # else other work on the machine comes first
    text = write_text(Path(sys.argv[1]), 64, 6_000, 1_500)
    (text / "tokenizer.json").touch()
    together = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    another = together.add_node(num_cpus=1, num_gpus=0)
    ray.init(address=together.address, logging_level="ERROR", log_to_driver=False)
    for processes, gpus, message in (
        (1, None, "have one: set its `processes`"),
        (2, 1, "gpus_per_slot must be 2, one for each process"),
    ):
        try:
            RayExecutor(trainer(text, processes=processes), spread=True, gpus_per_slot=gpus)
        except ExecutorError as error:
            assert message in str(error), error
            fact("refused:", message)
    shares_a_run(together, text)
    recovers_and_stops(together, text, another)
    ray.shutdown()
    together.shutdown()
