"""How a worker is started, and where in the cluster there is room for one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bimix_tune.errors import ExecutorError, one_line
from bimix_tune.executors.ray_cluster import ray
from bimix_tune.executors.ray_corpus import CorpusSource
from bimix_tune.executors.ray_group import Spread, in_bundle
from bimix_tune.executors.ray_worker import RayWorker
from bimix_tune.training.base import Trainer
from bimix_tune.training.torch_trainer import TorchTrainer

TYPE = "accelerator_type:"
"""How Ray's resource begins that says of which type the GPUs of a node are."""
TYPE_SHARE = 0.001
"""Of that resource, which an actor of a type asks for."""


@dataclass(frozen=True)
class Node:
    """A live machine of the cluster.

    Args:
        id: Ray's name for it.
        leaving: It is being drained, by an autoscaler or ahead of a spot preemption: it takes
            no new worker, and goes soon.
        resources: What it has when it is empty.
    """

    id: str
    leaving: bool
    resources: Mapping[str, float]

    def __str__(self) -> str:
        types = [name.removeprefix(TYPE) for name in self.resources if name.startswith(TYPE)]
        kind = f" ({', '.join(sorted(types))})" if types else ""
        return f"{self.resources.get('CPU', 0):g} CPU + {self.resources.get('GPU', 0):g} GPU{kind}"


