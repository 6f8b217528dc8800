"""Entropies against closed forms, brute force and known distributions."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma

from bimix_tune import entropy
from bimix_tune.corpus import Corpus
from bimix_tune.errors import CorpusError

END = 0


def corpus_of(folder: Path, domains: dict[str, np.ndarray], vocab_size: int) -> Corpus:
    """A corpus with these training tokens (and the first two as validation)."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {}
    for name, tokens in domains.items():
        parts = {"train": tokens.astype("uint16"), "valid": tokens[:2].astype("uint16")}
        for split, part in parts.items():
            part.tofile(folder / f"{name}.{split}.bin")
        facts[name] = {
            s: {"tokens": len(p), "bytes": len(p), "documents": 1} for s, p in parts.items()
        }
    description = {"vocab_size": vocab_size, "end_token": END, "dtype": "uint16", "domains": facts}
    (folder / "corpus.json").write_text(json.dumps(description))
    return Corpus.open(folder)


def naive_pairs(tokens: np.ndarray) -> dict[tuple[int, int], int]:
    counts: dict[tuple[int, int], int] = {}
    for a, b in zip(tokens.tolist(), tokens.tolist()[1:], strict=False):
        if END not in (a, b):
            counts[a, b] = counts.get((a, b), 0) + 1
    return counts


def plain(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def zipf_pairs(rng: np.random.Generator, size: int, draws: int) -> tuple[np.ndarray, float]:
    """Counts of pairs from a skewed joint distribution, and its entropy."""
    p = 1 / np.arange(1, size + 1) ** 1.1
    p /= p.sum()
    return rng.multinomial(draws, p), float(-(p * np.log(p)).sum())


@pytest.fixture
def text() -> np.ndarray:
    tokens = np.random.default_rng(3).integers(1, 30, 20_000) ** 2 % 31
    tokens[::100] = END
    return tokens


def test_grassbergers_function_is_his_formula_with_digammas() -> None:
    n = np.array([1, 2, 3, 4, 7, 10, 99, 1000, 9999, 10_000, 10_001, 10_002, 123_456])
    sign = np.where(n % 2, -1.0, 1.0)
    expected = digamma(n) + sign / 2 * (digamma((n + 1) / 2) - digamma(n / 2))
    np.testing.assert_allclose(entropy._digamma_like(n), expected, atol=1e-8)


@pytest.mark.parametrize("outcomes", [1, 2, 7, 1000])
def test_many_draws_of_a_uniform_distribution_give_the_log_of_its_size(outcomes: int) -> None:
    counts = np.full(outcomes, 100_000)
    assert entropy.entropy_from_counts(counts, outcomes) == pytest.approx(np.log(outcomes))


def test_the_estimator_at_least_halves_the_error_of_the_plain_formula() -> None:
    rng = np.random.default_rng(0)
    for draws in (20_000, 100_000):
        counts, truth = zipf_pairs(rng, 50_000, draws)
        miller_madow = plain(counts) + ((counts > 0).sum() - 1) / (2 * draws)
        error = abs(entropy.entropy_from_counts(counts, 50_000) - truth)
        assert error < 0.5 * abs(plain(counts) - truth)
        assert error < abs(miller_madow - truth)


def test_no_counts_have_no_entropy() -> None:
    assert entropy.entropy_from_counts([0, 0], 2) == 0.0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_entropy_is_between_zero_and_the_log_of_the_outcomes(counts: list[int]) -> None:
    value = entropy.entropy_from_counts(counts, len(counts))
    assert 0 <= value <= np.log(len(counts)) + 1e-12


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.randoms())
def test_entropy_ignores_the_order_of_outcomes(counts: list[int], random: object) -> None:
    shuffled = counts.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = entropy.entropy_from_counts(counts, len(counts))
    assert first == pytest.approx(entropy.entropy_from_counts(shuffled, len(counts)))


def test_joint_entropy_counts_pairs_inside_documents_only(text: np.ndarray) -> None:
    counts = np.array(list(naive_pairs(text).values()))
    expected = entropy.entropy_from_counts(counts, 31**2)
    assert entropy._joint(text, END, 31) == pytest.approx(expected)
    assert expected == pytest.approx(plain(counts), abs=0.03)


def test_conditional_entropy_is_the_sum_of_its_definition(text: np.ndarray) -> None:
    pairs = naive_pairs(text)
    total = sum(pairs.values())
    first: dict[int, int] = {}
    for (a, _), n in pairs.items():
        first[a] = first.get(a, 0) + n
    expected = -sum(n / total * np.log(n / first[a]) for (a, _), n in pairs.items())
    assert entropy._conditional(text, END, 31) == pytest.approx(expected, abs=0.03)


