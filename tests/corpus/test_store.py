"""A corpus on disk: what it answers and what it refuses."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from bimix_tune.corpus.build import build_corpus
from bimix_tune.corpus.copy import token_file
from bimix_tune.corpus.store import Corpus
from bimix_tune.errors import CorpusError


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    for name in ("news", "Wiki (en)"):
        (tmp_path / name).mkdir()
        for i in range(40):
            (tmp_path / name / f"{i}.txt").write_text(f"{name} number {i} " * (i + 5))
    domains = {name: tmp_path / name for name in ("news", "Wiki (en)")}
    return build_corpus(domains, cache=tmp_path / "cache", tokenizer=270)


def test_tokens_are_mapped_read_only_and_complete(corpus: Corpus) -> None:
    assert corpus.names == ("news", "Wiki (en)")
    for name in corpus.names:
        for split in ("train", "valid"):
            tokens = corpus.tokens(name, split)
            assert isinstance(tokens, np.memmap)
            assert tokens.shape == (corpus.count(name, split),)
            assert tokens[-1] == corpus.end_token
            assert tokens.max() < corpus.vocab_size == 270
            assert not tokens.flags.writeable


def test_bytes_per_token_turn_nats_into_bits(corpus: Corpus) -> None:
    facts = corpus.description["domains"]["news"]["valid"]
    nats_per_token = 2.0
    bits = nats_per_token * facts["tokens"] / math.log(2)
    per_byte = nats_per_token / (math.log(2) * corpus.bytes_per_token("news"))
    assert per_byte == pytest.approx(bits / facts["bytes"])


def test_domains_know_their_training_tokens(corpus: Corpus) -> None:
    domains = corpus.domains()
    assert [d.name for d in domains] == list(corpus.names)
    assert [d.tokens for d in domains] == [corpus.count(n) for n in corpus.names]


def test_a_corpus_travels_and_opens_again(corpus: Corpus) -> None:
    assert pickle.loads(pickle.dumps(corpus)) == corpus == Corpus.open(corpus.folder)
    assert corpus.folder.name == corpus.key


def test_a_split_needs_one_whole_sequence(corpus: Corpus) -> None:
    least = min(corpus.count(n, s) for n in corpus.names for s in ("train", "valid"))
    corpus.require(least - 1)
    with pytest.raises(CorpusError, match=rf"domain .* has \d+ training and {least} validation"):
        corpus.require(least)


def test_unknown_names_are_explained(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="no domain 'new'; did you mean 'news'"):
        corpus.tokens("new")
    with pytest.raises(CorpusError, match="a split is 'train' or 'valid', but got 'test'"):
        corpus.count("news", "test")


def test_a_folder_that_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"is no corpus: it has no readable corpus\.json"):
        Corpus.open(tmp_path)
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(CorpusError, match="is not valid JSON"):
        Corpus.open(tmp_path)


def test_a_damaged_file_is_noticed(corpus: Corpus) -> None:
    path = token_file(corpus.folder, "news", "valid")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(CorpusError, match=r"news\.valid\.bin has \d+ bytes instead of"):
        Corpus.open(corpus.folder)


def test_names_with_slashes_stay_inside_the_folder(tmp_path: Path) -> None:
    path = token_file(tmp_path, "../up/here", "train")
    assert path.parent == tmp_path


def test_the_description_is_complete(corpus: Corpus) -> None:
    written = json.loads((corpus.folder / "corpus.json").read_text())
    assert written["settings"]["tokenizer"] == 270
    assert written["domains"]["news"]["train"].keys() == {"tokens", "bytes", "documents"}
    assert len(written["sources"]["news"]) == 5 and written["sources"]["news"][-1] == "and 36 more"
