"""Text comes to the device in one order, whatever the way, and threads end with their runs."""

import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from bimix_tune.corpus import Corpus
from bimix_tune.errors import DivergedError
from bimix_tune.mixture import Mixture
from bimix_tune.training import device_text
from bimix_tune.training.device_text import DeviceText, held_bytes, hold, let_go, text_bytes
from bimix_tune.training.feed import ahead_for, batches, read_ahead
from bimix_tune.training.llama import LlamaTrainer
from bimix_tune.training.mixing import MixedReader

CPU = torch.device("cpu")
NAMES = ("ab", "cd", "mixed")
MIXTURE = Mixture(NAMES, [0.5, 0.3, 0.2])
WAYS = [(hold_text, ahead) for hold_text in (False, True) for ahead in (0, 1, 2)]


def readers() -> int:
    """Threads that read ahead now."""
    return sum(t.name.startswith("bimix-tune-reader") for t in threading.enumerate())


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    let_go()
    assert readers() == 0


def texts(dtype: type) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max if dtype is np.uint16 else 2**31 + 5
    return {n: rng.integers(0, top + 1, 60 + 40 * i).astype(dtype) for i, n in enumerate(NAMES)}


@given(
    st.sampled_from(WAYS),
    st.sampled_from([np.uint16, np.uint32]),
    st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda w: sum(w) > 0.01),
    st.lists(st.integers(1, 30), max_size=5),
    st.integers(0, 40),
)
def test_every_way_brings_the_same_text(
    way: tuple[bool, int], dtype: type, weights: list[float], counts: list[int], skipped: int
) -> None:
    text, (held, ahead) = texts(dtype), way
    mixture = {n: w / sum(weights) for n, w in zip(NAMES, weights, strict=True)}
    straight, other = (MixedReader(text, mixture, 7, 3) for _ in range(2))
    straight.batch(skipped)
    other.seek(straight.position())
    there = DeviceText(text, CPU) if held else None
    made = list(batches(other, counts, CPU, there, ahead))
    assert len(made) == len(counts)
    for batch, count in zip(made, counts, strict=True):
        expected = straight.batch(count)
        assert batch.rows.dtype == torch.int64
        assert batch.rows.tolist() == expected.tolist()
        assert batch.position == straight.position()


def test_a_device_gets_whole_texts_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_text, "PIECE", 7)
    text = texts(np.uint16)
    there = DeviceText(text, CPU)
    assert there.size == sum(t.nbytes for t in text.values())
    for name, start in zip(NAMES, there.starts_of(NAMES), strict=True):
        row = there.rows(torch.tensor([start]), len(text[name]) - 1)
        assert row[0].tolist() == text[name].tolist()


def test_the_thread_is_some_items_ahead_and_ends_when_closed() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(1, 100):
            made.append(i)
            yield i

    items = read_ahead(source(), 2)
    assert [next(items) for _ in range(3)] == [1, 2, 3]
    items.close()
    assert 3 <= len(made) <= 5
    assert readers() == 0


def test_an_error_of_the_source_comes_in_its_turn() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise MemoryError("no room")

    items = read_ahead(source(), 2)
    assert next(items) == 1
    with pytest.raises(MemoryError, match="no room"):
        next(items)


def test_a_gpu_is_read_ahead_for_and_a_cpu_is_not() -> None:
    assert ahead_for(CPU) == 0
    assert ahead_for(torch.device("cuda", 1)) == ahead_for(torch.device("mps")) == 2


def test_runs_share_a_copy_until_another_text_is_wanted(corpus: Path) -> None:
    found = Corpus.open(corpus)
    first = hold(found, MIXTURE, CPU)
    assert hold(Corpus.open(corpus), ["mixed", "cd", "ab"], CPU) is first
    assert held_bytes(CPU) == text_bytes(found, MIXTURE) == 3 * 6000 * 2
    assert held_bytes(torch.device("cuda")) == 0
    less = hold(found, ["cd", "unknown"], CPU)
    assert held_bytes(CPU) == text_bytes(found, ["cd", "unknown"]) == less.size == 12_000
    let_go()
    assert held_bytes(CPU) == 0


def test_no_second_copy_is_made_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_text, "PIECE", 2**14)
    tokens = np.memmap(tmp_path / "t", np.uint16, "w+", shape=(10**6,))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        DeviceText({"t": tokens}, CPU)
        assert tracemalloc.get_traced_memory()[1] - before < tokens.nbytes / 4
    finally:
        tracemalloc.stop()


def llama(corpus: Path, **options: object) -> LlamaTrainer:
    chosen = {"tokens": 2000, "size": "0.1M", "sequence_length": 16, "batch_tokens": 160}
    chosen |= {"checkpoints": 4, "compile": "never", "device": "cpu", **options}
    return LlamaTrainer(corpus=corpus, **chosen)


def curve(trainer: LlamaTrainer) -> list[tuple[int, dict[str, float]]]:
    return [(c.tokens, dict(c.losses)) for c in trainer.run(MIXTURE, 0) if c.losses]


@pytest.fixture(params=WAYS[1:], ids=str)
def as_on_a_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Call it, and runs take this way from then on."""

    def begin() -> int:
        held, ahead = request.param
        monkeypatch.setattr("bimix_tune.training.loop.ahead_for", lambda device: ahead)
        monkeypatch.setattr("bimix_tune.training.device.check_memory", lambda *args: held)
        monkeypatch.setattr("bimix_tune.training.loop.SIGN_OF_LIFE", 0.0)
        return ahead

    return begin


def test_a_run_is_the_same_to_the_bit_even_if_cut_short(
    as_on_a_gpu, corpus: Path, tmp_path: Path
) -> None:
    straight = curve(llama(corpus))
    ahead = as_on_a_gpu()
    assert curve(llama(corpus)) == straight
    parts = llama(corpus, states=tmp_path)
    for step in (1, 5, 12):
        run = parts.run(MIXTURE, 0)
        next(c for c in run if c.tokens >= 160 * step)
        assert readers() == bool(ahead)
        run.close()
        assert readers() == 0
    assert curve(parts) == straight


def test_the_thread_ends_with_a_run_that_fails(as_on_a_gpu, corpus: Path) -> None:
    as_on_a_gpu()
    with pytest.raises(DivergedError):
        curve(llama(corpus, learning_rate=1e30))
    assert readers() == 0
