import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tune import Domain, Mixture, SearchSpace
from bimix_tune.corpus import Corpus
from bimix_tune.errors import SpaceError
from bimix_tune.strategies.baselines import baseline_mixtures, distinct, unimax


def space_of(tokens):
    return SearchSpace([Domain(f"d{i}", tokens=t) for i, t in enumerate(tokens)])


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=9), st.floats(0.01, 0.99))
def test_unimax_is_flat_above_its_caps(tokens, share):
    space, budget = space_of(tokens), max(int(share * sum(tokens)), 1)
    r = np.array(list(unimax(space, budget).values()))
    caps = np.array(tokens) / budget
    assert r.sum() == pytest.approx(1, abs=1e-9)
    assert (r <= caps + 1e-6).all()
    free = r < caps - 1e-6
    if free.any():
        assert np.ptp(r[free]) < 1e-6  # the rest share equally ...
        assert (r[~free] <= r[free].min() + 1e-6).all()  # ... and no less than the capped ones


def test_unimax_follows_the_algorithm_of_the_paper():
    """Chung et al. 2023, algorithm 1: smallest first, min(rest / remaining, N * tokens)."""
    tokens, budget, epochs = [10, 200, 50, 1000], 600, 2
    rest, left, share = budget, 4, {}
    for i in np.argsort(tokens):
        share[i] = min(rest / left, epochs * tokens[i])
        rest, left = rest - share[i], left - 1
    expected = [share[i] / budget for i in range(4)]
    assert list(unimax(space_of(tokens), budget, epochs).values()) == pytest.approx(expected)


def test_unimax_without_enough_text_is_proportional():
    assert list(unimax(space_of([10, 30]), 1000).values()) == pytest.approx([0.25, 0.75])


def test_unimax_needs_tokens():
    with pytest.raises(SpaceError, match=r"missing for \['b'\]"):
        unimax(SearchSpace([Domain("a", tokens=5), "b"]), 10)


def test_what_is_not_known_is_left_out():
    assert list(baseline_mixtures(SearchSpace(["a", "b"]))) == ["natural", "uniform"]
    assert list(baseline_mixtures(space_of([3, 4]), budget=5)) == ["natural", "uniform", "UniMax"]


def test_baselines_respect_bounds():
    space = SearchSpace([Domain("a", tokens=9, high=0.3), Domain("b", tokens=1)])
    assert all(m["a"] <= 0.3 + 1e-9 for m in baseline_mixtures(space, budget=5).values())


def corpus_of(folder, names):
    """A corpus whose later domains use more different tokens."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        for split in ("train", "valid"):
            rng.integers(1, 4 + 3 * i, 400).astype("uint16").tofile(folder / f"{name}.{split}.bin")
    part = {"tokens": 400, "bytes": 400, "documents": 1}
    domains = {name: {"train": part, "valid": part} for name in names}
    description = {"vocab_size": 50, "end_token": 0, "dtype": "uint16", "domains": domains}
    (folder / "corpus.json").write_text(json.dumps(description))
    return Corpus.open(folder)


def test_entropies_of_a_larger_corpus_are_those_of_the_spaces_domains(tmp_path):
    corpus = corpus_of(tmp_path, ["c", "a", "b"])
    found = baseline_mixtures(SearchSpace(["a", "b"]), corpus)
    assert set(found) == {"natural", "uniform", "SE", "CE", "JE", "VNE"}
    assert all(m.names == ("a", "b") for m in found.values())
    assert found["SE"]["b"] > found["SE"]["a"]


def test_a_corpus_without_a_domain_of_the_space_is_an_error(tmp_path):
    corpus = corpus_of(tmp_path, ["a", "b"])
    with pytest.raises(SpaceError, match=r"no domain \['web'\], only \['a', 'b'\]: build it"):
        baseline_mixtures(SearchSpace(["a", "web"]), corpus)


def test_equal_mixtures_are_run_once():
    half, third = Mixture("ab", [0.5, 0.5]), Mixture("ab", [0.3, 0.7])
    merged = distinct({"x": half, "y": third, "z": Mixture("ab", [0.5001, 0.4999])})
    assert list(merged) == ["x = z", "y"]
