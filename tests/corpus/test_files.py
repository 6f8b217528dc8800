"""Readers of files."""

import gzip
import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bimix_tune.corpus.files import JsonLines, Parquet, TextFile, blocks
from bimix_tune.errors import CorpusError, MissingExtraError

TEXTS = ["one\ntwo", "Grüße — 你好", 'quotes " and \\']
LINES = "".join(json.dumps({"text": t, "id": 1}) + "\n" for t in TEXTS).encode()


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".jsonl", bytes),
        (".jsonl.gz", gzip.compress),
        (".jsonl.zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_json_lines_in_every_packing(tmp_path: Path, suffix: str, pack: object) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pack(LINES))  # type: ignore[operator]
    assert list(JsonLines(path).documents()) == TEXTS


def test_json_lines_of_another_column_skip_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"content": "x"}\n\n{"content": "y"}\n')
    assert list(JsonLines(path, "content").documents()) == ["x", "y"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ', r"a\.jsonl, line 2: not valid JSON"),
        ('["text"]', r"line 2: expected a JSON object, but got list"),
        ('{"body": "x", "id": 3}', r"line 2: no column 'text'.*found: body, id"),
        ('{"text": 7}', r"line 2: column 'text' must be text, but is int"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(CorpusError, match=message):
        list(JsonLines(path).documents())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", None),
        ("a.jsonl.gz", b"no archive"),
        ("a.jsonl.gz", gzip.compress(LINES * 100)[:-20]),
        ("a.jsonl.zst", b"no archive"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=f"{name} cannot be read"):
        list(JsonLines(tmp_path / name).documents())


@pytest.mark.parametrize(
    ("library", "source"),
    [
        ("zstandard", JsonLines(Path("a.jsonl.zst"))),
        ("pyarrow", Parquet(Path("a.parquet"))),
    ],
)
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, library: str, source: JsonLines | Parquet
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=f"{library}.*pip install"):
        list(source.documents())


def parquet(path: Path, **columns: list[object]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", text=TEXTS, n=[1, 2, 3])
    assert list(Parquet(path).documents()) == TEXTS


def test_parquet_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", body=TEXTS, n=[1, 2, 3])
    with pytest.raises(CorpusError, match=r"no column 'text'.*found: body, n"):
        list(Parquet(path).documents())


def test_parquet_with_a_missing_value_names_the_row(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", text=["x", None])
    with pytest.raises(CorpusError, match="row 2: column 'text' must be text, but is NoneType"):
        list(Parquet(path).documents())


def test_a_file_that_is_not_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"no such thing")
    with pytest.raises(CorpusError, match="is not a Parquet file"):
        list(Parquet(path).documents())


def test_text_files_may_be_packed_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + "Grüße".encode()))
    assert list(TextFile(path).documents()) == ["Grüße"]


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"a\.txt is not UTF-8 text \(byte 2\)"):
        list(TextFile(path).documents())


def test_a_long_text_is_cut_at_blank_lines() -> None:
    paragraphs = [f"paragraph {i}\nsecond line" for i in range(100)]
    parts = list(blocks("\n\n".join(paragraphs), size=200))
    assert len(parts) > 5
    assert all(p.startswith("paragraph") and p.endswith("second line") for p in parts)
    assert all(len(p) >= 190 for p in parts[:-1])


@given(st.text(alphabet="ab\n", max_size=200), st.integers(1, 50))
def test_cutting_loses_only_separators(text: str, size: int) -> None:
    assert "".join(blocks(text, size)).replace("\n", "") == text.replace("\n", "")


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    before = JsonLines(path).stamp()
    path.write_bytes(LINES * 2)
    assert JsonLines(path).stamp() != before
