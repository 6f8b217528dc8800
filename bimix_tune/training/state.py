"""The state of a training on disk, so that one that was cut short goes on where it was.

One safetensors file per run: parameters, optimiser and average as arrays, the rest as JSON in its
metadata, with a checksum of everything. It takes 12 bytes a parameter and 4 more while the
average of the weights is kept. Nothing in it is ever executed, and one that is damaged, or of
another run, counts for nothing: the training then begins again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bimix_tune.atomic import replacing
from bimix_tune.training.base import Checkpoint

FORMAT = 1
"""Of the file; another number makes it a file of another run."""
SAVING_SHARE = 0.01
"""Greatest share of a run's time that saving may take."""
SAVE_EVERY = 10.0
"""Seconds of training that a crash may cost, unless saving so often would take more than that."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """A training between two steps.

    Args:
        step: Optimiser steps taken.
        position: Windows read of each domain.
        curve: The checkpoints with losses so far.
        seconds: Wall time by what it went into; ``"all"`` is the whole.
        tensors: See `tensors_of`.
    """

    step: int
    position: Mapping[str, int]
    curve: tuple[Checkpoint, ...]
    seconds: Mapping[str, float]
    tensors: Mapping[str, Tensor] = field(repr=False)


def tensors_of(
    module: nn.Module, optimiser: torch.optim.Optimizer, average: list[Tensor] | None
) -> dict[str, Tensor]:
    """All arrays that a training changes, on the CPU.

    Args:
        module: Its parameters become ``weights.<name>``.
        optimiser: Its state becomes ``optimiser.<number of the parameter>.<name>``.
        average: Of the parameters, in their order: ``average.<number>``; None if none is kept.
    """
    found = {f"weights.{name}": p.detach() for name, p in module.named_parameters()}
    for i, values in optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{i}.{key}": value for key, value in values.items()}
    found |= {f"average.{i}": value for i, value in enumerate(average or ())}
    return {name: tensor.cpu().contiguous() for name, tensor in found.items()}


def restore(
    tensors: Mapping[str, Tensor],
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: list[Tensor] | None,
) -> None:
    """Put back what `tensors_of` took, into the same memory.

    Raises:
        ValueError: The arrays are of another model; nothing is changed.
    """
    goals = {f"weights.{name}": p.detach() for name, p in module.named_parameters()}
    goals |= {f"average.{i}": value for i, value in enumerate(average or ())}
    moments: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    for name in tensors.keys() - goals.keys():
        _, number, key = name.split(".", 2)
        moments[int(number)][key] = tensors[name]
    for name, goal in goals.items():
        if name not in tensors or tensors[name].shape != goal.shape:
            raise ValueError(f"no array {name} of shape {tuple(goal.shape)}")
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": dict(moments), "param_groups": groups})
    for name, goal in goals.items():
        goal.copy_(tensors[name])


class StateFile:
    """Where the state of one run is kept, and how often it is written.

    Args:
        path: The file.
        run: All that the losses of the run depend on, as values that JSON knows; a file of
            another run is not read.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        text = json.dumps({"format": FORMAT, **run}, sort_keys=True, default=str)
        self.path, self._run = path, hashlib.sha256(text.encode()).hexdigest()
        self._cost, self._written, self._works = 0.0, time.monotonic(), True

    def due(self) -> bool:
        """Whether enough time has gone by since the last writing."""
        passed = time.monotonic() - self._written
        return passed >= max(SAVE_EVERY, self._cost / SAVING_SHARE)

    def write(self, state: State) -> None:
        """Replace the file in one step. A disk that refuses is logged once: the training, which
        can do without, goes on."""
        if not self._works:
            return
        began = time.monotonic()
        facts = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
        facts["curve"] = [dataclasses.asdict(checkpoint) for checkpoint in state.curve]
        del facts["tensors"]
        text = json.dumps({"run": self._run, **facts})
        metadata = {"state": text, "checksum": checksum(text, state.tensors)}
        try:
            with replacing(self.path) as temporary:
                save_file(dict(state.tensors), str(temporary), metadata=metadata)
        except (OSError, SafetensorError) as error:
            self._works = False
            logger.warning("no state of this run is kept in %s: %s", self.path, error)
        self._written = time.monotonic()
        self._cost = self._written - began

    def read(self) -> State | None:
        """The state in the file; None, and a warning, if it is damaged or of another run."""
        if not self.path.exists():
            return None
        try:
            with safe_open(str(self.path), "pt", device="cpu") as file:
                metadata = file.metadata() or {}
                names = file.keys()  # copied below: the file may change while they are in use
                tensors = {name: file.get_tensor(name).clone() for name in names}
            text = metadata["state"]
            if metadata["checksum"] != checksum(text, tensors):
                raise ValueError("its checksum does not fit its content")
            facts = json.loads(text)
            if facts.pop("run") != self._run:
                raise ValueError("it is of a run with other settings")
            facts["curve"] = tuple(Checkpoint(**values) for values in facts["curve"])
            return State(tensors=tensors, **facts)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            self.ignore(error)
            return None

    def ignore(self, reason: object) -> None:
        """Say that the file is of no use."""
        logger.warning("the state in %s is not used, the run begins again: %s", self.path, reason)

    def delete(self) -> None:
        """Remove the file, and what a process that was killed while writing it left."""
        try:
            for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*")):
                path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the state %s of a run that has ended stays: %s", self.path, error)


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a text and of the names, types, shapes and bytes of arrays."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()
