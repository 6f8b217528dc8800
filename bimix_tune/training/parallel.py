"""A training that several processes share: who takes which rows, and how sums come together.

Alone, a process takes all rows and nothing is exchanged. `bimix_tune.training.group` starts the
processes.
"""

from __future__ import annotations

import dataclasses
import platform
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from bimix_tune.training.step import Proxy


def place() -> tuple[int, int]:
    """Rank of this process and number of processes in the training; (0, 1) alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def own_rows(rows: Tensor, filler: int) -> Tensor:
    """Every process's share of the rows of a batch, of equal length: (ceil(B / processes), S).

    Args:
        rows: Rows of the whole batch, (B, S).
        filler: What the rows that are missing at the end consist of.
    """
    rank, size = place()
    return padded(rows, len(rows) + -len(rows) % size, filler)[rank::size]


def padded(rows: Tensor, count: int, filler: int) -> Tensor:
    """Rows with rows of a filler behind, (count, S).

    Micro batches need it too: a compiled loss and a CUDA graph know one shape only.
    """
    missing = count - len(rows)
    return F.pad(rows, (0, 0, 0, missing), value=filler) if missing else rows


def neighbours(device: torch.device) -> int:
    """How many processes of the training have their memory in common, this one included.

    On CPUs all that are on one machine; every GPU has its own. None goes on before all have asked,
    so what each saw of that memory before, it saw before any took some.
    """
    size = place()[1]
    if size == 1 or device.type != "cpu":
        return 1
    machines = [""] * size
    dist.all_gather_object(machines, platform.node())
    return machines.count(platform.node())


def agreed(value: object) -> bool:
    """Whether all processes have the same value."""
    values = [value] * place()[1]
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return all(other == value for other in values)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, on each of them."""
    if place()[1] > 1:
        dist.all_reduce(values)
    return values


class _Loss(nn.Module):
    """The loss of a proxy as a module's forward pass, which DistributedDataParallel needs."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self.module = proxy.module
        self._loss = proxy.loss

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return self._loss(inputs, labels)


def shared(proxy: Proxy) -> Proxy:
    """The proxy with gradients that are averaged over all processes; alone, as it is."""
    if place()[1] == 1:
        return proxy
    devices = None if proxy.device.type == "cpu" else [proxy.device]
    loss = DistributedDataParallel(_Loss(proxy), device_ids=devices)
    return dataclasses.replace(proxy, loss=loss)
