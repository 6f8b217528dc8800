"""How much memory a training will take, predicted before anything is built.

A run that does not fit ends late and badly: on a CPU the system kills the process, or another one.
So what is more than what is free is refused with the numbers, before a run and, for all proxies
at once, before a search. No PyTorch is needed here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bimix_tune.errors import OutOfMemoryError
from bimix_tune.training.schedule import Steps

CPU_MICRO_BATCH = 2048
"""Tokens at once on a CPU: what fits its caches (1k to 4k were fastest on a 2 MiB L2)."""
GPU_ACTIVATIONS = 8 * 2**30
"""Bytes that the activations of one pass may take on a GPU: enough to fill it, and a fixed number
so that results do not depend on what else is on the device."""
LOGIT_BYTES = 2**28
"""Memory that the logits of `bimix_tune.training.cross_entropy` may take at once."""
CPU_WORKSPACE = 120 * 10**6
"""Bytes that PyTorch itself takes once a CPU has trained a step (measured): code and scratch."""
GPU_WORKSPACE = 512 * 2**20
"""Of cuBLAS, and what the allocator rounds up (a guess; the context counts as used already)."""
WEIGHT, GRADIENT, MOMENTS, AVERAGE, CAST = 4, 4, 8, 4, 2
"""Bytes of each parameter: float32 weight and gradient, AdamW's two, the average of the weights, a
bfloat16 copy."""
TEXT_SHARE = 0.1
"""Greatest share of a GPU's free memory that training text may take: of 80 GB, 4 billion tokens of
two bytes. Several workers may share a GPU, and each has its own copy."""
LOGIT = 6
"""Bytes of each logit: itself, its gradient and a copy, in bfloat16."""


@dataclass(frozen=True)
class Footprint:
    """What decides how much memory a proxy takes.

    Args:
        parameters: All of the model's.
        token_bytes: Activations of one token in training, with bfloat16 products, but for logits.
        vocabulary: Number of tokens.
        chunked: Whether no more logits exist at once than `LOGIT_BYTES` hold.
    """

    parameters: int
    token_bytes: int
    vocabulary: int
    chunked: bool = False

    @property
    def pass_bytes(self) -> int:
        """What a pass through the model takes for each of its tokens."""
        return self.token_bytes + (0 if self.chunked else LOGIT * self.vocabulary)

    def logits(self, tokens: int) -> int:
        """Bytes of the logits in a pass of so many tokens."""
        at_once = LOGIT_BYTES // (2 * self.vocabulary) if self.chunked else tokens
        return LOGIT * self.vocabulary * min(tokens, at_once)


@dataclass(frozen=True)
class Memory:
    """Bytes that a training takes at its peak, by what they are for."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """The sum."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in self.parts.items())
        return f"{gigabytes(self.total)} ({parts})"


