"""A corpus on disk: memory-mapped tokens of every domain, split into train and valid.

A folder holds ``<domain>.train.bin`` and ``<domain>.valid.bin`` (plain arrays of uint16 or
uint32, documents joined by the end token), ``tokenizer.json`` and ``corpus.json``, which lists
the SHA-256 of the others under ``sha256``. The folder appears by one rename, so one that exists
is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bimix_tune.corpus.copy import SPLITS, fetch, is_url, token_file
from bimix_tune.errors import CorpusError, did_you_mean
from bimix_tune.space import Domain

Tokens = NDArray[np.uint16] | NDArray[np.uint32]


@dataclass(frozen=True)
class Corpus:
    """Tokens of several domains. Small and picklable: the arrays stay on disk.

    Args:
        folder: Where it lies.
        description: Content of ``corpus.json``.
    """

    folder: Path
    description: Mapping[str, Any] = field(repr=False, hash=False, compare=False)

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """A corpus written by `build_corpus`.

        Args:
            folder: A folder, or a URL that fsspec knows (``s3://``, ``gs://`` ...), which is
                fetched into the cache of this machine once; see `bimix_tune.corpus.copy`.

        Raises:
            CorpusError: The folder is no corpus, or a file has not the size it should have.
            MissingExtraError: It is a URL, and fsspec or its back-end is not installed.
        """
        folder = fetch(str(folder)) if is_url(folder) else Path(folder)
        try:
            description = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise CorpusError(f"{folder} is no corpus: it has no readable corpus.json") from error
        except ValueError as error:
            raise CorpusError(f"{folder / 'corpus.json'} is not valid JSON: {error}") from error
        corpus = cls(folder, description)
        for name in corpus.names:
            for split in SPLITS:
                corpus._check_size(name, split)
        return corpus

    @property
    def names(self) -> tuple[str, ...]:
        """The domains, in the order they were given."""
        return tuple(self.description["domains"])

    @property
    def key(self) -> str:
        """Hash of the text and of the settings: equal keys mean equal tokens."""
        return str(self.description["key"])

    @property
    def vocab_size(self) -> int:
        """Number of token ids, including the end token."""
        return int(self.description["vocab_size"])

    @property
    def end_token(self) -> int:
        """The id that ends every document."""
        return int(self.description["end_token"])

    def count(self, name: str, split: str = "train") -> int:
        """Tokens of a split, end tokens included."""
        return int(self._facts(name, split)["tokens"])

    def bytes_per_token(self, name: str) -> float:
        """UTF-8 bytes of text for each token, on the validation split.

        A loss of x nats per token is ``x / (ln 2 * bytes_per_token)`` bits per byte.
        """
        facts = self._facts(name, "valid")
        return float(facts["bytes"] / facts["tokens"])

    def tokens(self, name: str, split: str = "train") -> Tokens:
        """The tokens of a split, (count,), read-only and memory-mapped.

        Raises:
            CorpusError: There is no such domain or split.
        """
        count = self.count(name, split)
        path = token_file(self.folder, name, split)
        return np.memmap(path, dtype=self.description["dtype"], mode="r", shape=(count,))

    def domains(self) -> list[Domain]:
        """The domains of a search space, with their available training tokens."""
        return [Domain(name, tokens=self.count(name)) for name in self.names]

    def require(self, sequence_length: int) -> None:
        """Refuse a corpus that lacks one whole sequence in some split of some domain.

        Args:
            sequence_length: Tokens that a model reads at once; one more is needed to predict.

        Raises:
            CorpusError: Names the domain and its counts.
        """
        for name in self.names:
            counts = {split: self.count(name, split) for split in SPLITS}
            short = [split for split in SPLITS if counts[split] <= sequence_length]
            if short:
                raise CorpusError(
                    f"domain {name!r} has {counts['train']} training and {counts['valid']} "
                    f"validation tokens, but each split needs more than sequence_length = "
                    f"{sequence_length}: give it more text, leave it out, or shorten the sequences"
                )

    def _facts(self, name: str, split: str) -> Mapping[str, int]:
        if name not in self.description["domains"]:
            raise CorpusError(f"the corpus has no domain {name!r}" + did_you_mean(name, self.names))
        if split not in SPLITS:
            raise CorpusError(f"a split is 'train' or 'valid', but got {split!r}")
        facts: Mapping[str, int] = self.description["domains"][name][split]
        return facts

    def _check_size(self, name: str, split: str) -> None:
        path = token_file(self.folder, name, split)
        expected = self.count(name, split) * np.dtype(self.description["dtype"]).itemsize
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise CorpusError(
                f"{path} has {size} bytes instead of {expected}: delete {self.folder} and rebuild"
            )