def live_nodes() -> list[Node]:
    """All nodes that Ray takes for alive."""
    draining = _draining()
    return [
        Node(node["NodeID"], node["NodeID"] in draining, node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]


def _draining() -> Mapping[str, int]:
    """Ids of the nodes that are being drained; Ray has no public name for this."""
    module = getattr(getattr(ray, "_private", None), "state", None)
    draining = getattr(getattr(module, "state", None), "get_draining_nodes", dict)
    return draining()  # type: ignore[no-any-return, unused-ignore]


@dataclass(frozen=True)
class WorkerRecipe:
    """How to start a worker.

    A slot of several GPUs is one actor that reserves them: Ray puts an actor on one node as a
    whole, which is what a placement group of one bundle, or several under STRICT_PACK, would
    do. A slot that may lie on several nodes is a group, see `bimix_tune.executors.ray_group`.

    Args:
        kind: `RayWorker` as a Ray actor class.
        trainer: Reference to the trainer in Ray's object store.
        corpus: Where the trainer's corpus can be fetched, if it has one.
        cpus: CPU cores that a worker, or each bundle of a group, reserves.
        gpus: GPUs (or a fraction of one) that it reserves.
        gpu_type: Type that they must be of, as Ray calls it; None takes any.
        bundles: How many a slot has, if it is a group.
    """

    kind: Any
    trainer: Any
    corpus: CorpusSource | None
    cpus: float
    gpus: float
    gpu_type: str | None = None
    bundles: int | None = None

    @classmethod
    def of(
        cls,
        trainer: Trainer,
        cpus: float | None,
        gpus: float | None,
        gpu_type: str | None = None,
        spread: bool = False,
    ) -> WorkerRecipe:
        """Send the trainer to the cluster and settle the size of a worker.

        Raises:
            ExecutorError: The trainer does not pickle, a size is negative or no size that Ray
                takes, a type is asked for where no GPU is, or there are no processes to spread.
        """
        shared = _shared(trainer) if spread else None
        bundles = shared.processes if shared else None
        cpus, gpus = _sizes(cpus, gpus, gpu_type, bundles)
        corpus = CorpusSource.of(trainer)
        try:
            whole = Spread(shared, corpus, _options(cpus, gpus, gpu_type)) if shared else trainer
            reference = ray.put(whole)
        except Exception as error:
            raise ExecutorError(
                f"the trainer {type(trainer).__name__} cannot be sent to a Ray worker "
                f"({one_line(error)}); it must be a small value that pickles"
            ) from error
        if bundles:
            kind = _actor_class(0.0, 0.0)
            return cls(kind, reference, None, cpus, gpus, gpu_type, bundles)
        kind = _actor_class(cpus, gpus, gpu_type)
        return cls(kind, reference, corpus, cpus, gpus, gpu_type)

    def start(self) -> tuple[Any, Any]:
        """A new worker, which Ray places when there is room, and its placement group if any."""
        if not self.bundles:
            return self.kind.remote(self.trainer, self.corpus), None
        bundle = {k: n for k, n in (("CPU", self.cpus), ("GPU", self.gpus)) if n}
        if self.gpu_type is not None:
            bundle[TYPE + self.gpu_type] = TYPE_SHARE
        group = ray.util.placement_group([bundle] * self.bundles, strategy="PACK")
        return self.kind.options(**in_bundle(group, 0)).remote(self.trainer, self.corpus), group

    def places(self, nodes: Iterable[Node]) -> int:
        """How many such workers the nodes hold when they are empty; none on one that leaves."""
        needs = [(k, n) for k, n in (("CPU", self.cpus), ("GPU", self.gpus)) if n]
        wanted = set() if self.gpu_type is None else {TYPE + self.gpu_type}
        rooms = sum(
            min((int(node.resources.get(k, 0) / n + 1e-9) for k, n in needs), default=1)
            for node in nodes
            if not node.leaving and wanted <= node.resources.keys()
        )
        return rooms // (self.bundles or 1)

    def __str__(self) -> str:
        kind = f" of type {self.gpu_type!r}" if self.gpu_type else ""
        times = f"{self.bundles} times " if self.bundles else ""
        return (
            f"a slot needs {times}{self.cpus:g} CPU + {self.gpus:g} GPU{kind}, "
            f"the nodes of the cluster have {[str(node) for node in live_nodes()]}"
        )


def _shared(trainer: Trainer) -> TorchTrainer:
    """The trainer, if several processes share its runs."""
    if not isinstance(trainer, TorchTrainer) or trainer.processes < 2:
        raise ExecutorError(
            "spread is for runs that several processes share, but those of this "
            f"{type(trainer).__name__} have one: set its `processes`, or leave `spread` out"
        )
    return trainer


def _sizes(
    cpus: float | None, gpus: float | None, gpu_type: str | None, bundles: int | None
) -> tuple[float, float]:
    """CPU cores and GPUs of a worker, or of each bundle of a group."""
    for name, value in (("cpus_per_slot", cpus), ("gpus_per_slot", gpus)):
        if value is not None and value < 0:
            raise ExecutorError(f"{name} must not be negative, but got {value!r}")
    if gpu_type is not None and gpus == 0:
        raise ExecutorError(
            f"gpu_type is {gpu_type!r}, but gpus_per_slot is 0: ask for a GPU, or leave out "
            "its type"
        )
    if bundles:
        if gpus not in (None, 0, bundles):
            raise ExecutorError(
                f"gpus_per_slot must be {bundles}, one for each process of a run that is "
                f"spread, or 0, but got {gpus!r}"
            )
        cpus, gpus = (None if n is None else n / bundles for n in (cpus, gpus))
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        raise ExecutorError(f"gpus_per_slot must be whole where above 1, but got {gpus!r}")
    if gpus is None:
        found = any(node.resources.get("GPU", 0) > 0 for node in live_nodes())
        gpus = 1.0 if gpu_type or found else 0.0
    if cpus is None:
        cpus = 0.0 if gpus else 1.0
    if bundles and not cpus and not gpus:
        raise ExecutorError("cpus_per_slot must be above 0 where a run is spread without GPUs")
    return cpus, gpus


def _actor_class(cpus: float, gpus: float, gpu_type: str | None = None) -> Any:
    """`RayWorker` as an actor; `RayWorker.news` waits in a thread of its own."""
    groups = {"news": 1, "orders": 1}
    return ray.remote(concurrency_groups=groups, **_options(cpus, gpus, gpu_type))(RayWorker)


def _options(cpus: float, gpus: float, gpu_type: str | None) -> dict[str, Any]:
    """Of an actor that trains."""
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0}
    if gpu_type is not None:
        options["accelerator_type"] = gpu_type
    if not gpus:  # workers share the cores, so none may start a thread per core
        threads = str(max(1, int(cpus)))
        env = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        options["runtime_env"] = {"env_vars": {**env, "OMP_WAIT_POLICY": "passive"}}
    return options
