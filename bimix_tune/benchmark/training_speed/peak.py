"""How fast this machine multiplies matrices, and how many kernels a GPU runs in a step."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from bimix_tune.benchmark.training_speed.lean import PRECISIONS
from bimix_tune.benchmark.training_speed.paced import Paced
from bimix_tune.training.device import now

CPU_WIDTH, CPU_REPEATS = 2048, 3
GPU_WIDTH, GPU_REPEATS = 8192, 20


def gemm_peaks(precisions: Iterable[str], device: torch.device) -> dict[str, float]:
    """Operations a second in the product of two square matrices, by precision.

    The best of some products through `torch.matmul`: what PyTorch reaches, not the data sheet.
    """
    return {name: _peak(getattr(torch, PRECISIONS[name]), device) for name in precisions}


def _peak(dtype: torch.dtype, device: torch.device) -> float:
    on_gpu = device.type == "cuda"
    width, repeats = (GPU_WIDTH, GPU_REPEATS) if on_gpu else (CPU_WIDTH, CPU_REPEATS)
    a, b = (torch.randn(width, width, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(1 + repeats):  # the first one warms up
        began = now(device)
        torch.matmul(a, b)
        seconds.append(now(device) - began)
    return 2 * width**3 / min(seconds[1:])


def kernels_of_step(training: Paced, device: torch.device) -> int | None:
    """Kernels that a GPU runs in one step of a training; None on another device.

    Copies and fills of memory do not count.
    """
    if device.type != "cuda":
        return None
    from torch.autograd import DeviceType

    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        training.advance(1)
        torch.cuda.synchronize(device)
    return sum(
        event.device_type == DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)
        and not event.name.startswith(("Memcpy", "Memset"))
        for event in profile.events()
    )
