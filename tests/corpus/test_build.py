"""Building: identity, splits, caching, concurrent builders, refusals."""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend

from bimix_tune.corpus import Corpus, build_corpus
from bimix_tune.corpus.tokenizer import train_tokenizer
from bimix_tune.errors import CorpusError

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "wizards"]


def documents(seed: int, number: int = 60) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(20, 60))) for _ in range(number)]


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return path


@pytest.fixture
def domains(tmp_path: Path) -> dict[str, Path]:
    return {n: write_lines(tmp_path / f"{n}.jsonl", documents(i)) for i, n in enumerate("ab")}


def decoded(corpus: Corpus, name: str, split: str) -> list[str]:
    """The documents of a split, as text."""
    backend = Backend.from_file(str(corpus.folder / "tokenizer.json"))
    tokens = np.asarray(corpus.tokens(name, split))
    parts = np.split(tokens, np.flatnonzero(tokens == corpus.end_token) + 1)[:-1]
    return [backend.decode(p[:-1].tolist()) for p in parts]


def test_every_document_is_in_exactly_one_split(tmp_path: Path, domains: dict[str, Path]) -> None:
    corpus = build_corpus(domains, cache=tmp_path / "cache", tokenizer=300, valid_share=0.2)
    train, valid = (decoded(corpus, "a", s) for s in ("train", "valid"))
    assert sorted(train + valid) == sorted(documents(0))
    assert (
        0.15 < corpus.count("a", "valid") / (corpus.count("a") + corpus.count("a", "valid")) < 0.3
    )
    size = sum(len(t.encode()) for t in valid)
    assert corpus.description["domains"]["a"]["valid"]["bytes"] == size


def test_the_key_depends_on_text_not_on_files(tmp_path: Path, domains: dict[str, Path]) -> None:
    first = build_corpus(domains, cache=tmp_path / "one", tokenizer=300)
    texts = documents(0)
    (tmp_path / "many").mkdir()
    for i, text in enumerate(reversed(texts + texts[:5])):  # other order, with duplicates
        (tmp_path / "many" / f"{i}.txt").write_text(text)
    other = {"a": tmp_path / "many", "b": domains["b"]}
    second = build_corpus(other, cache=tmp_path / "two", tokenizer=300)
    assert first.key == second.key
    for split in ("train", "valid"):
        np.testing.assert_array_equal(first.tokens("a", split), second.tokens("a", split))


@pytest.mark.parametrize(
    "change", [{"tokenizer": 290}, {"valid_share": 0.3}, {"max_bytes_per_domain": 5000}]
)
def test_the_key_depends_on_settings(
    tmp_path: Path, domains: dict[str, Path], change: dict[str, int]
) -> None:
    settings = {"tokenizer": 300, **change}
    first = build_corpus(domains, cache=tmp_path, tokenizer=300)
    assert build_corpus(domains, cache=tmp_path, **settings).key != first.key  # type: ignore[arg-type]


