"""Sequences are dealt exactly in proportion, and the same text comes first in every run."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from bimix_tune.errors import MixtureError
from bimix_tune.space import Domain, SearchSpace
from bimix_tune.training.mixing import MixedReader, Quota, Windows, matched_repetition

weights = st.lists(st.floats(0, 1), min_size=1, max_size=12).filter(lambda w: sum(w) > 0.01)


@given(weights, st.integers(1, 400))
def test_every_prefix_keeps_the_quota(values: list[float], count: int) -> None:
    r = np.array(values) / sum(values)
    r[r < 1e-9] = 0
    drawn = Quota(list(r)).draw(count)
    counts = np.cumsum(drawn[:, None] == np.arange(len(r)), axis=0)
    error = np.abs(counts - np.arange(1, count + 1)[:, None] * r)
    k = max(2, int((r > 0).sum()))
    assert error.max() <= 1 - 1 / (2 * k - 2) + 1e-6
    assert not counts[-1][r == 0].any()


@given(weights, st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_batches_do_not_matter(values: list[float], batches: list[int]) -> None:
    r = [v / sum(values) for v in values]
    quota = Quota(r)
    parts = np.concatenate([quota.draw(n) for n in batches])
    assert parts.tolist() == Quota(r).draw(sum(batches)).tolist()


def test_a_million_tokens_in_thousands() -> None:
    r = np.array([0.0013, 0.5, 0.1987, 0.3])
    drawn = Quota(list(r)).draw(8192)  # 2^20 tokens in sequences of 128
    assert np.abs(np.bincount(drawn) / 8192 - r).max() < 1.3e-4


@given(st.integers(2, 60), st.integers(1, 9), st.lists(st.integers(0, 30), max_size=6))
def test_each_epoch_visits_every_window_once(tokens: int, length: int, takes: list[int]) -> None:
    if tokens <= length:
        return
    windows = Windows(np.arange(tokens, dtype=np.uint16), length, seed=3, name="a")
    starts = np.concatenate([windows.take(n) for n in [*takes, windows.count]])
    for first in range(0, len(starts) - windows.count + 1, windows.count):
        epoch = starts[first : first + windows.count]
        assert sorted(epoch) == [i * length for i in range(windows.count)]
    assert starts.max() + length < tokens
    assert windows.taken == len(starts)


def reader(mixture: dict[str, float], seed: int = 0) -> MixedReader:
    tokens = {
        "a": np.arange(1000, dtype=np.uint16),
        "b": np.arange(1000, 4000, dtype=np.uint16),
        "c": np.arange(4000, 4500, dtype=np.uint16),
    }
    return MixedReader(tokens, mixture, length=10, seed=seed)


def rows_of(batch: np.ndarray, low: int, high: int) -> list[int]:
    return [row[0] for row in batch.tolist() if low <= row[0] < high]


def test_the_same_text_comes_first_whatever_the_mixture() -> None:
    one = reader({"a": 0.5, "b": 0.4, "c": 0.1}).batch(100)
    two = reader({"a": 0.1, "b": 0.1, "c": 0.8}).batch(200)
    for low, high in ((0, 1000), (1000, 4000), (4000, 4500)):
        first, second = rows_of(one, low, high), rows_of(two, low, high)
        shared = min(len(first), len(second))
        assert shared >= 10
        assert first[:shared] == second[:shared]


def test_seed_and_epoch_change_the_order() -> None:
    only_c = {"a": 0.0, "b": 0.0, "c": 1.0}
    batch = reader(only_c).batch(98)  # 49 windows: two epochs
    assert sorted(batch[:49, 0]) == sorted(batch[49:, 0])
    assert batch[:49, 0].tolist() != batch[49:, 0].tolist()
    assert batch[:49, 0].tolist() != reader(only_c, seed=1).batch(49)[:, 0].tolist()
    assert (np.diff(batch, axis=1) == 1).all()


def test_epochs_are_counted() -> None:
    r = reader({"a": 0.5, "b": 0.0, "c": 0.5})
    r.batch(98)
    assert r.epochs(r.position()) == {"a": pytest.approx(49 / 99), "c": pytest.approx(1.0)}


def test_unknown_domains_are_named() -> None:
    with pytest.raises(MixtureError, match="domain 'd'"):
        reader({"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.1})


@given(
    st.lists(st.integers(100, 4000), min_size=2, max_size=5),
    st.integers(50, 400),
    st.floats(1, 30),
    st.integers(0, 3),
)
def test_text_repeats_as_in_the_real_training(
    counts: list[int], sequences: int, factor: float, seed: int
) -> None:
    """Passes are ``r T* / N``, but for the rounding of what is read to whole windows."""
    length, tokens = 10, 10 * sequences
    target = round(factor * tokens)
    names = [f"d{i}" for i in range(len(counts))]
    space = SearchSpace([Domain(n, tokens=c) for n, c in zip(names, counts, strict=True)])
    limits = matched_repetition(space, tokens, target)
    text = {n: np.zeros(c + 1, np.uint16) for n, c in zip(names, counts, strict=True)}
    mixture = space.uniform()
    mixed = MixedReader(text, mixture, length, seed, limits)
    mixed.batch(sequences)
    for name, count in zip(names, counts, strict=True):
        passes = mixture[name] * target / count
        windows = max(1.0, count * tokens / target / length)  # that should be read, with a fraction
        taken = mixed.position()[name]
        read = taken / mixed.epochs(mixed.position())[name] if taken else windows
        assert abs(read - windows) < 1
        assert abs(taken - sequences * mixture[name]) <= 1
        if count * tokens / target >= length:
            assert abs(taken - passes * windows) <= 1 + 1e-6 * taken  # r T* / N passes over them


def test_all_runs_repeat_the_same_text() -> None:
    tokens = {"a": np.arange(1001, dtype=np.uint16), "b": np.arange(2000, 3001, dtype=np.uint16)}
    read = []
    for share, seed in ((0.5, 0), (0.9, 0), (0.2, 1)):
        mixed = MixedReader(tokens, {"a": share, "b": 1 - share}, 10, seed, {"a": 70})
        read.append({row[0] for row in mixed.batch(200).tolist() if row[0] < 2000})
    assert len(read[0]) == 7
    assert read[0] == read[1] == read[2]
    assert read[0] != set(range(0, 70, 10))


def test_what_is_left_out_of_the_limits_is_read_whole() -> None:
    tokens = {"a": np.arange(1001, dtype=np.uint16)}
    for limits in (None, {}, {"a": 1000}, {"a": 10**12}):
        whole = MixedReader(tokens, {"a": 1.0}, 10, 3, limits).batch(100)
        assert whole.tolist() == MixedReader(tokens, {"a": 1.0}, 10, 3).batch(100).tolist()
    one = MixedReader(tokens, {"a": 1.0}, 10, 3, {"a": 1})
    assert len(set(one.batch(5)[:, 0].tolist())) == 1
    assert one.epochs(one.position()) == {"a": 5.0}


@given(weights, st.lists(st.integers(0, 40), min_size=1, max_size=5))
def test_a_reader_goes_on_from_any_position(values: list[float], batches: list[int]) -> None:
    names = [f"d{i}" for i in range(len(values))]
    mixture = {n: v / sum(values) for n, v in zip(names, values, strict=True)}
    text = {n: np.arange(50 * i, 50 * i + 41, dtype=np.uint16) for i, n in enumerate(names)}
    one = MixedReader(text, mixture, 4, 0)
    for count in batches:
        two = MixedReader(text, mixture, 4, 0)
        two.seek(one.position())
        assert two.batch(count).tolist() == one.batch(count).tolist()
        assert two.position() == one.position()