def micro_batch(steps: Steps, token_bytes: int, device: str, processes: int = 1) -> int:
    """Sequences to push through the model at once: equal parts of a process's rows that fit.

    Args:
        steps: Batch and sequence length.
        token_bytes: What a pass takes for each of its tokens.
        device: Type of the device.
        processes: How many share a batch.
    """
    tokens = CPU_MICRO_BATCH if device == "cpu" else GPU_ACTIVATIONS // token_bytes
    rows = -(-steps.batch // processes)
    limit = max(1, min(rows, tokens // steps.sequence_length))
    parts = -(-rows // limit)
    return -(-rows // parts)


def predict(
    footprint: Footprint,
    steps: Steps,
    device: str,
    mixed: bool,
    processes: int = 1,
    members: int = 1,
    text: int = 0,
) -> Memory:
    """Memory of a training, or of several at once, in each process that has a share of it.

    On a CPU 0.9 to 1.6 times what is measured; without bfloat16 products, activations are counted
    twice, which is a little too much.

    Args:
        footprint: Of the model.
        steps: Batch and sequence length.
        device: Type of the device.
        mixed: Whether products are in bfloat16, so that weights are cast.
        processes: How many share a batch.
        members: How many compute together; see `bimix_tune.training.ensemble`.
        text: Bytes of training text that the device holds.
    """
    p, size = footprint.parameters, 1 if mixed else 2
    rows = micro_batch(steps, footprint.pass_bytes, device, processes)
    tokens = rows * steps.sequence_length
    chunked = footprint.chunked and members == 1  # a compiled common pass has all at once
    # A CUDA graph keeps those of each pass, and their sum over several passes is elsewhere.
    in_graph_too = device != "cpu" and rows * processes < steps.batch
    parts = {
        "weights": WEIGHT * p,
        "gradients": GRADIENT * p * (2 if in_graph_too else 1),
        "AdamW moments": MOMENTS * p,
        "bfloat16 weights": CAST * p if mixed else 0,
        "average of the weights": AVERAGE * p,
        "copies for a common pass": (WEIGHT + GRADIENT) * p if members > 1 else 0,
        "activations": tokens * footprint.token_bytes * size,
        "logits": replace(footprint, chunked=chunked).logits(tokens) * size,
    }
    once = {
        "training text": text,
        "PyTorch": CPU_WORKSPACE if device == "cpu" else GPU_WORKSPACE,
    }
    sizes = {name: members * size for name, size in parts.items()} | once
    return Memory({name: size for name, size in sizes.items() if size})


def require(
    need: Memory, free: int | None, what: str, count: int = 1, option: str = "executor.slots"
) -> None:
    """Refuse what does not fit.

    Args:
        need: Of one proxy, or one process of it.
        free: Bytes that are free; None where nobody knows, which refuses nothing.
        what: The proxy in words.
        count: How many at once.
        option: What decides how many.

    Raises:
        OutOfMemoryError: They need more than is free; says both, and what to lower.
    """
    if free is None or count * need.total <= free:
        return
    if count == 1:
        whole, fewer = f"{need}", ""
    else:
        whole = f"{gigabytes(count * need.total)}: {count} at once, {need} each"
        fits = free // need.total
        fewer = f"{option} to {fits}, or " if fits else ""
    raise OutOfMemoryError(
        f"{what} needs {whole} of memory, but {gigabytes(free)} are free: "
        f"lower {fewer}size, the vocabulary, batch_tokens or sequence_length"
    )


def gigabytes(size: int) -> str:
    """Bytes as a person reads them.

    >>> gigabytes(12_345_678_901), gigabytes(56_700_000)
    ('12.3 GB', '0.06 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e9:.2f} GB"


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of main memory that this process may still take; None where nobody knows.

    On Linux what it calls available, or less if a control group (a container, a batch job) allows
    less; elsewhere all that the machine has.

    Args:
        proc: Where Linux tells of processes.
        groups: Where it tells of control groups, of version 1 or 2.
    """
    try:
        lines = (proc / "meminfo").read_text(encoding="utf-8").splitlines()
        entries = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return _whole_memory()
    facts = dict(line.split(":", 1) for line in lines)
    free = int(facts["MemAvailable"].split()[0]) * 1024
    rooms = [_room(group) for entry in entries for group in _groups(groups, entry)]
    return max(0, min([free, *(room for room in rooms if room is not None)]))


def _whole_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        return None


def _groups(root: Path, entry: str) -> list[Path]:
    """Folders of a group and of those around it, from a line of ``/proc/self/cgroup``.

    In a container the path may be one that only the host sees; then its own root counts.
    """
    _, controllers, path = entry.split(":", 2)
    if controllers not in ("", "memory"):
        return []
    top = root / controllers
    inner = top / path.lstrip("/")
    return [inner, *(p for p in inner.parents if p == top or top in p.parents)]


def _room(group: Path) -> int | None:
    """Bytes that a group may still take, its file cache counted as free; None without limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            most = (group / limit).read_text(encoding="utf-8").strip()
            if most == "max":
                return None
            lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
            cached = dict(line.split() for line in lines).get("inactive_file", "0")
            return int(most) - int((group / used).read_text(encoding="utf-8")) + int(cached)
        except OSError:
            continue
    return None
