"""From sources of text to a corpus on disk.

The key of a corpus is a hash of its text and settings, the same on every machine; computing it
means reading everything. So a small file under ``seen/`` maps a cheap stamp (paths, sizes,
times) to the key, and an unchanged set of sources is recognised without being read.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from bimix_tune.atomic import write_atomic
from bimix_tune.corpus.copy import sha256_of, token_file
from bimix_tune.corpus.documents import Document, choose_validation, smallest_hashes
from bimix_tune.corpus.sources import Source, Spec, sources_of
from bimix_tune.corpus.store import Corpus
from bimix_tune.corpus.tokenizer import (
    SMALLEST_VOCABULARY,
    Tokenizer,
    load_tokenizer,
    train_tokenizer,
)
from bimix_tune.errors import CorpusError

FORMAT = 1
"""Raise it when the same text and settings would give other tokens."""

TOKENIZER_SAMPLE = 1_000_000
"""UTF-8 bytes of each domain that a new tokenizer is trained on."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class _Settings:
    tokenizer: int | str
    valid_share: float
    max_bytes_per_domain: int | None

    def __post_init__(self) -> None:
        if isinstance(self.tokenizer, int) and self.tokenizer < SMALLEST_VOCABULARY:
            raise CorpusError(
                f"a vocabulary needs at least {SMALLEST_VOCABULARY} tokens (all bytes and the "
                f"end of text), but got tokenizer={self.tokenizer}"
            )
        if not 0 < self.valid_share <= 0.5:
            raise CorpusError(f"valid_share must be in (0, 0.5], but got {self.valid_share!r}")
        if self.max_bytes_per_domain is not None and self.max_bytes_per_domain <= 0:
            raise CorpusError(f"max_bytes_per_domain must be > 0, got {self.max_bytes_per_domain}")