def test_unchanged_files_are_not_read_again(
    tmp_path: Path, domains: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_corpus(domains, cache=tmp_path / "cache", tokenizer=300)
    messages: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("bimix_tune.corpus.build._collect", None)
        again = build_corpus(
            domains, cache=tmp_path / "cache", tokenizer=300, progress=messages.append
        )
    assert again == first
    assert messages == [f"corpus {first.key} is unchanged"]


def test_touched_files_are_read_but_not_tokenised_again(
    tmp_path: Path, domains: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_corpus(domains, cache=tmp_path / "cache", tokenizer=300)
    os.utime(domains["a"], (1, 1))
    monkeypatch.setattr("bimix_tune.corpus.build._write", None)
    assert build_corpus(domains, cache=tmp_path / "cache", tokenizer=300) == first


def test_changed_text_makes_another_corpus(tmp_path: Path, domains: dict[str, Path]) -> None:
    first = build_corpus(domains, cache=tmp_path / "cache", tokenizer=300)
    write_lines(domains["a"], documents(7))
    second = build_corpus(domains, cache=tmp_path / "cache", tokenizer=300)
    assert second.key != first.key
    assert Corpus.open(first.folder).count("a") == first.count("a")


def test_a_deleted_corpus_is_built_again(tmp_path: Path, domains: dict[str, Path]) -> None:
    first = build_corpus(domains, cache=tmp_path / "cache", tokenizer=300)
    for path in first.folder.iterdir():
        path.unlink()
    first.folder.rmdir()
    assert build_corpus(domains, cache=tmp_path / "cache", tokenizer=300).key == first.key


def test_concurrent_builders_agree_and_leave_nothing(
    tmp_path: Path, domains: dict[str, Path]
) -> None:
    def build(_: int) -> Corpus:
        return build_corpus(domains, cache=tmp_path / "cache", tokenizer=300)

    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(build, range(4)))
    assert len(set(built)) == 1
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {built[0].key, "seen"}
    assert len(list((tmp_path / "cache" / "seen").iterdir())) == 1


def test_a_failed_build_leaves_nothing(
    tmp_path: Path, domains: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("bimix_tune.corpus.build._write_domain", fail)
    with pytest.raises(OSError, match="disk full"):
        build_corpus(domains, cache=tmp_path / "cache", tokenizer=300)
    assert not list((tmp_path / "cache").iterdir())


def test_a_rename_that_fails_without_a_rival_is_an_error(
    tmp_path: Path, domains: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(PermissionError):
        build_corpus(domains, cache=tmp_path / "cache", tokenizer=300)


def test_a_cap_bounds_each_domain(tmp_path: Path, domains: dict[str, Path]) -> None:
    corpus = build_corpus(domains, cache=tmp_path, tokenizer=300, max_bytes_per_domain=4000)
    for name in corpus.names:
        size = sum(corpus.description["domains"][name][s]["bytes"] for s in ("train", "valid"))
        assert 4000 <= size < 4500


def test_an_existing_tokenizer_counts_by_content(tmp_path: Path, domains: dict[str, Path]) -> None:
    first = build_corpus(domains, cache=tmp_path / "one", tokenizer=300)
    copies = []
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        copies.append(tmp_path / name / "tokenizer.json")
        copies[-1].write_bytes((first.folder / "tokenizer.json").read_bytes())
    keys = {build_corpus(domains, cache=tmp_path, tokenizer=str(c)).key for c in copies}
    assert len(keys) == 1
    reused = Corpus.open(tmp_path / keys.pop())
    np.testing.assert_array_equal(reused.tokens("b"), first.tokens("b"))


def test_a_tokenizer_changed_in_place_is_noticed(tmp_path: Path, domains: dict[str, Path]) -> None:
    path = tmp_path / "tokenizer.json"
    keys = set()
    for size in (280, 300):
        train_tokenizer(size, documents(3)).save(path)
        keys.add(build_corpus(domains, cache=tmp_path / "cache", tokenizer=str(path)).key)
    assert len(keys) == 2


def test_a_damaged_corpus_is_not_passed_off_as_whole(
    tmp_path: Path, domains: dict[str, Path]
) -> None:
    corpus = build_corpus(domains, cache=tmp_path / "cache", tokenizer=300)
    (corpus.folder / "a.train.bin").write_bytes(b"")
    with pytest.raises(CorpusError, match="has 0 bytes instead of"):
        build_corpus(domains, cache=tmp_path / "cache", tokenizer=300)


@pytest.mark.parametrize("texts", [[], ["  \n"], ["only one"], ["twice", "twice"]])
def test_a_domain_needs_two_documents(tmp_path: Path, texts: list[str]) -> None:
    path = write_lines(tmp_path / "a.jsonl", texts)
    with pytest.raises(CorpusError, match=r"domain 'a' has [01] non-empty document\(s\)"):
        build_corpus({"a": path}, cache=tmp_path / "cache")


def test_errors_of_a_source_name_the_domain(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="domain 'web': no file at"):
        build_corpus({"web": "no/such.jsonl"}, cache=tmp_path)
    (tmp_path / "a.jsonl").write_text("{")
    with pytest.raises(CorpusError, match=r"domain 'web': .*a\.jsonl, line 1: not valid JSON"):
        build_corpus({"web": tmp_path / "a.jsonl"}, cache=tmp_path)
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(CorpusError, match=r"domain 'web': .*\.gz cannot be read: Not a gzipped"):
        build_corpus({"web": tmp_path / "a.jsonl.gz"}, cache=tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer": 256}, "at least 257 tokens .* but got tokenizer=256"),
        ({"valid_share": 0.0}, r"valid_share must be in \(0, 0\.5\], but got 0\.0"),
        ({"valid_share": 0.6}, "but got 0.6"),
        ({"max_bytes_per_domain": 0}, "max_bytes_per_domain must be > 0, got 0"),
    ],
)
def test_settings_out_of_range(
    tmp_path: Path, domains: dict[str, Path], settings: dict[str, float], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        build_corpus(domains, cache=tmp_path, **settings)  # type: ignore[arg-type]


def test_no_domain_at_all(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="at least one domain"):
        build_corpus({}, cache=tmp_path)
