"""Where a proxy computes, in which type, and what running out of memory looks like there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from bimix_tune.errors import ConfigError, OutOfMemoryError
from bimix_tune.training.device_text import held_bytes
from bimix_tune.training.memory import TEXT_SHARE, free_memory, predict, require
from bimix_tune.training.parallel import neighbours, place

if TYPE_CHECKING:
    from bimix_tune.training.torch_trainer import TorchTrainer


HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Makes PyTorch ask Linux for pages of 2 MiB. Large arrays go back to the kernel when they are
freed and come anew, zeroed page by page, in the next step; with pages of 4 KiB that is 7,600 faults
and 7 % of a step at a vocabulary of 2k, and 89,000 and 18 % at 50k."""


def choose_device(name: str) -> torch.device:
    """The device of that name; ``"auto"`` is the first GPU if there is one, else the CPU.

    Sets `HUGE_PAGES` in the environment unless it is there. PyTorch reads it when it first
    allocates memory, so in a process that has used PyTorch before it may change nothing.

    Raises:
        ConfigError: There is no such device here.
    """
    os.environ.setdefault(HUGE_PAGES, "1")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used on this machine ({str(error).splitlines()[0]}); "
            'say "auto", "cpu" or "cuda"'
        ) from error
    return device


def compute_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32.

    A CPU without the instructions would emulate bfloat16, slower than float32.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        native = False
    return torch.bfloat16 if native else torch.float32


def now(device: torch.device) -> float:
    """Seconds to time work with: of the processor on a CPU, else of the wall, after all that was
    asked of a GPU is done.

    The wall clock of a CPU that others use too would tell of them.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Compute with one thread on a CPU, and with as many as before afterwards.

    Several proxies share a machine: with more threads each they wait for each other (14 to 19
    times slower was measured).
    """
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn every way to run out of memory into `OutOfMemoryError`.

    Args:
        what: The proxy in words: its size and batch.

    Raises:
        OutOfMemoryError: The block ran out of memory of the GPU or of the machine.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # A GPU has its own type of error; the CPU's allocator raises a plain RuntimeError.
        allocator = "DefaultCPUAllocator" in str(error) or "can't allocate memory" in str(error)
        if not (isinstance(error, (torch.OutOfMemoryError, MemoryError)) or allocator):
            raise
        raise OutOfMemoryError(
            f"{what} does not fit into memory: lower size, sequence_length or batch, or run "
            f"fewer proxies at once ({str(error).splitlines()[0] if str(error) else 'MemoryError'})"
        ) from error


def available(device: torch.device) -> int | None:
    """Bytes free on a device for a training to come; None where nobody knows."""
    if device.type == "cuda":
        # What PyTorch holds and does not use is free as well, and text can be given up.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + idle + held_bytes(device))
    return free_memory() if device.type == "cpu" else None


def check_memory(
    trainer: TorchTrainer, device: torch.device, what: str, text: int = 0, members: int = 1
) -> bool:
    """Refuse runs that need more memory than is free now.

    Args:
        trainer: What is to run, in this process or in all that share the run.
        device: Where.
        what: The proxy in words.
        text: Bytes of its training text.
        members: How many such runs share the process.

    Returns:
        Whether a GPU shall hold that text besides: if it takes a small share of what is free
        (`bimix_tune.training.memory.TEXT_SHARE`) and all fits.

    Raises:
        OutOfMemoryError: They do not fit; says the numbers.
    """
    free = available(device)
    mixed = compute_dtype(device) != torch.float32
    needs = trainer.footprint(), trainer.steps(), device.type, mixed, place()[1], members
    require(predict(*needs), free, what, neighbours(device), "processes")
    if device.type == "cpu" or free is None:
        return False
    return text <= TEXT_SHARE * free and predict(*needs, text).total <= free
