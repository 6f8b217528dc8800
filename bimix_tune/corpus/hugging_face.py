"""Hugging Face data sets as text: from the hub, or from a local folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bimix_tune.corpus.files import file_stamp, text_of
from bimix_tune.errors import CorpusError, did_you_mean, missing_extra


@dataclass(frozen=True)
class HuggingFace:
    """A Hugging Face data set: a hub name, or a local folder.

    A hub name is taken as unchanging in later builds; set ``revision`` to be sure.

    Args:
        hf: Hub name, or a folder written by ``save_to_disk`` or holding data files.
        name: Configuration of the data set.
        split: Which split is read.
        column: Column with the text.
        revision: Git revision on the hub.
        limit: Read only the first so many rows, streaming, so that the rest is never fetched.

    Raises:
        CorpusError: The limit is below one.
    """

    hf: str
    name: str | None = None
    split: str = "train"
    column: str = "text"
    revision: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise CorpusError(f"data set {self.hf!r}: limit must be >= 1, but got {self.limit!r}")

    def documents(self) -> Iterator[str]:
        for number, record in enumerate(self._rows(), 1):
            yield text_of(record, self.column, f"data set {self.hf!r}, row {number}")
            if number == self.limit:
                return

    def _rows(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise missing_extra("datasets", "train", f"reading data set {self.hf!r}") from error
        try:
            if is_saved_dataset(Path(self.hf)):
                return self._saved(datasets.load_from_disk(self.hf))
            return datasets.load_dataset(
                self.hf,
                self.name,
                split=self.split,
                revision=self.revision,
                streaming=self.limit is not None,
            )
        # The library raises its own, fsspec's, the hub's and the network's errors.
        except Exception as error:
            if isinstance(error, CorpusError):
                raise
            raise CorpusError(f"data set {self.hf!r} cannot be loaded: {error}") from error

    def _saved(self, loaded: Any) -> Any:
        if not isinstance(loaded, dict):
            return loaded
        if self.split not in loaded:
            raise CorpusError(
                f"data set {self.hf!r} has no split {self.split!r}"
                + did_you_mean(self.split, loaded)
            )
        return loaded[self.split]

    def stamp(self) -> str:
        folder = Path(self.hf)
        files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
        return "|".join([repr(self), *map(file_stamp, files)])


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was written by ``datasets.Dataset.save_to_disk``."""
    return any((folder / n).is_file() for n in ("state.json", "dataset_dict.json"))
