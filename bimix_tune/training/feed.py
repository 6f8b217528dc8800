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
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from bimix_tune.training.device_text import DeviceText, signed, widened
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
    made = _made(reader, counts, text, pin=device.type == "cuda")
    with closing(read_ahead(made, ahead, device) if ahead else made) as parts:
        for part, position in parts:
            there = part.to(device, non_blocking=True)
            rows = widened(there) if text is None else text.rows(there, reader.length)
            yield Batch(rows, position)


def read_ahead(source: Iterator[T], count: int, device: torch.device) -> Generator[T, None, None]:
    """What a source yields, made by a thread that is so many items ahead.

    An error of the source is raised where its item would have come. Closing the generator ends
    the thread, after the item that it is at.
    """
    begin = None
    if device.type == "cuda":  # a thread begins with the first GPU, whatever its parent had
        index = torch.cuda.current_device() if device.index is None else device.index
        begin = partial(torch.cuda.set_device, index)
    pool = ThreadPoolExecutor(1, "bimix-tune-reader", begin)
    try:
        coming = deque(pool.submit(next, source, None) for _ in range(count))
        while (item := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, source, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _made(
    reader: MixedReader, counts: Iterable[int], text: DeviceText | None, pin: bool
) -> Generator[tuple[Tensor, dict[str, int]], None, None]:
    """What has to cross for each batch, and the position behind it.

    Page-locked memory (``pin``) is copied to a GPU while both sides do other things.
    """
    for count in counts:
        places = reader.draw(count)
        if text is None:
            shape = count, reader.length + 1
            part = torch.empty(shape, dtype=signed(reader.dtype), pin_memory=pin)
            reader.gather(places, part.numpy().view(reader.dtype))
        else:
            part = torch.empty(count, dtype=torch.int64, pin_memory=pin)
            np.add(text.starts_of(reader.names)[places.domains], places.starts, out=part.numpy())
        yield part, reader.position()
