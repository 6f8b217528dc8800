"""A simulated training that goes wrong on cue.

A cue is a file in a folder that all workers see. The first training that comes across it
takes it, by renaming it to its own name, so that each cue does harm once, wherever the
training runs and however often it is tried again. `place_cue` may be called at any time.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from bimix_tune.errors import ConfigError, DivergedError, OutOfMemoryError, did_you_mean
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.synthetic import SyntheticTrainer
from bimix_tune.training.torch_trainer import run_name

FAULTS = {
    "crash": "the process ends at once, as by `kill -9`",
    "raise": "an error that the trainer does not explain",
    "hang": "no yield ever again",
    "freeze": "the whole process stops answering, as if the network were cut",
    "diverge": "the loss is no number, and the trainer says so",
    "nan": "a loss is NaN, and the trainer does not notice",
    "host memory": "memory is filled until something gives, at most `memory` bytes",
    "gpu memory": "the proxy does not fit on its device",
    "disk": "no space is left on the device",
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
        cues: Folder of the cues.
        memory: Most bytes that the fault "host memory" takes.
    """

    cues: str | Path
    memory: int = 1 << 30

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "cues", Path(self.cues).absolute())

    def run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """Yield the curve of one run until a cue is met."""
        for checkpoint in super().run(mixture, seed):
            fault = self._take(run_name(mixture, seed))
            yield self._happen(fault, checkpoint) if fault else checkpoint

    def _take(self, run: str) -> str | None:
        for cue in sorted(Path(self.cues).glob("*.cue")):
            try:
                cue.rename(cue.with_suffix(f".taken-{run}"))
            except FileNotFoundError:  # another training was faster
                continue
            taken = cue.with_suffix(f".taken-{run}")
            os.utime(taken)
            return cue.name.partition(".")[0]
        return None

    def _happen(self, fault: str, checkpoint: Checkpoint) -> Checkpoint:
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
            case "host memory":
                _fill(self.memory)
            case "gpu memory":
                raise OutOfMemoryError("the proxy does not fit on the device, on cue")
            case "disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoint, on cue")
        return checkpoint


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
