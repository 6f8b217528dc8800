"""The documents of a domain: without duplicates, in an order of their own, split in two.

Documents are ordered by the hash of their text. That one order does four things: exact
duplicates meet, the validation documents come from its beginning, a size cap keeps its beginning
(a uniform sample that needs no second pass: bottom-k sampling, Cohen & Kaplan 2007), and the
training documents come shuffled. None of them depends on file names, file order or a seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

EVALUATION_TOKENS = 16_384
"""Validation tokens every domain should have; small domains give up to a fifth for it."""


@dataclass(frozen=True)
class Document:
    """A text and the hash that orders it."""

    digest: bytes
    text: str
    size: int  # UTF-8 bytes


def smallest_hashes(texts: Iterable[str], max_bytes: int | None) -> list[Document]:
    """The distinct non-blank texts with the smallest hashes, in order.

    Args:
        texts: Any number of texts, seen one by one.
        max_bytes: Texts are dropped from the end as long as this many bytes remain; two texts
            are always kept.
    """
    heap: list[tuple[int, int, Document]] = []  # greatest hash first; the count breaks no tie
    kept: set[bytes] = set()
    total = 0
    for number, text in enumerate(texts):
        data = text.encode("utf-8", errors="replace")
        digest = blake2b(data, digest_size=16).digest()
        if digest in kept or not text.strip():
            continue
        kept.add(digest)
        heapq.heappush(heap, (-int.from_bytes(digest), number, Document(digest, text, len(data))))
        total += len(data)
        while max_bytes is not None and len(heap) > 2 and total - heap[0][2].size >= max_bytes:
            dropped = heapq.heappop(heap)[2]
            kept.remove(dropped.digest)
            total -= dropped.size
    return [document for _, _, document in sorted(heap, reverse=True)]


def choose_validation(lengths: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which documents to hold out.

    In the given order, documents are taken until ``max(share, min(16384 / total, 1/5))`` of the
    tokens is reached, passing over one that would overshoot to twice that; if all are that
    large, the smallest one is taken.

    Args:
        lengths: Tokens of each document, (D,), D >= 2.
        share: Wanted share of the tokens.

    Returns:
        Marks, (D,), of which at least one is set and one is not.
    """
    total = int(lengths.sum())
    goal = max(share * total, min(EVALUATION_TOKENS, total / 5))
    chosen = np.zeros(len(lengths), bool)
    held = 0
    for i, length in enumerate(lengths):
        if held >= goal:
            break
        if held + length <= min(2 * goal, total - 1):
            chosen[i] = True
            held += int(length)
    if not chosen.any():
        chosen[int(np.argmin(lengths))] = True
    return chosen
