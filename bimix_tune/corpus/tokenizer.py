"""Text to token ids: a byte-level BPE trained on the domains, or any existing tokenizer.

Proxies of a few million parameters would spend most weights on the embedding of a usual
50,000-token vocabulary, so the default is a small vocabulary of the domains' own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bimix_tune.errors import CorpusError, missing_extra

END_OF_TEXT = "<|endoftext|>"
SMALLEST_VOCABULARY = 257
"""All bytes and the end token."""

_END_NAMES = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]")
_BATCH_CHARACTERS = 2_000_000


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer of the ``tokenizers`` library and the id that ends a document."""

    backend: Any
    end_token: int

    @property
    def vocab_size(self) -> int:
        """One more than the greatest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def dtype(self) -> str:
        """The smallest unsigned type that holds every id."""
        return "uint16" if self.vocab_size <= 2**16 else "uint32"

    def encode(self, documents: Iterable[str]) -> Iterator[np.ndarray]:
        """Ids of each document, closed by the end token. Uses all cores.

        A special token's name inside a text is encoded as the plain text it is there.
        """
        self.backend.encode_special_tokens = True
        for batch in _batches(documents):
            for encoding in self.backend.encode_batch_fast(batch, add_special_tokens=False):
                yield np.array([*encoding.ids, self.end_token], dtype=self.dtype)

    def save(self, path: Path) -> None:
        """Write ``tokenizer.json``."""
        self.backend.save(str(path))


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    length = 0
    for text in documents:
        batch.append(text)
        length += len(text)
        if length >= _BATCH_CHARACTERS:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def train_tokenizer(vocab_size: int, samples: Sequence[str]) -> Tokenizer:
    """A byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) of the given texts.

    Args:
        vocab_size: Greatest number of ids; a small text may yield fewer.
        samples: Texts to learn merges from.
    """
    try:
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise missing_extra("tokenizers", "train", "training a tokenizer") from error
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(samples, trainer)
    return Tokenizer(backend, end_token=0)  # special tokens come first


def load_tokenizer(name_or_path: str) -> Tokenizer:
    """An existing tokenizer: a ``tokenizer.json``, a folder, or a name on the hub.

    Raises:
        CorpusError: It cannot be found, has no fast form, or has no end-of-text token.
    """
    if name_or_path.endswith(".json"):
        backend, end = _from_file(Path(name_or_path))
    else:
        backend, end = _from_transformers(name_or_path)
    if end is None:
        raise CorpusError(
            f"tokenizer {name_or_path!r} has no end-of-text token to join documents with "
            f"(looked for {', '.join(_END_NAMES)})"
        )
    backend.no_truncation()
    backend.no_padding()
    return Tokenizer(backend, end)


def _from_file(path: Path) -> tuple[Any, int | None]:
    try:
        from tokenizers import Tokenizer as Backend
    except ImportError as error:
        raise missing_extra("tokenizers", "train", "reading a tokenizer") from error
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CorpusError(f"tokenizer {str(path)!r} cannot be read: {error}") from error
    ids = [backend.token_to_id(name) for name in _END_NAMES]
    return backend, next((i for i in ids if i is not None), None)


def _from_transformers(name: str) -> tuple[Any, int | None]:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise missing_extra("transformers", "train", f"loading tokenizer {name!r}") from error
    try:
        loaded = AutoTokenizer.from_pretrained(name, use_fast=True)
    except Exception as error:  # hub, network and format errors share no base
        raise CorpusError(
            f"tokenizer {name!r} cannot be loaded (give a vocabulary size, a path to a "
            f"tokenizer.json or its folder, or a hub name): {error}"
        ) from error
    if not getattr(loaded, "is_fast", False):
        raise CorpusError(f"tokenizer {name!r} has no fast form; convert it to a tokenizer.json")
    end = loaded.eos_token_id if loaded.eos_token_id is not None else loaded.sep_token_id
    return loaded.backend_tokenizer, end
