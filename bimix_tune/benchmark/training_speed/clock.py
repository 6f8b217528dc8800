"""When a machine is quiet enough to be timed, and what it is."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import psutil
import torch

QUIET_SECONDS, QUIET_TIMES = 0.2, 3
QUIET_SHARE = 0.1
SETTLE_SECONDS = 600.0


def settle() -> None:
    """Wait until nothing goes on in the background: code that is still compiled, for example.

    That is, until this process and those that it began have used less than `QUIET_SHARE` of a
    processor `QUIET_TIMES` in a row, but no longer than `SETTLE_SECONDS`.
    """
    until, quiet = time.monotonic() + SETTLE_SECONDS, 0
    while quiet < QUIET_TIMES and time.monotonic() < until:
        before = _busy()
        time.sleep(QUIET_SECONDS)
        quiet = quiet + 1 if _busy() - before < QUIET_SHARE * QUIET_SECONDS else 0


def _busy() -> float:
    """Processor seconds of this process and its descendants."""
    own, total = psutil.Process(), 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.Error:  # it has ended meanwhile
            continue
    return total


def machine(device: torch.device) -> str:
    """The device and the libraries, in words."""
    import transformers

    name = _processor()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return f"{name}, torch {torch.__version__}, transformers {transformers.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
