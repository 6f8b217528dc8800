"""A corpus from elsewhere: fetched once, checked, and never half there."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fsspec")

import fsspec

from bimix_tune.corpus import copy
from bimix_tune.corpus.build import build_corpus
from bimix_tune.corpus.copy import copy_once, sha256_of, token_file
from bimix_tune.corpus.store import Corpus
from bimix_tune.errors import CorpusError


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    for name in ("news", "wiki/en"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(20):
            (tmp_path / name / f"{i}.txt").write_text(f"{name} number {i} " * (i + 5))
    domains = {name: tmp_path / name for name in ("news", "wiki/en")}
    return build_corpus(domains, cache=tmp_path / "built", tokenizer=270)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIMIX_TUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpora"


@pytest.fixture
def url(corpus):
    files = fsspec.filesystem("memory")
    files.put(f"{corpus.folder}/", "/bucket/corpora/one", recursive=True)
    yield "memory://bucket/corpora/one"
    files.rm("/bucket", recursive=True)


def pieces(folder, count=None):
    """A `Read` of a local folder, three bytes less than the whole file at a time."""

    def read(name):
        if count is not None:
            count.append(name)
        data = (folder / name).read_bytes()
        yield data[:-3]
        yield data[-3:]

    return read


def test_a_corpus_lists_the_hashes_of_its_files(corpus):
    hashes = corpus.description["sha256"]
    files = {p.name: sha256_of(p) for p in corpus.folder.iterdir() if p.name != "corpus.json"}
    assert hashes == files
    assert len(files) == 5


def test_a_url_is_fetched_once_and_read_from_this_machine(corpus, url, cache, monkeypatch):
    monkeypatch.setattr(copy, "PIECE", 100)  # many pieces
    there = Corpus.open(url)
    assert there.folder == cache / corpus.key
    assert {p.name for p in there.folder.iterdir()} == {p.name for p in corpus.folder.iterdir()}
    for name in corpus.names:
        tokens = there.tokens(name)
        assert isinstance(tokens, np.memmap)
        np.testing.assert_array_equal(tokens, corpus.tokens(name))
    before = (there.folder / "corpus.json").stat().st_mtime_ns
    assert Corpus.open(url).folder == there.folder
    assert (there.folder / "corpus.json").stat().st_mtime_ns == before


def test_a_damaged_file_is_refused_and_leaves_nothing(corpus, url, cache):
    path = token_file(Path(), "news", "train").name
    files = fsspec.filesystem("memory")
    data = bytearray(files.cat(f"/bucket/corpora/one/{path}"))
    data[7] ^= 1
    files.pipe(f"/bucket/corpora/one/{path}", bytes(data))
    with pytest.raises(CorpusError, match=r"news.train.bin .* another SHA-256"):
        Corpus.open(url)
    assert [p.name for p in cache.iterdir()] in ([], [f"{corpus.key}.lock"])


def test_nothing_at_the_url():
    with pytest.raises(CorpusError, match=r"the corpus memory://bucket/none cannot be read"):
        Corpus.open("memory://bucket/none")
    with pytest.raises(CorpusError, match=r"the corpus nosuch://bucket/none cannot be read"):
        Corpus.open("nosuch://bucket/none")


def test_many_at_once_copy_once(corpus):
    description = (corpus.folder / "corpus.json").read_text()
    read, folders = [], []

    def run():
        folders.append(copy_once(description, pieces(corpus.folder, read), "here"))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1
    assert len(folders) == 4
    assert len(read) == len(set(read)) == 5  # every file once
    assert Corpus.open(folders[0]).key == corpus.key


def test_a_copy_that_broke_off_is_begun_again(corpus, cache):
    description = (corpus.folder / "corpus.json").read_text()

    def broken(name):
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        copy_once(description, broken, "here")
    assert not (cache / corpus.key).exists()
    folder = copy_once(description, pieces(corpus.folder), "here")
    assert Corpus.open(folder).count("news") == corpus.count("news")


def test_a_corpus_without_hashes_is_still_copied_and_its_sizes_are_checked(corpus):
    facts = json.loads((corpus.folder / "corpus.json").read_text())
    del facts["sha256"]
    folder = copy_once(json.dumps(facts), pieces(corpus.folder), "here")
    assert Corpus.open(folder).key == corpus.key


@pytest.mark.parametrize("key", ["../up", "a/b", ""])
def test_a_key_cannot_lead_out_of_the_cache(key):
    with pytest.raises(CorpusError, match="letters and digits"):
        copy_once(json.dumps({"key": key, "domains": {}}), lambda name: iter([]), "there")
