"""One training on several GPUs of a machine: a process for each, each with a share of every batch.

For the large runs that confirm a search. Proxies do not need it: several of them use several
GPUs better than one of them does. Every process reads the same order of text and trains on its
own rows of each batch; PyTorch's DistributedDataParallel adds up their gradients, so the
training is that of one process but for the order of sums. `run_group` starts the processes on
this machine; whoever has several machines starts a `member` on each.
"""

from __future__ import annotations

import dataclasses
import queue
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.distributed.nn  # its default arguments keep the group, if there is one by then
import torch.multiprocessing as mp

from bimix_tune import errors
from bimix_tune.errors import BimixError, TrainingError
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.device import choose_device

if TYPE_CHECKING:
    from bimix_tune.training.torch_trainer import TorchTrainer

POLL_SECONDS = 0.5
"""How often a silent group is looked after."""


@dataclass(frozen=True)
class Failure:
    """An error that the trainer explains, on its way to the parent process."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: BimixError) -> Failure:
        """What is sent of an error."""
        return cls(type(error).__name__, str(error))

    def error(self) -> BimixError:
        """The error again, where it arrives."""
        kind: type[BimixError] = getattr(errors, self.kind, TrainingError)
        return kind(self.message)


def run_group(trainer: TorchTrainer, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
    """Train in ``trainer.processes`` processes of this machine; closing it ends them.

    Yields:
        The checkpoints of the first process.

    Raises:
        BimixError: As the trainer does in one process.
        TrainingError: A process died.
    """
    context = mp.get_context("spawn")
    messages: Any = context.Queue()
    with tempfile.TemporaryDirectory(prefix="bimix-tune-") as folder:
        arguments = (trainer, mixture, seed, f"file://{Path(folder) / 'meeting-point'}", messages)
        group = mp.start_processes(
            _member, arguments, trainer.processes, join=False, start_method="spawn"
        )
        try:
            yield from _messages(group, messages)
        finally:
            for process in group.processes:
                process.terminate()
            for process in group.processes:
                process.join()


def _messages(group: Any, messages: Any) -> Iterator[Checkpoint]:
    """What the group says, until all its processes have ended in order."""
    ended = False
    while True:
        try:
            message = messages.get(timeout=0.0 if ended else POLL_SECONDS)
        except queue.Empty:
            if ended:
                return
            ended = _ended(group)
            continue
        if isinstance(message, Failure):
            raise message.error()
        yield message


def _ended(group: Any) -> bool:
    try:
        return bool(group.join(timeout=0.0))
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        line = [line for line in str(error).splitlines() if line.strip()][-1]
        raise TrainingError(f"a process of the training died: {line.strip()}") from error


def _member(
    rank: int, trainer: TorchTrainer, mixture: Mixture, seed: int, meeting: str, messages: Any
) -> None:
    """One process of the group."""
    try:
        for checkpoint in member(trainer, mixture, seed, rank, meeting):
            if rank == 0:
                messages.put(checkpoint)
    except BimixError as error:
        messages.put(Failure.of(error))
        messages.close()
        messages.join_thread()


def member(
    trainer: TorchTrainer, mixture: Mixture, seed: int, rank: int, meeting: str
) -> Iterator[Checkpoint]:
    """Train in this process as one of ``trainer.processes``.

    Args:
        trainer: Of the whole run.
        mixture: See `bimix_tune.training.base.Trainer.run`.
        seed: See there.
        rank: Number of this process, from 0.
        meeting: Where the processes meet: an ``init_method`` of PyTorch.

    Yields:
        Checkpoints, with the same losses in every process.

    Raises:
        BimixError: As the trainer does alone.
    """
    device = choose_device(trainer.device)
    if device.type == "cuda":
        device = torch.device("cuda", rank % torch.cuda.device_count())  # of those it may see
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=meeting,
        rank=rank,
        world_size=trainer.processes,
    )
    try:
        yield from dataclasses.replace(trainer, processes=1, device=str(device)).run(mixture, seed)
    finally:
        dist.destroy_process_group()
