"""The corpus reaches a node that does not see it, once, and costs no worker its size."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray")

from bimix_tune.corpus.copy import sha256_of
from bimix_tune.executors.ray_cluster import ray
from bimix_tune.executors.ray_corpus import CorpusSource

TOKENS = 20_000_000  # 40 MB, in pieces of 8


@dataclasses.dataclass(frozen=True)
class Reader:
    corpus: str | Path

    def with_corpus(self, folder):
        return dataclasses.replace(self, corpus=folder)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    np.arange(TOKENS, dtype=np.uint16).tofile(folder / "web.train.bin")
    np.arange(50, dtype=np.uint16).tofile(folder / "web.valid.bin")
    (folder / "tokenizer.json").write_text("{}")
    facts = {"train": {"tokens": TOKENS, "bytes": 1}, "valid": {"tokens": 50, "bytes": 1}}
    description = {"key": "k1", "dtype": "uint16", "domains": {"web": facts}}
    description["sha256"] = {p.name: sha256_of(p) for p in folder.iterdir()}
    (folder / "corpus.json").write_text(json.dumps(description))
    return folder


def fetch_and_read(source, cache, path):
    """In a worker: bring the corpus here, read all of it; its folder and own memory in bytes."""
    import os
    import sys
    from pathlib import Path

    import numpy as np

    sys.path[:] = path
    os.environ["BIMIX_TUNE_CACHE"] = cache
    from bimix_tune.corpus import Corpus, copy
    from bimix_tune.executors import ray_corpus

    copy.PIECE = ray_corpus.PIECE = 8 * 2**20

    class Reader:
        corpus = "elsewhere"

        def with_corpus(self, folder):
            self.corpus = folder
            return self

    def own_memory():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024

    before = own_memory()
    trainer = source.bring_to(Reader())
    tokens = Corpus.open(trainer.corpus).tokens("web")
    assert isinstance(tokens, np.memmap)
    total = int(tokens.sum(dtype=np.int64))
    return str(trainer.corpus), total, own_memory() - before


@pytest.mark.usefixtures("ray_cluster")
class TestCorpusSource:
    def test_a_node_that_sees_the_corpus_uses_it_as_it_is(self, folder):
        trainer = Reader(folder)
        assert CorpusSource.of(trainer).bring_to(trainer) is trainer

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
    def test_another_node_gets_one_copy_which_its_workers_share(self, folder, tmp_path):
        source = CorpusSource.of(Reader(folder))
        (folder / "corpus.json").rename(folder / "hidden.json")  # now no worker sees it
        fetch = ray.remote(num_cpus=0)(fetch_and_read)
        cache = str(tmp_path / "cache")
        results = ray.get([fetch.remote(source, cache, sys.path) for _ in range(2)], timeout=300)
        expected = int(np.arange(TOKENS, dtype=np.uint16).sum(dtype=np.int64))
        for copied, total, memory in results:
            assert copied == os.path.join(cache, "corpora", "k1")
            assert total == expected
            assert memory < TOKENS * 2 / 2  # the corpus is 40 MB, a piece 8
        left = {path.name for path in (tmp_path / "cache" / "corpora").iterdir()}
        assert left == {"k1", "k1.lock"}


def test_a_torch_trainer_goes_on_with_another_folder(folder, tmp_path):
    pytest.importorskip("torch")
    from bimix_tune.training.llama import LlamaTrainer

    trainer = LlamaTrainer(corpus=folder, size="0.1M", tokens=1000, checkpoints=3)
    copied = shutil.copytree(folder, tmp_path / "copied")
    other = trainer.with_corpus(copied)
    assert other.corpus == copied
    assert dataclasses.replace(other, corpus=folder) == trainer


def test_only_a_trainer_with_a_local_corpus_has_a_source():
    class Url(Reader):
        pass

    assert CorpusSource.of(object()) is None
    assert CorpusSource.of(Url("s3://bucket/corpus")) is None
