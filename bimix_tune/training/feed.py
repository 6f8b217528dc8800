"""The way of the training text to the device; it never decides which text comes when.

A CPU gathers its sequences from the memory-mapped files between steps, in less than 0.2 % of
the time. For a GPU another thread works some batches ahead, and what crosses to the device is
as small as can be: tokens in the type of the corpus or, where the device holds the text, the
places at which sequences begin.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from bimix_tune.training.device_text import DeviceText, as_signed, widened
from bimix_tune.training.mixing import MixedReader

READ_AHEAD = 2
"""Batches that are ready, or being made, while a GPU trains on one."""

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Sequences on the device.

    Args:
        rows: With the target of their last token, int64, (B, length + 1).
        position: Of the reader, right behind these sequences.
    """

    rows: Tensor
    position: Mapping[str, int]


def ahead_for(device: torch.device) -> int:
    """How many batches to make ahead: on a CPU a thread would take the time of the training."""
    return 0 if device.type == "cpu" else READ_AHEAD


def batches(
    reader: MixedReader,
    counts: Iterable[int],
    device: torch.device,
    text: DeviceText | None = None,
    ahead: int = 0,
) -> Generator[Batch, None, None]:
    """Batches of a reader, on a device.

    Args:
        reader: Decides what comes. It runs ahead of what has come by ``ahead`` batches.
        counts: Sequences of each batch.
        device: Where they shall be.
        text: The domains of the reader, held by that device; None reads them from the files.
        ahead: Batches to make ahead, in a thread that ends with the generator; 0 for none.
    """
    made = _made(reader, counts, text)
    with closing(read_ahead(made, ahead) if ahead else made) as parts:
        for part, position in parts:
            # Page-locked memory crosses while both sides do other things. Not the thread locks
            # it: while a CUDA graph is captured, no other thread may ask CUDA for anything.
            ready = part.pin_memory() if device.type == "cuda" else part
            there = ready.to(device, non_blocking=True)
            rows = widened(there) if text is None else text.rows(there, reader.length)
            yield Batch(rows, position)


def read_ahead(source: Iterator[T], count: int) -> Generator[T, None, None]:
    """What a source yields, made by a thread that is so many items ahead.

    An error of the source is raised where its item would have come. Closing the generator ends
    the thread, after the item that it is at.
    """
    pool = ThreadPoolExecutor(1, "bimix-tune-reader")
    try:
        coming = deque(pool.submit(next, source, None) for _ in range(count))
        while (item := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, source, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _made(
    reader: MixedReader, counts: Iterable[int], text: DeviceText | None
) -> Generator[tuple[Tensor, dict[str, int]], None, None]:
    """What has to cross for each batch, and the position behind it."""
    for count in counts:
        places = reader.draw(count)
        if text is None:
            rows = np.empty((count, reader.length + 1), reader.dtype)
            reader.gather(places, rows)
            part = torch.from_numpy(as_signed(rows))
        else:
            first = text.starts_of(reader.names)
            part = torch.from_numpy(first[places.domains] + places.starts)
        yield part, reader.position()
