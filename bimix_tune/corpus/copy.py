"""A corpus that lies elsewhere, copied to this machine once and checked.

Copies are kept in ``~/.cache/bimix-tune/corpora`` (or below ``BIMIX_TUNE_CACHE``) under the
key of the corpus. The first process that needs one fetches it while the others wait at a lock;
then all of them map the same files. The files are read piece by piece, so a copy takes little
memory however large they are, and compared with the sizes and the SHA-256 in ``corpus.json``
before the folder takes its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from bimix_tune.errors import CorpusError, missing_extra

SPLITS = ("train", "valid")
PIECE = 64 * 2**20
"""Bytes read at once."""

Read = Callable[[str], Iterator[bytes]]
"""Gives a file of the corpus, by its name, in pieces."""


def token_file(folder: Path, name: str, split: str) -> Path:
    """Where the tokens of a split lie; signs that no file name may hold are escaped."""
    return folder / f"{quote(name, safe=' ()+,')}.{split}.bin"


def is_url(folder: str | Path) -> bool:
    """Whether a corpus is named by a URL such as ``s3://bucket/corpora/0a1b2c``."""
    return isinstance(folder, str) and "://" in folder


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where this machine keeps its copies."""
    base = os.environ.get("BIMIX_TUNE_CACHE") or Path.home() / ".cache" / "bimix-tune"
    return Path(base) / "corpora"


def fetch(url: str) -> Path:
    """The local copy of a corpus at a URL.

    Raises:
        CorpusError: There is no corpus, or it cannot be read.
        MissingExtraError: fsspec is not installed.
    """
    try:
        import fsspec
    except ImportError as error:
        raise missing_extra("fsspec", "train", f"the corpus {url}") from error
    try:
        files, root = fsspec.core.url_to_fs(url)

        def read(name: str) -> Iterator[bytes]:
            with files.open(f"{root}/{name}", "rb") as file:
                while piece := file.read(PIECE):
                    yield piece

        description = b"".join(read("corpus.json")).decode()
        return copy_once(description, read, url)
    except (OSError, ImportError, ValueError) as error:
        if isinstance(error, CorpusError):
            raise
        raise CorpusError(f"the corpus {url} cannot be read: {error}") from error


def copy_once(description: str, read: Read, source: str) -> Path:
    """The folder of this machine's copy, made if it is not there.

    Args:
        description: Content of ``corpus.json``.
        read: Gives the other files.
        source: Where they come from, for messages.

    Raises:
        CorpusError: The description is none, or what arrived is not what it says.
        OSError: The copy cannot be written.
    """
    try:
        facts = json.loads(description)
        key, names = str(facts["key"]), file_names(facts)
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{source} holds no corpus: its corpus.json is not valid") from error
    if not re.fullmatch(r"\w+", key):
        raise CorpusError(f"{source}: the key of a corpus is letters and digits, not {key!r}")
    folder = cache_folder() / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            _copy(folder, description, {n: facts.get("sha256", {}).get(n) for n in names}, read)
    return folder


def file_names(facts: Mapping[str, Any]) -> list[str]:
    """All files of a corpus but ``corpus.json``."""
    here = Path()
    tokens = [token_file(here, name, split).name for name in facts["domains"] for split in SPLITS]
    return ["tokenizer.json", *tokens]


def _copy(folder: Path, description: str, digests: Mapping[str, str | None], read: Read) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, expected in digests.items():
            digest = hashlib.sha256()
            with (temporary / name).open("wb") as file:
                for piece in read(name):
                    file.write(piece)
                    digest.update(piece)
            if expected not in (None, digest.hexdigest()):  # None: built before there were any
                raise CorpusError(
                    f"{name} of the corpus {folder.name} arrived with another SHA-256 than its "
                    "corpus.json says: it is damaged at its source, or was on the way"
                )
        (temporary / "corpus.json").write_text(description, encoding="utf-8")
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
