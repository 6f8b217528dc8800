"""One training on several nodes: each of its processes is an actor with a place of its own.

A slot is then a placement group with a bundle for each process, packed onto as few nodes as can
hold them. Its worker, in the first bundle, needs no resources itself: it starts the processes of
each run, hands on what the first one yields, and ends them. Ray ends them too if it dies.

On GPUs the processes talk by NCCL, which finds its way between machines. On CPUs it is Gloo, to
which each machine is known by its host name: where that means the loopback interface, the
environment variable ``GLOO_SOCKET_IFNAME`` must name another one.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bimix_tune.executors.ray_cluster import ray
from bimix_tune.executors.ray_corpus import CorpusSource
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint

if TYPE_CHECKING:
    from bimix_tune.training.torch_trainer import TorchTrainer


def in_bundle(group: Any, bundle: int) -> dict[str, Any]:
    """Options of an actor that goes into a bundle of a placement group."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, bundle)}


@dataclass(frozen=True)
class Spread:
    """Runs a trainer in the processes of the placement group that the caller is in.

    Args:
        trainer: With as many ``processes`` as the group has bundles.
        corpus: Where the trainer's corpus comes from on a node that does not have it.
        options: Of the actor that is a process.
    """

    trainer: TorchTrainer
    corpus: CorpusSource | None
    options: Mapping[str, Any] = field(hash=False)

    def run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """Train; closing it ends the processes.

        Yields:
            The checkpoints of the first process.

        Raises:
            BimixError: As the trainer does in one process.
            ray.exceptions.RayError: A process or its node was lost.
        """
        group, kind = ray.util.get_current_placement_group(), ray.remote(**self.options)(Member)
        members = [
            kind.options(**in_bundle(group, rank)).remote(self.trainer, self.corpus)
            for rank in range(self.trainer.processes)
        ]
        try:
            meeting = ray.get(members[0].meeting_point.remote())
            yield from _yields(
                member.run.options(num_returns="streaming").remote(mixture, seed, rank, meeting)
                for rank, member in enumerate(members)
            )
        finally:
            for member in members:
                ray.kill(member)


class Member:
    """One process of a run.

    Args:
        trainer: Of the whole run.
        corpus: Where its corpus comes from if this node does not have it.
    """

    def __init__(self, trainer: TorchTrainer, corpus: CorpusSource | None) -> None:
        self._trainer, self._corpus = trainer, corpus

    def meeting_point(self) -> str:
        """An address at which the first process can wait for the others."""
        host = ray.util.get_node_ip_address()
        with socket.create_server((host, 0)) as free:
            return f"tcp://{host}:{free.getsockname()[1]}"

    def run(self, mixture: Mixture, seed: int, rank: int, meeting: str) -> Iterator[Checkpoint]:
        """The process's part of the run; the first one yields its checkpoints."""
        from bimix_tune.training.group import member

        here = self._corpus.bring_to(self._trainer) if self._corpus else self._trainer
        for checkpoint in member(here, mixture, seed, rank, meeting):
            if rank == 0:
                yield checkpoint


def _yields(streams: Iterator[Any]) -> Iterator[Checkpoint]:
    """What any of the streams yields, until all have ended or one has failed."""
    waiting = list(streams)
    while waiting:
        (stream,), waiting = ray.wait(waiting)
        try:
            checkpoint = ray.get(next(stream))
        except StopIteration:
            continue
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        waiting.append(stream)
        yield checkpoint
