"""What a user may call a source, and Hugging Face data sets."""

import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest

from bimix_tune.corpus.files import JsonLines, Parquet, TextFile
from bimix_tune.corpus.hugging_face import HuggingFace
from bimix_tune.corpus.sources import Source, sources_of
from bimix_tune.errors import CorpusError, MissingExtraError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("b.txt", "a.jsonl", "c.parquet", "deep/d.md", "e.jsonl.zst", ".git/x", ".hidden"):
        (tmp_path / name).write_text(f"text of {name}")
    return tmp_path


def test_a_folder_is_read_file_by_file_by_name(folder: Path) -> None:
    assert sources_of(folder) == [
        JsonLines(folder / "a.jsonl"),
        TextFile(folder / "b.txt"),
        Parquet(folder / "c.parquet"),
        TextFile(folder / "deep" / "d.md"),
        JsonLines(folder / "e.jsonl.zst"),
    ]


def test_a_glob_reaches_into_folders(folder: Path) -> None:
    found = sources_of(str(folder / "**" / "*.md"))
    assert found == [TextFile(folder / "deep" / "d.md")]


def test_a_single_text_file_is_cut_into_documents(folder: Path) -> None:
    assert sources_of(folder / "b.txt") == [TextFile(folder / "b.txt", cut=True)]


def test_a_list_mixes_forms(folder: Path) -> None:
    mapping = {"path": str(folder / "a.jsonl"), "column": "body"}
    found = sources_of([mapping, str(folder / "c.parquet"), "hf:some/set"])
    assert found == [
        JsonLines(folder / "a.jsonl", "body"),
        Parquet(folder / "c.parquet"),
        HuggingFace("some/set"),
    ]


def test_a_readers_own_class_is_a_source() -> None:
    class Mine:
        def documents(self) -> Iterator[str]:
            yield "x"

        def stamp(self) -> str:
            return "1"

    mine = Mine()
    assert isinstance(mine, Source)
    assert sources_of(mine) == [mine]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no/such/file.jsonl", "no file at 'no/such/file.jsonl'"),
        ("no/such/*.jsonl", "no file at"),
        ({"file": "x"}, "a source needs `path` or `hf`, but has only file"),
        ({"path": "x", "colum": "y"}, "unknown key 'colum'; did you mean 'column'"),
        ({"hf": "x", "splits": "y"}, "unknown key 'splits'; did you mean 'split'"),
        ({"hf": "x", "limit": 0}, "limit must be >= 1, but got 0"),
        ({"hf": "x", "limit": "many"}, "source.limit must be a whole number"),
        (7, "must be a path, a mapping or a list, but got 7"),
    ],
)
def test_what_is_no_source(spec: object, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        sources_of(spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.zip", "a.csv.gz"])
def test_an_unknown_format_names_the_known_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(CorpusError, match=r"unknown format .*known: \.jsonl, \.parquet"):
        sources_of(tmp_path / name)


def test_a_saved_data_set_is_recognised(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    datasets.Dataset.from_dict({"body": ["x", "y"], "n": [1, 2]}).save_to_disk(folder)
    (source,) = sources_of({"path": folder, "column": "body"})
    assert list(source.documents()) == ["x", "y"]
    with pytest.raises(CorpusError, match=r"row 1: no column 'text'.*found: body, n"):
        list(HuggingFace(folder).documents())


def test_a_saved_collection_has_splits(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    parts = {s: datasets.Dataset.from_dict({"text": [s]}) for s in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(folder)
    assert list(HuggingFace(folder, split="test").documents()) == ["test"]
    with pytest.raises(CorpusError, match="no split 'tests'; did you mean 'test'"):
        list(HuggingFace(folder, split="tests").documents())


def test_a_folder_of_data_files_streams_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text('{"text": "x"}\n{"text": "y"}\n{"text": "z"}\n')
    source = HuggingFace(str(tmp_path / "data"), limit=2)
    assert list(source.documents()) == ["x", "y"]
    assert "a.jsonl" in source.stamp()


def test_a_data_set_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(CorpusError, match="data set 'some/set' cannot be loaded: no network"):
        list(HuggingFace("some/set").documents())


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"datasets.*pip install"):
        list(HuggingFace("some/set").documents())
