"""A tiny corpus in the format of `bimix_tune.corpus`, without building one."""

import json
from pathlib import Path

import numpy as np
import pytest

VOCABULARY = 64
DOMAINS = ("ab", "cd", "mixed")


def write_corpus(folder: Path, counts: tuple[int, int] = (6000, 1500)) -> Path:
    """Three domains of noisy cycles over different parts of the vocabulary."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    facts = {}
    for name, (first, span) in zip(DOMAINS, ((1, 20), (21, 20), (1, 60)), strict=True):
        facts[name] = {}
        for split, count in zip(("train", "valid"), counts, strict=True):
            jumps = np.where(rng.random(count) < 0.2, rng.integers(1, span, count), 1)
            tokens = (first + np.cumsum(jumps) % span).astype(np.uint16)
            tokens.tofile(folder / f"{name}.{split}.bin")
            facts[name][split] = {"tokens": count, "bytes": 3 * count}
    description = {
        "domains": facts,
        "key": "test",
        "vocab_size": VOCABULARY,
        "end_token": 0,
        "dtype": "uint16",
    }
    (folder / "corpus.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny corpus."""
    return write_corpus(tmp_path_factory.mktemp("corpora") / "tiny")
