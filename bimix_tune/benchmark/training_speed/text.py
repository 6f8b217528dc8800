"""Tokens without a meaning, in the format of a corpus, so that nothing need be fetched.

What a step costs does not depend on what the text says. It may depend on how often a token comes
(rows of the embedding that many threads add to), so the frequencies are those of a language.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bimix_tune.corpus.copy import token_file

DOMAINS = ("first", "second", "third")
TRAIN, VALID = 1_000_000, 100_000
"""Tokens of each domain."""
END = 0


def write_text(folder: Path, vocabulary: int, train: int = TRAIN, valid: int = VALID) -> Path:
    """Write a corpus of three domains.

    Args:
        folder: Where to; made here.
        vocabulary: Number of tokens V.
        train: Training tokens of each domain.
        valid: Validation tokens of each domain.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True)
    dtype = np.uint16 if vocabulary <= 2**16 else np.uint32
    facts: dict[str, dict[str, dict[str, int]]] = {}
    for number, name in enumerate(DOMAINS, 1):
        facts[name] = {}
        for split, count in (("train", train), ("valid", valid)):
            rng = np.random.default_rng([vocabulary, number, count])
            zipf_chain(rng, vocabulary, count, number).astype(dtype).tofile(
                token_file(folder, name, split)
            )
            facts[name][split] = {"tokens": count, "bytes": 4 * count}
    about = {"domains": facts, "key": "synthetic", "vocab_size": vocabulary, "end_token": END}
    about["dtype"] = np.dtype(dtype).name
    (folder / "corpus.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def zipf_chain(
    rng: np.random.Generator, vocabulary: int, count: int, rule: int
) -> NDArray[np.int64]:
    """Tokens with frequencies ``1 / rank``, each second one decided by the one before, (count,).

    Args:
        rng: Source of chance.
        vocabulary: Number of tokens.
        count: Tokens wanted.
        rule: Which token follows which: ``drawn XOR rule``, a near rank.
    """
    heights = np.cumsum(1.0 / np.arange(1, vocabulary + 1))
    drawn = np.searchsorted(heights, rng.random(count) * heights[-1])
    follows = rng.random(count) < 0.5
    return np.where(follows, np.roll(drawn, 1) ^ rule, drawn) % vocabulary
