"""Training text in the memory of a device, one copy for all runs of a process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bimix_tune.corpus import Corpus

PIECE = 2**24
"""Tokens that are copied to a device at once: no second copy of a text is made on the way."""

_lock = threading.Lock()
_held: dict[tuple[str, ...], DeviceText] = {}
"""The text that this process holds on a device, by device, corpus and domains: one at most."""


class DeviceText:
    """The training text of some domains on a device.

    Args:
        texts: Tokens by domain, each (N_i,), of one type.
        device: Where to hold them.
    """

    def __init__(
        self, texts: Mapping[str, NDArray[np.unsignedinteger]], device: torch.device
    ) -> None:
        ends = list(itertools.accumulate(len(text) for text in texts.values()))
        self._first = dict(zip(texts, [0, *ends], strict=False))
        dtype = np.result_type(*texts.values())
        kind = torch.from_numpy(as_signed(np.empty(0, dtype))).dtype
        self._tokens = torch.empty(ends[-1], dtype=kind, device=device)
        for name, text in texts.items():
            goal = self._tokens[self._first[name] :]
            for at in range(0, len(text), PIECE):
                piece = as_signed(np.array(text[at : at + PIECE], dtype))
                goal[at : at + len(piece)] = torch.from_numpy(piece)

    @property
    def size(self) -> int:
        """Bytes on the device."""
        return self._tokens.nbytes

    def starts_of(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Where the texts of domains begin here."""
        return np.array([self._first[name] for name in names], np.int64)

    def rows(self, starts: Tensor, length: int) -> Tensor:
        """Sequences of ``length + 1`` tokens, int64, from their first positions, (B,)."""
        offsets = torch.arange(length + 1, device=starts.device)
        return widened(self._tokens[starts[:, None] + offsets])


def as_signed(tokens: NDArray[np.unsignedinteger]) -> NDArray[Any]:
    """The same bits as signed integers: PyTorch can do little with unsigned ones."""
    return tokens.view(f"i{tokens.itemsize}")


def widened(tokens: Tensor) -> Tensor:
    """Token ids as int64, from the bits of unsigned integers in signed ones."""
    return tokens.long() & (2 ** (8 * tokens.element_size()) - 1)


def text_bytes(corpus: Corpus, names: Iterable[str]) -> int:
    """What the training text of those domains takes that the corpus has."""
    return sum(corpus.tokens(n, "train").nbytes for n in corpus.names if n in set(names))


def held_bytes(device: torch.device) -> int:
    """What the text takes that this process holds on a device."""
    with _lock:
        return sum(text.size for key, text in _held.items() if key[0] == str(device))


def hold(corpus: Corpus, names: Iterable[str], device: torch.device) -> DeviceText:
    """The training text of domains on a device: the copy that is there, or a new one.

    A copy of other text is given up.
    """
    chosen = [n for n in corpus.names if n in set(names)]
    key = (str(device), str(corpus.folder), corpus.key, *chosen)
    with _lock:
        if key not in _held:
            _held.clear()
            _held[key] = DeviceText({n: corpus.tokens(n, "train") for n in chosen}, device)
        return _held[key]


def let_go() -> None:
    """Give up the copy that this process holds, if any."""
    with _lock:
        _held.clear()
