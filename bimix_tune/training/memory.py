"""How much memory a training will take, and whether that is there, before it begins.

A run that does not fit ends late and badly: on a CPU the system kills the process, or another one.
So the need is predicted from the shape, and a run whose need is more than what is free now is
refused with the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bimix_tune.errors import OutOfMemoryError

if TYPE_CHECKING:
    import torch

CPU_WORKSPACE = 96 * 2**20
"""Bytes that PyTorch's libraries take once a CPU has trained a step: code and scratch."""
GPU_WORKSPACE = 512 * 2**20
"""Of cuBLAS, and what its allocator rounds up; the context is there when free memory is asked."""
WEIGHT, GRADIENT, MOMENTS, CAST = 4, 4, 8, 2
"""Bytes of each parameter: float32 weight and gradient, AdamW's two, a bfloat16 copy."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a training takes at its peak.

    Args:
        parts: Bytes by what they are for.
    """

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """The sum."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in self.parts.items())
        return f"{gigabytes(self.total)} ({parts})"


def predict(
    parameters: int, tokens: int, token_bytes: int, device: torch.device, mixed: bool
) -> Memory:
    """Memory of a training.

    Args:
        parameters: All of the model's.
        tokens: That pass through the model at once.
        token_bytes: Of the activations and logits of one token.
        device: Where it computes.
        mixed: Whether products are in bfloat16, so that weights are cast.
    """
    parts = {
        "weights": WEIGHT * parameters,
        "gradients": GRADIENT * parameters,
        "AdamW moments": MOMENTS * parameters,
        "bfloat16 weights": CAST * parameters if mixed else 0,
        "activations and logits": tokens * token_bytes,
        "workspace": CPU_WORKSPACE if device.type == "cpu" else GPU_WORKSPACE,
    }
    return Memory({name: size for name, size in parts.items() if size})


def available(device: torch.device) -> int | float:
    """Bytes free now on a device; infinite where nobody knows."""
    if device.type == "cuda":
        import torch

        # What the allocator holds and does not use is free as well.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + idle)
    return free_memory() if device.type == "cpu" else math.inf


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | float:
    """Bytes of main memory that this process may still take; infinite where nobody knows.

    What Linux calls available, or less if a control group (a container, a batch job) allows less.

    Args:
        proc: Where Linux tells of processes.
        groups: Where it tells of control groups, of version 1 or 2.
    """
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        memberships = (proc / "self" / "cgroup").read_text().split()
    except OSError:
        return math.inf
    facts = dict(line.split(":", 1) for line in lines)
    free = int(facts["MemAvailable"].split()[0]) * 1024
    rooms = [_room(group) for entry in memberships for group in _groups(groups, entry)]
    return max(0, min([free, *rooms]))


def _groups(root: Path, entry: str) -> list[Path]:
    """Folders of a group and of those around it, from a line of ``/proc/self/cgroup``."""
    _, controllers, path = entry.split(":", 2)
    if controllers not in ("", "memory"):
        return []
    top = root / controllers
    inner = top / path.lstrip("/")
    return [inner, *(p for p in inner.parents if p == top or top in p.parents)]


def _room(group: Path) -> int | float:
    """Bytes that a group may still take; its file cache counts as free."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            most = (group / limit).read_text().strip()
            if most == "max":
                return math.inf
            statistics = (group / "memory.stat").read_text().splitlines()
            cached = dict(line.split() for line in statistics).get("inactive_file", "0")
            return int(most) - int((group / used).read_text()) + int(cached)
        except OSError:
            continue
    return math.inf


def require(need: Memory, free: int | float, what: str, mend: str, count: int = 1) -> None:
    """Refuse what does not fit.

    Args:
        need: Of one proxy.
        free: Bytes that are free.
        what: The proxy in words.
        mend: What to lower.
        count: Proxies at once.

    Raises:
        OutOfMemoryError: They need more than is free; says both, and what to do.
    """
    if count * need.total <= free:
        return
    times = f"{count} times " if count > 1 else ""
    raise OutOfMemoryError(
        f"{what} needs {times}{need} of memory, but only {gigabytes(free)} are free: {mend}"
    )


def gigabytes(size: int | float) -> str:
    """Bytes as a person reads them.

    >>> gigabytes(1_234_567_890), gigabytes(56_700_000)
    ('1.2 GB', '0.06 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e9:.2f} GB"