def test_chain_rule_holds_up_to_the_edges_of_documents(text: np.ndarray) -> None:
    joint = entropy._joint(text, END, 31)
    parts = entropy._shannon(text, END, 31) + entropy._conditional(text, END, 31)
    assert joint == pytest.approx(parts, abs=1e-3)


def test_a_deterministic_successor_has_no_conditional_entropy() -> None:
    cycle = np.tile(np.arange(1, 9), 5000)
    assert entropy._conditional(cycle, END, 9) == pytest.approx(0, abs=1e-3)
    assert entropy._shannon(cycle, END, 9) == pytest.approx(np.log(8), abs=1e-6)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_von_neumann_entropy_agrees_with_the_large_kernel(n: int, d: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit @ unit.T / n)
    values = values[values > 1e-12]
    value = entropy.von_neumann_entropy(vectors)
    assert value == pytest.approx(-(values * np.log(values)).sum(), abs=1e-9)
    assert 0 <= value <= np.log(min(n, d)) + 1e-9
    assert value == pytest.approx(entropy.von_neumann_entropy(vectors[::-1]), abs=1e-9)


def test_von_neumann_entropy_of_copies_and_of_nothing_is_zero() -> None:
    assert entropy.von_neumann_entropy(np.ones((5, 3))) == pytest.approx(0)
    assert entropy.von_neumann_entropy(np.zeros((5, 3))) == 0.0
    padded = np.vstack([np.eye(3), np.zeros((2, 3))])
    assert entropy.von_neumann_entropy(padded) == pytest.approx(np.log(3))


def test_words_in_the_same_company_get_similar_vectors() -> None:
    rng = np.random.default_rng(0)
    fruit = np.stack([rng.integers(1, 3, 4000), rng.integers(3, 6, 4000)], axis=1).ravel()
    tools = np.stack([rng.integers(6, 8, 4000), rng.integers(8, 11, 4000)], axis=1).ravel()
    vectors = entropy.word_vectors([fruit, tools], END, 12)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    assert unit[1] @ unit[2] > 0.9
    assert abs(unit[1] @ unit[6]) < 0.1
    assert not vectors[11].any() and not vectors[END].any()


def test_word_vectors_do_not_look_across_documents() -> None:
    tokens = np.tile([1, END, 2, END], 500)
    assert not entropy.word_vectors([tokens], END, 3).any()


def test_varied_domains_have_greater_von_neumann_entropy(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    topics = [rng.integers(1 + 10 * k, 11 + 10 * k, 4000) for k in range(8)]
    one = rng.integers(1, 11, 32_000)
    corpus = corpus_of(tmp_path, {"one": one, "many": np.concatenate(topics)}, 100)
    values = entropy.domain_entropies(corpus, "VNE")
    assert values["one"] < 0.2
    assert values["many"] == pytest.approx(np.log(8), abs=0.2)


@pytest.mark.parametrize("kind", entropy.KINDS)
def test_all_kinds_on_a_corpus(tmp_path: Path, text: np.ndarray, kind: str) -> None:
    narrow = np.where(text > 0, text % 4 + 1, END)
    corpus = corpus_of(tmp_path, {"wide": text, "narrow": narrow}, 31)
    values = entropy.domain_entropies(corpus, kind.lower())
    assert values == entropy.domain_entropies(corpus, kind)
    mixture = entropy.entropy_mixture(corpus, kind)
    assert mixture.names == ("wide", "narrow")
    gap = values["wide"] - values["narrow"]
    assert np.log(mixture["wide"] / mixture["narrow"]) == pytest.approx(gap)
    assert gap > 0


def test_every_domain_is_measured_on_as_many_tokens_as_the_smallest_has(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    long = np.concatenate([rng.integers(1, 5, 1000), rng.integers(1, 90, 50_000)])
    corpus = corpus_of(tmp_path, {"short": long[:1000], "long": long}, 100)
    values = entropy.domain_entropies(corpus, "JE")
    assert values["short"] == values["long"]
    capped = entropy.domain_entropies(corpus, "SE", max_tokens=500)
    assert capped["long"] == entropy._shannon(long[:500].astype(np.int64), END, 100)


def test_unknown_kind_names_the_nearest(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, {"a": np.arange(1, 10)}, 10)
    with pytest.raises(CorpusError, match="unknown entropy 'VN'; did you mean 'VNE'"):
        entropy.domain_entropies(corpus, "VN")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_renaming_tokens_changes_no_entropy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 20, 500)
    renamed = np.concatenate([[END], 1 + rng.permutation(19)])[tokens]
    for kind in ("SE", "CE", "JE"):
        before, after = (entropy._MEASURES[kind]([t], END, 20) for t in (tokens, renamed))
        assert before == pytest.approx(after)
