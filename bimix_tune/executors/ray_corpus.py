"""The corpus of a trainer on every node of a Ray cluster, once.

A node that sees the folder (on a shared file system, or because it is the driver's own) uses
it as it is. Any other one fetches a copy, see `bimix_tune.corpus.copy`, through tasks that run
on the driver's node and read a piece each. Tasks rather than an actor, because Ray starts
their process on demand and needs none while nobody reads; a piece at a time, because an object
the size of a corpus would fill the object store of both nodes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bimix_tune.corpus.copy import PIECE, copy_once, file_names, is_url
from bimix_tune.training.base import Trainer

T = TypeVar("T", bound=Trainer)


@dataclass(frozen=True)
class CorpusSource:
    """Where workers get a corpus from; small enough to be sent to each.

    Args:
        folder: On the driver's node.
        node: Ray's id of that node.
        description: Content of its ``corpus.json``.
    """

    folder: str
    node: str
    description: str = field(repr=False)

    @classmethod
    def of(cls, trainer: Trainer) -> CorpusSource | None:
        """The source for a trainer that reads a corpus from a folder (see `ReadsCorpus`)."""
        folder = getattr(trainer, "corpus", None)
        if folder is None or is_url(folder) or not hasattr(trainer, "with_corpus"):
            return None
        import ray

        description = (Path(folder) / "corpus.json").read_text(encoding="utf-8")
        return cls(str(folder), ray.get_runtime_context().get_node_id(), description)

    def bring_to(self, trainer: T) -> T:
        """The trainer with a corpus folder that this node has, fetched if need be.

        Raises:
            CorpusError: What arrived is not the corpus.
            OSError: The copy cannot be written.
            ray.exceptions.RayError: The driver's node cannot be read from.
        """
        if self._visible():
            return trainer
        copy = copy_once(self.description, self._read, f"{self.folder} of the driver's node")
        return trainer.with_corpus(copy)  # type: ignore[attr-defined]

    def _visible(self) -> bool:
        """Whether this node sees the very same corpus in the same place, whole."""
        folder = Path(self.folder)
        try:
            found = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
            same = bool(found["key"] == json.loads(self.description)["key"])
            return same and all((folder / name).is_file() for name in file_names(found))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _read(self, name: str) -> Iterator[bytes]:
        """The pieces of a file; the next one is under way while one is written."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        read = ray.remote(num_cpus=0)(read_piece).options(scheduling_strategy=there)
        path = os.path.join(self.folder, name)
        offset, coming = 0, read.remote(path, 0, PIECE)
        while piece := _get(coming):
            offset += len(piece)
            coming = read.remote(path, offset, PIECE)
            yield piece


def read_piece(path: str, offset: int, size: int) -> bytes:
    """Up to ``size`` bytes of a file, from an offset; empty at its end."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def _get(reference: Any) -> bytes:
    import ray

    piece: bytes = ray.get(reference)
    return piece
