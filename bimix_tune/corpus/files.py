"""Readers of files: one class per format.

A reader yields documents one by one and never holds a whole data file, so the size of a source
is bounded by disk, not by memory.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bimix_tune.errors import CorpusError, missing_extra

BLOCK_CHARACTERS = 16_384
"""About how long the documents are into which one long text is cut."""

FORMATS = ".jsonl, .parquet, plain text (UTF-8), each text form also with .gz or .zst"


def blocks(text: str, size: int = BLOCK_CHARACTERS) -> Iterator[str]:
    """Cut one long text into documents, at blank lines where it has them, else at line ends.

    Args:
        text: Any text.
        size: Least number of characters of a block, except the last one.
    """
    separator = "\n\n" if text.count("\n\n") * size >= len(text) else "\n"
    part: list[str] = []
    length = 0
    for piece in text.split(separator):
        part.append(piece)
        length += len(piece) + len(separator)
        if length >= size:
            yield separator.join(part)
            part, length = [], 0
    if any(part):
        yield separator.join(part)


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedIOBase]:
    """The bytes of a file, decompressed by its last suffix; what cannot be read is named."""
    broken: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    try:
        file: io.BufferedIOBase
        if path.suffix == ".gz":
            file = gzip.GzipFile(path, "rb")
        elif path.suffix == ".zst":
            zstandard = _zstandard(path)
            broken += (zstandard.ZstdError,)
            reader = zstandard.ZstdDecompressor().stream_reader(path.open("rb"))
            file = io.BufferedReader(reader)
        else:
            file = path.open("rb")
        with file:
            yield file
    except broken as error:
        raise CorpusError(f"{path} cannot be read: {error}") from error


def _zstandard(path: Path) -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise missing_extra("zstandard", "train", f"reading {path}") from error
    return zstandard


def file_stamp(path: Path) -> str:
    """Path, size and time of change."""
    status = path.stat()
    return f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}"


def text_of(record: Any, column: str, where: str) -> str:
    """The text in a record, or an error that names what the record holds instead."""
    if not isinstance(record, Mapping):
        raise CorpusError(f"{where}: expected a JSON object, but got {type(record).__name__}")
    if column not in record:
        found = ", ".join(map(str, record))
        raise CorpusError(
            f"{where}: no column {column!r} (set `column` to the one with the text); found: {found}"
        )
    text = record[column]
    if not isinstance(text, str):
        raise CorpusError(f"{where}: column {column!r} must be text, but is {type(text).__name__}")
    return text


@dataclass(frozen=True)
class JsonLines:
    """One JSON object with a text in each line."""

    path: Path
    column: str = "text"

    def documents(self) -> Iterator[str]:
        with _open(self.path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{self.path}, line {number}"
                    try:
                        record = json.loads(line)
                    except ValueError as error:
                        raise CorpusError(f"{where}: not valid JSON: {error}") from error
                    yield text_of(record, self.column, where)

    def stamp(self) -> str:
        return f"{file_stamp(self.path)}:{self.column}"


@dataclass(frozen=True)
class Parquet:
    """A column of text in a Parquet file."""

    path: Path
    column: str = "text"

    def documents(self) -> Iterator[str]:
        try:
            from pyarrow import ArrowInvalid, parquet
        except ImportError as error:
            raise missing_extra("pyarrow", "train", f"reading {self.path}") from error
        try:
            file = parquet.ParquetFile(self.path)
        except ArrowInvalid as error:
            raise CorpusError(f"{self.path} is not a Parquet file: {error}") from error
        with closing(file):
            text_of(dict.fromkeys(file.schema_arrow.names, ""), self.column, str(self.path))
            row = 0
            for batch in file.iter_batches(batch_size=1024, columns=[self.column]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    where = f"{self.path}, row {row}"
                    yield text_of({self.column: text}, self.column, where)

    def stamp(self) -> str:
        return f"{file_stamp(self.path)}:{self.column}"


@dataclass(frozen=True)
class TextFile:
    """A UTF-8 text file: one document, or cut into `blocks` if it is all there is of a source."""

    path: Path
    cut: bool = False

    def documents(self) -> Iterator[str]:
        with _open(self.path) as file:
            content = file.read()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{self.path} is not UTF-8 text (byte {error.start}); formats: {FORMATS}. "
                "Narrow a folder with a glob such as 'folder/**/*.txt'"
            ) from error
        yield from blocks(text) if self.cut else [text]

    def stamp(self) -> str:
        return f"{file_stamp(self.path)}:{self.cut}"
