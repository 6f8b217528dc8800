"""A simulated training that goes wrong on cue.

A cue is a file in a folder that all workers see. The first training that comes across it
takes it, by renaming it to its own name, so that each cue does harm once, wherever the
training runs and however often it is tried again. `place_cue` may be called at any time.

The faults are the real ones where that does no harm to the machine: the process is killed or
stopped, memory is filled, PyTorch's own error is raised and a state on disk is damaged.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from bimix_tune.errors import ConfigError, DivergedError, did_you_mean
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.synthetic import SyntheticTrainer
from bimix_tune.training.torch_trainer import run_name

if TYPE_CHECKING:
    from bimix_tune.training.state import StateFile

HOST_MEMORY = "host memory"
MEMORY_LIMIT = "RAY_memory_usage_threshold"
"""Ray's variable for the share of a machine's memory beyond which it ends a worker."""
FAULTS = {
    "crash": "the process ends at once, as by `kill -9`",
    "raise": "an error that the trainer does not explain",
    "hang": "no yield ever again",
    "freeze": "the whole process stops answering, as if the network were cut",
    "diverge": "the loss is no number, and the trainer says so",
    "nan": "a loss is NaN, and the trainer does not notice",
    "gpu memory": "PyTorch finds no room on the GPU",
    "disk": "no space is left on the device",
    "damaged state": "the process ends, and the state that it leaves on disk has a wrong number",
    HOST_MEMORY: "memory is filled until Ray ends the process, at most `memory` bytes; only on a "
    f"node that was started with a limit of its own, {MEMORY_LIMIT}",
}


def place_cue(folder: Path, fault: str) -> Path:
    """Let one training that is under way or yet to come meet a fault.

    Returns:
        The cue. Once it is taken, the name of the training follows its own, see `taken_cues`.

    Raises:
        ConfigError: There is no such fault.
    """
    if fault not in FAULTS:
        raise ConfigError(f"unknown fault {fault!r}" + did_you_mean(fault, FAULTS))
    folder.mkdir(parents=True, exist_ok=True)
    cue = folder / f"{fault}.{uuid4().hex}.cue"
    cue.touch()
    return cue


def taken_cues(folder: Path) -> dict[str, list[str]]:
    """Faults met so far, in order, by the `run_name` of the training."""
    met: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.taken-*"), key=lambda p: p.stat().st_mtime):
        met.setdefault(path.name.rpartition(".taken-")[2], []).append(path.name.partition(".")[0])
    return met


@dataclass(frozen=True, kw_only=True)
class FaultyTrainer(SyntheticTrainer):
    """A `SyntheticTrainer` that looks for a cue before each checkpoint.

    Args:
        cues: Folder of the cues, and of the states that runs leave.
        memory: Most bytes that the fault "host memory" takes.
    """

    cues: str | Path
    memory: int = 1 << 30

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "cues", Path(self.cues).absolute())

    def run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """Yield the curve of one run, from a state of it if there is one, until a cue is met."""
        name = run_name(mixture, seed)
        curve = self._kept(name)
        yield from curve
        for checkpoint in islice(super().run(mixture, seed), len(curve), None):
            curve.append(checkpoint)
            fault = self._take(name)
            yield self._happen(fault, name, curve) if fault else checkpoint

    def _take(self, run: str) -> str | None:
        for cue in sorted(Path(self.cues).glob("*.cue")):
            fault = cue.name.partition(".")[0]
            if fault == HOST_MEMORY and MEMORY_LIMIT not in os.environ:
                continue
            taken = cue.with_suffix(f".taken-{run}")
            try:
                cue.rename(taken)
            except FileNotFoundError:  # another training was faster
                continue
            os.utime(taken)
            return fault
        return None

    def _happen(self, fault: str, run: str, curve: Sequence[Checkpoint]) -> Checkpoint:
        checkpoint = curve[-1]
        match fault:
            case "crash":
                os._exit(13)
            case "raise":
                raise ZeroDivisionError("division by zero, on cue")
            case "hang":
                while True:
                    time.sleep(3600)
            case "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "diverge":
                raise DivergedError(f"the loss is nan after {checkpoint.tokens} tokens, on cue")
            case "nan":
                return Checkpoint(checkpoint.tokens, dict.fromkeys(checkpoint.losses, float("nan")))
            case "gpu memory":
                _find_no_room()
            case "disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoint, on cue")
            case "damaged state":
                self._leave_damaged(run, curve)
                os._exit(13)
            case "host memory":
                _fill(self.memory)
        return checkpoint

    def _state_file(self, run: str) -> StateFile:
        from bimix_tune.training.state import StateFile

        return StateFile(self._state_path(run), {"run": run})

    def _state_path(self, run: str) -> Path:
        return Path(self.cues) / "states" / f"{run}.safetensors"

    def _kept(self, run: str) -> list[Checkpoint]:
        """What a state on disk holds of a run, if it is whole."""
        if not self._state_path(run).exists():  # nothing that would need PyTorch
            return []
        state = self._state_file(run).read()
        return [] if state is None else list(state.curve)

    def _leave_damaged(self, run: str, curve: Sequence[Checkpoint]) -> None:
        """Write the state of a run, and then another first digit to its last loss."""
        import torch

        from bimix_tune.training.state import State

        tensors = {"weights.none": torch.zeros(1)}
        self._state_file(run).write(State(len(curve), {}, tuple(curve), {}, tensors))
        loss = repr(list(curve[-1].losses.values())[-1]).encode()
        digit = b"1" if loss.startswith(b"9") else b"9"
        path = self._state_path(run)
        path.write_bytes(path.read_bytes().replace(loss, digit + loss[1:]))


def _find_no_room() -> None:
    """What a trainer makes of PyTorch's error.

    Raises:
        OutOfMemoryError: Always.
    """
    import torch

    from bimix_tune.training.device import memory_errors

    with memory_errors("the proxy"):
        raise torch.OutOfMemoryError("CUDA out of memory, on cue")


def _fill(size: int, chunk: int = 1 << 26, pause: float = 0.1) -> None:
    """Take memory piece by piece, so that whoever watches over it has time to act.

    Raises:
        MemoryError: Nobody did.
    """
    taken = []
    for _ in range(size // chunk):
        piece = mmap.mmap(-1, chunk)
        for page in range(0, chunk, mmap.PAGESIZE):
            piece[page] = 1
        taken.append(piece)
        time.sleep(pause)
    time.sleep(20 * pause)
    raise MemoryError(f"{size} bytes were filled, on cue")