def build_corpus(
    domains: Mapping[str, Spec | Sequence[Spec]],
    *,
    cache: str | Path,
    tokenizer: int | str = 2048,
    valid_share: float = 0.05,
    max_bytes_per_domain: int | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Tokenise the text of some domains, or find that this was done before.

    Without a cap the text of one domain after the other is held in memory while it is sorted,
    and all of it until it is tokenised; with a cap at most the cap of each domain.

    Args:
        domains: Sources by domain name; see `sources_of` for what a source can be.
        cache: Folder under which corpora are kept.
        tokenizer: Vocabulary size of a byte-level BPE to train on a sample of each domain, or
            the name or path of an existing tokenizer.
        valid_share: Share of each domain's tokens to hold out, in whole documents.
        max_bytes_per_domain: Keep about so many bytes of each domain, a random sample.
        progress: Is told in words what is going on.

    Returns:
        The corpus, in the folder ``<cache>/<key>``.

    Raises:
        CorpusError: A source is missing, unreadable, or too small to be split.
    """
    settings = _Settings(tokenizer, valid_share, max_bytes_per_domain)
    say = progress or (lambda message: None)
    if not domains:
        raise CorpusError("a corpus needs at least one domain")
    sources = {name: _sources(name, spec) for name, spec in domains.items()}
    cache = Path(cache)
    seen = cache / "seen" / f"{_stamp(settings, sources)}.json"
    known = _recall(seen)
    if known is not None:
        say(f"corpus {known.key} is unchanged")
        return known
    codec = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else None
    documents = {name: _collect(name, sources[name], settings, say) for name in sources}
    key = _key(settings, codec, documents)
    folder = cache / key
    if not folder.exists():
        codec = codec or _train(settings, documents, say)
        facts = {"key": key, "settings": asdict(settings), "sources": _describe(sources)}
        _write(folder, facts, codec, documents, say)
    write_atomic(seen, json.dumps({"folder": key}))
    return Corpus.open(folder)


def _sources(name: str, spec: Spec | Sequence[Spec]) -> list[Source]:
    try:
        return sources_of(spec)
    except CorpusError as error:
        raise CorpusError(f"domain {name!r}: {error}") from error


def _hash(*parts: str | bytes) -> str:
    state = blake2b(digest_size=10)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


def _stamp(settings: _Settings, sources: Mapping[str, Sequence[Source]]) -> str:
    parts = [f"{FORMAT}", json.dumps(asdict(settings))]
    if isinstance(settings.tokenizer, str):
        path = Path(settings.tokenizer)
        files = [p for p in (path, path / "tokenizer.json") if p.is_file()]
        parts += [f"{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files]
    for name, items in sources.items():
        parts += [name, *(source.stamp() for source in items)]
    return _hash(*parts)


def _recall(seen: Path) -> Corpus | None:
    """The corpus that these very sources gave before, if it is still whole."""
    try:
        folder = json.loads(seen.read_text(encoding="utf-8"))["folder"]
        return Corpus.open(seen.parent.parent / folder)
    except (OSError, ValueError, KeyError):  # CorpusError is a ValueError
        return None


def _collect(
    name: str, sources: Sequence[Source], settings: _Settings, say: Progress
) -> list[Document]:
    """Documents of a domain without exact duplicates, in order of their hash, capped."""
    texts = (text for source in sources for text in source.documents())
    try:
        documents = smallest_hashes(texts, settings.max_bytes_per_domain)
    except (CorpusError, OSError, EOFError) as error:  # the latter two: unreadable, cut off
        raise CorpusError(f"domain {name!r}: {error}") from error
    if len(documents) < 2:
        raise CorpusError(
            f"domain {name!r} has {len(documents)} non-empty document(s), but needs at least 2, "
            "one of them to validate on"
        )
    size = sum(d.size for d in documents)
    say(f"{name}: {len(documents)} documents, {size / 1e6:.1f} MB")
    return documents


def _train(
    settings: _Settings, documents: Mapping[str, Sequence[Document]], say: Progress
) -> Tokenizer:
    say(f"training a tokenizer of {settings.tokenizer} tokens")
    samples = [text for items in documents.values() for text in _sample(items)]
    return train_tokenizer(int(settings.tokenizer), samples)


def _sample(documents: Sequence[Document]) -> list[str]:
    """Texts from the end of the order, where the training documents are."""
    texts: list[str] = []
    room = TOKENIZER_SAMPLE
    for document in reversed(documents[1:]):
        texts.append(document.text[:room])
        room -= document.size
        if room <= 0:
            break
    return texts


def _key(
    settings: _Settings, codec: Tokenizer | None, documents: Mapping[str, Sequence[Document]]
) -> str:
    """Hash of everything that decides the tokens; an existing tokenizer counts by content."""
    tokenizer = codec.backend.to_str() if codec else settings.tokenizer
    rules = [FORMAT, tokenizer, settings.valid_share, settings.max_bytes_per_domain]
    parts: list[str | bytes] = [json.dumps(rules)]
    for name, items in documents.items():
        parts += [name, b"".join(d.digest for d in items)]
    return _hash(*parts)


def _describe(sources: Mapping[str, Sequence[Source]]) -> dict[str, list[str]]:
    """The sources in words; of a folder with many files the first few."""
    few = 4
    described = {}
    for name, items in sources.items():
        more = [f"and {len(items) - few} more"] if len(items) > few else []
        described[name] = [*map(str, items[:few]), *more]
    return described


def _write(
    folder: Path,
    facts: Mapping[str, Any],
    codec: Tokenizer,
    documents: Mapping[str, Sequence[Document]],
    say: Progress,
) -> None:
    """Write a corpus under another name, then rename it; the first of several writers wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        counts = {}
        for name, items in documents.items():
            share = facts["settings"]["valid_share"]
            counts[name] = _write_domain(temporary, name, items, codec, share)
            say(f"{name}: {counts[name]['train']['tokens'] / 1e6:.2f} M training tokens")
        codec.save(temporary / "tokenizer.json")
        tokens = {n: getattr(codec, n) for n in ("vocab_size", "end_token", "dtype")}
        description = {"format": FORMAT, **facts, **tokens, "domains": counts}
        description["sha256"] = {p.name: sha256_of(p) for p in sorted(temporary.iterdir())}
        text = json.dumps(description, indent=1, ensure_ascii=False)
        (temporary / "corpus.json").write_text(text, encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp made it private; other users' workers read it too
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_domain(
    folder: Path, name: str, documents: Sequence[Document], codec: Tokenizer, share: float
) -> dict[str, dict[str, int]]:
    encoded = list(codec.encode(d.text for d in documents))
    held = choose_validation(np.array([len(ids) for ids in encoded]), share)
    facts = {}
    for split, mask in (("train", ~held), ("valid", held)):
        members = np.flatnonzero(mask).tolist()
        tokens = np.concatenate([encoded[i] for i in members])
        tokens.tofile(token_file(folder, name, split))
        facts[split] = {
            "tokens": len(tokens),
            "bytes": sum(documents[i].size for i in members),
            "documents": len(members),
        }
    return facts


def _publish(temporary: Path, folder: Path) -> None:
    try:
        temporary.replace(folder)
    except OSError:
        if not (folder / "corpus.json").is_file():  # another builder was not faster
            raise
