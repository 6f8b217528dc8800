"""Where a proxy computes, in which type, and what running out of memory looks like there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from bimix_tune.errors import ConfigError, OutOfMemoryError
from bimix_tune.training.memory import free_memory, predict, require

if TYPE_CHECKING:
    from bimix_tune.training.torch_trainer import TorchTrainer


def choose_device(name: str) -> torch.device:
    """The device of that name; ``"auto"`` is the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: There is no such device here.
    """
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
    """Bytes free now on a device; None where nobody knows."""
    if device.type == "cuda":
        # What PyTorch holds and does not use is free as well.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + idle)
    return free_memory() if device.type == "cpu" else None


def check_memory(trainer: TorchTrainer, device: torch.device, what: str, members: int = 1) -> None:
    """Refuse runs that need more memory than is free now.

    Args:
        trainer: What is to run.
        device: Where.
        what: The proxy in words.
        members: How many share the process.

    Raises:
        OutOfMemoryError: They do not fit; says the numbers.
    """
    mixed = compute_dtype(device) != torch.float32
    need = predict(trainer.footprint(), trainer.steps(), device.type, mixed, members)
    require(need, available(device), what)
