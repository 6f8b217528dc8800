"""Trained and loaded tokenizers."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bimix_tune.corpus.tokenizer import END_OF_TEXT, load_tokenizer, train_tokenizer
from bimix_tune.errors import CorpusError, MissingExtraError

TEXT = "the cat sat on the mat; Grüße 你好 \x00 def f(x):\n\treturn x\n" * 20


def test_training_is_lossless_and_repeatable() -> None:
    first, second = train_tokenizer(280, [TEXT]), train_tokenizer(280, [TEXT])
    assert first.backend.to_str() == second.backend.to_str()
    (ids,) = first.encode([TEXT])
    assert ids[-1] == first.end_token
    assert first.backend.decode(ids[:-1].tolist(), skip_special_tokens=False) == TEXT
    assert first.vocab_size == 280
    assert first.dtype == ids.dtype == "uint16"


def test_text_never_seen_is_still_encoded() -> None:
    codec = train_tokenizer(300, ["only english"])
    unseen = "日本語 🙂"
    (ids,) = codec.encode([unseen])
    assert codec.backend.decode(ids[:-1].tolist()) == unseen


def test_the_name_of_the_end_token_in_a_text_ends_nothing() -> None:
    codec = train_tokenizer(300, [TEXT])
    (ids,) = codec.encode([f"a {END_OF_TEXT} b"])
    assert np.flatnonzero(ids == codec.end_token).tolist() == [len(ids) - 1]


def test_batches_keep_the_order_of_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bimix_tune.corpus.tokenizer._BATCH_CHARACTERS", 10)
    codec = train_tokenizer(300, [TEXT])
    documents = [f"document {i}" for i in range(20)]
    decoded = [codec.backend.decode(ids[:-1].tolist()) for ids in codec.encode(documents)]
    assert decoded == documents


def test_a_large_vocabulary_needs_wider_ids() -> None:
    backend = Backend(models.WordLevel({f"w{i}": i for i in range(70_000)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    codec = type(train_tokenizer(300, [TEXT]))(backend, 0)
    (ids,) = codec.encode(["w69999 w5"])
    assert codec.dtype == "uint32"
    assert ids.tolist() == [69_999, 5, 0]


def test_a_tokenizer_file_and_a_transformers_folder_give_the_same_ids(tmp_path: Path) -> None:
    trained = train_tokenizer(300, [TEXT])
    trained.save(tmp_path / "tokenizer.json")
    from_file = load_tokenizer(str(tmp_path / "tokenizer.json"))
    PreTrainedTokenizerFast(
        tokenizer_object=trained.backend, eos_token=END_OF_TEXT
    ).save_pretrained(tmp_path / "folder")
    from_folder = load_tokenizer(str(tmp_path / "folder"))
    expected = next(trained.encode([TEXT])).tolist()
    assert next(from_file.encode([TEXT])).tolist() == expected
    assert next(from_folder.encode([TEXT])).tolist() == expected


def test_truncation_of_a_saved_tokenizer_is_turned_off(tmp_path: Path) -> None:
    trained = train_tokenizer(300, [TEXT])
    expected = next(trained.encode([TEXT])).tolist()
    trained.backend.enable_truncation(5)
    trained.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert next(loaded.encode([TEXT])).tolist() == expected


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    Backend(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CorpusError, match="has no end-of-text token"):
        load_tokenizer(str(tmp_path / "tokenizer.json"))


def test_a_tokenizer_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot be read"):
        load_tokenizer(str(tmp_path / "none.json"))


def test_a_tokenizer_name_that_cannot_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("not a local folder and not a model identifier")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(CorpusError, match=r"tokenizer 'no/such' cannot be loaded .*not a model"):
        load_tokenizer("no/such")


def test_a_slow_tokenizer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: object())
    with pytest.raises(CorpusError, match="tokenizer 'slow' has no fast form"):
        load_tokenizer("slow")


@pytest.mark.parametrize(
    ("library", "use"),
    [
        ("tokenizers", lambda: train_tokenizer(300, [TEXT])),
        ("tokenizers", lambda: load_tokenizer("a/tokenizer.json")),
        ("transformers", lambda: load_tokenizer("gpt2")),
    ],
)
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, library: str, use: Callable[[], object]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=f"{library}.*pip install"):
        use()
