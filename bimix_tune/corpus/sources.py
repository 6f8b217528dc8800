"""What a user may call a source of text, and which reader is meant.

What a file is follows from its name alone, since a wrong guess about content would train a
proxy on markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any, Protocol, get_type_hints, runtime_checkable

from bimix_tune.corpus.files import FORMATS, JsonLines, Parquet, TextFile
from bimix_tune.corpus.hugging_face import HuggingFace, is_saved_dataset
from bimix_tune.errors import ConfigError, CorpusError, did_you_mean
from bimix_tune.options import typed

_FOREIGN = {".json", ".csv", ".tsv", ".zip", ".tar", ".tgz", ".xz", ".bz2", ".arrow", ".npy"}
_FOREIGN |= {".bin", ".pdf", ".docx", ".epub", ".xml", ".html", ".pkl", ".safetensors"}


@runtime_checkable
class Source(Protocol):
    """Text of a domain."""

    def documents(self) -> Iterator[str]:
        """The documents, in any fixed order.

        Raises:
            CorpusError: The source is missing, or a record cannot be read.
        """

    def stamp(self) -> str:
        """A cheap sign that changes when the content does: sizes and times, not the text."""


Spec = str | Path | Mapping[str, Any] | Source
"""One source as a user writes it: a path or glob, ``"hf:name"``, a mapping, or a `Source`."""


def _file(path: Path, column: str, alone: bool) -> Source:
    """The reader for a file, by its name."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last == ".jsonl":
        return JsonLines(path, column)
    if last == ".parquet":
        return Parquet(path, column)
    if last in _FOREIGN:
        hint = " (one JSON object per line? then name it .jsonl)" if last == ".json" else ""
        raise CorpusError(f"{path}: unknown format {last!r}{hint}; known: {FORMATS}")
    return TextFile(path, cut=alone)


def _from_path(text: str, column: str) -> list[Source]:
    path = Path(text).expanduser()
    if is_saved_dataset(path):
        return [HuggingFace(str(path), column=column)]
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        hidden = [p for p in inside if any(s.startswith(".") for s in p.relative_to(path).parts)]
        found = [p for p in inside if p not in set(hidden)]
    elif path.is_file():
        return [_file(path, column, alone=True)]
    else:
        found = [Path(p) for p in sorted(glob(str(path), recursive=True)) if Path(p).is_file()]
    if not found:
        raise CorpusError(f"no file at {text!r} (a path, a folder or a glob such as 'd/**/*.txt')")
    return [_file(p, column, alone=False) for p in found]


def _from_mapping(spec: Mapping[str, Any]) -> list[Source]:
    known = {"path": ("path", "column"), "hf": tuple(HuggingFace.__dataclass_fields__)}
    kind = next((k for k in known if k in spec), None)
    if kind is None:
        raise CorpusError(f"a source needs `path` or `hf`, but has only {', '.join(spec) or '{}'}")
    for key in spec:
        if key not in known[kind]:
            raise CorpusError(
                f"source {spec[kind]!r} has an unknown key {key!r}" + did_you_mean(key, known[kind])
            )
    if kind == "hf":
        try:
            return [HuggingFace(**typed("source", get_type_hints(HuggingFace), spec))]
        except ConfigError as error:
            raise CorpusError(str(error)) from error
    return _from_path(str(spec["path"]), str(spec.get("column", "text")))


def sources_of(spec: Spec | Sequence[Spec]) -> list[Source]:
    """The sources that a user's words mean.

    Args:
        spec: ``"folder/*.jsonl.zst"``, ``"hf:name"``, ``{"path": ..., "column": ...}``,
            ``{"hf": ..., "split": ...}`` (see `HuggingFace`), a `Source`, or a list of these.

    Raises:
        CorpusError: A file does not exist, its format is unknown, a key is unknown, or a value
            is not of its type.
    """
    if isinstance(spec, str | Path):
        text = str(spec)
        is_hub = text.startswith("hf:")
        return [HuggingFace(text[3:])] if is_hub else _from_path(text, "text")
    if isinstance(spec, Mapping):
        return _from_mapping(spec)
    if isinstance(spec, Source):
        return [spec]
    if isinstance(spec, Sequence):
        return [source for item in spec for source in sources_of(item)]
    raise CorpusError(f"a source must be a path, a mapping or a list, but got {spec!r}")
