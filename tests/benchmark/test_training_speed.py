"""Timing of trainings: turns, ratios, what follows from the times, tables."""

import dataclasses
import math
import os
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch
from scipy.stats import binom

from bimix_tune.benchmark.training_speed import CASES, Case, Speed, campaign, markdown, sheets
from bimix_tune.benchmark.training_speed.apart import Apart
from bimix_tune.benchmark.training_speed.clock import settle
from bimix_tune.benchmark.training_speed.lean import MIXTURE, case_trainer
from bimix_tune.benchmark.training_speed.overhead import _share
from bimix_tune.benchmark.training_speed.paced import Paced
from bimix_tune.benchmark.training_speed.record import median_ratio
from bimix_tune.benchmark.training_speed.start import start_times
from bimix_tune.benchmark.training_speed.text import write_text
from bimix_tune.corpus import Corpus
from bimix_tune.errors import DivergedError, TrainingError
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.device import HUGE_PAGES
from bimix_tune.training.model import Llama
from bimix_tune.training.sizes import Shape

CPU = torch.device("cpu")
TINY = Case(Shape(layers=1, width=32, heads=2, ffn=32), 64, 16, 64, 64, steps=2)


PARTS = ("imports", "build", "first step")


def result(**changes):
    """A result of two rounds on a CPU."""
    names = ("bimix-tune bf16", "Trainer bf16", "bimix-tune fp32", "Trainer fp32")
    seconds = dict(zip(names, ([1, 1], [2, 3], [2, 2], [4, 6]), strict=True))
    given = Speed("tiny", "cpu", 64, 2, 10, "code", "Some CPU", 1000, seconds)
    return dataclasses.replace(
        given,
        losses={name: [4.0, 3.0] for name in names},
        first_step=dict.fromkeys(names, 0.5),
        warm=dict.fromkeys(names, 1.5),
        peaks={"bf16": 1e6, "fp32": 5e5},
        overhead=0.04,
        start=dict.fromkeys(PARTS, 1.0),
        **changes,
    )


def test_a_cpu_leaves_out_what_takes_long():
    names = [job.blank.case for job in campaign._jobs(None, 1, "cpu", None)]
    assert names == ["0.1M", "byte", "2k", "4k", "50k"]
    jobs = {job.blank.case: job.blank for job in campaign._jobs(None, 1, "cuda", None)}
    assert list(jobs) == list(CASES)
    assert (jobs["50k"].batch_tokens, jobs["4k"].batch_tokens) == (65_536, 4096)


def test_operations_are_those_of_the_matrices():
    model = Llama(TINY.shape, TINY.vocabulary)
    weights = sum(
        p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n
    )
    # Scores and their use: 2 products of 2 S d operations each, half of them masked, 3 passes.
    attention = 3 * TINY.shape.layers * 2 * 2 * TINY.length * TINY.shape.width / 2
    assert TINY.flops == 6 * weights + attention


def test_text_is_that_of_a_corpus(tmp_path):
    corpus = Corpus.open(write_text(tmp_path / "text", 64, 5000, 500))
    assert corpus.names == MIXTURE.names
    for name in corpus.names:
        tokens = corpus.tokens(name)
        counts = np.bincount(tokens, minlength=64)
        assert len(tokens) == 5000
        assert len(counts) == 64
        assert counts[:8].sum() > 2 * counts[32:].sum()


def test_turns_are_taken_one_by_one():
    order = []

    def train(name):
        def steps(told):
            for step in range(100):
                order.append((name, step))
                told(float(step))

        return steps

    with Paced(train("a"), CPU) as a, Paced(train("b"), CPU) as b:
        for _ in range(2):
            a.advance(2)
            b.advance(1)
        assert order == [("a", 0), ("a", 1), ("b", 0), ("a", 2), ("a", 3), ("b", 1)]
        assert a.losses == [0.0, 1.0, 2.0, 3.0]
    assert len(order) == 6


def test_a_training_that_fails_or_ends_is_told():
    def fails(told):
        told(1.0)
        raise ValueError("no")

    with Paced(fails, CPU) as training, pytest.raises(ValueError, match="no"):
        training.advance(2)
    with Paced(lambda told: told(1.0), CPU) as training:
        training.advance(1)
        with pytest.raises(TrainingError, match="over after 1 steps"):
            training.advance(1)


def counts_up():
    """A training whose first losses tell its process, and whether huge pages are asked for."""

    def train(told):
        told(float(os.getpid()))
        told(float(HUGE_PAGES in os.environ))
        sum(range(10**6))
        told(2.0)
        raise DivergedError("it is not finite")

    return train


def dies():
    return lambda told: os._exit(1)


def test_a_contender_has_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv(HUGE_PAGES, "1")
    with Apart(counts_up, CPU) as training:
        training.advance(2)
        assert training.advance(1) > 0
        process, huge, last = training.told()
        assert process != os.getpid()
        assert (huge, last) == (0.0, 2.0)
        assert training.kernels() is None
        with pytest.raises(DivergedError, match="it is not finite"):
            training.advance(1)
    assert os.environ[HUGE_PAGES] == "1"
    assert not psutil.pid_exists(int(process))


def reads_in_workers():
    """A training that gets its data from processes of its own, as the Trainer does on a GPU."""

    def train(told):
        for number in torch.utils.data.DataLoader(range(3), num_workers=1):
            told(float(number))

    return train


def test_a_contender_may_have_processes_of_its_own():
    with Apart(reads_in_workers, CPU) as training:
        training.advance(3)
        assert training.told() == [0.0, 1.0, 2.0]


def test_a_contender_that_dies_is_told():
    with Apart(dies, CPU) as training, pytest.raises(TrainingError, match="died"):
        training.advance(1)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 9, 10, 20])
def test_the_interval_of_the_median_has_its_confidence(count):
    ratio = median_ratio(range(1, count + 1))
    outside = binom.cdf(ratio.low - 1, count, 0.5)  # the median lies below `low`
    assert ratio.low + ratio.high == count + 1
    assert 2 * outside <= 0.05 or count < 6
    if ratio.low > 1:
        assert 2 * binom.cdf(ratio.low, count, 0.5) > 0.05  # no narrower one would do


def test_what_follows_from_the_times():
    found = result()
    assert found.ours == "bimix-tune bf16"
    assert found.rate("Trainer bf16") == 10 * 64 / 2.5
    assert found.ratio(found.ours, "Trainer fp32").median == 5
    assert found.share_of_peak("bimix-tune fp32") == 10 * 64 / 2 * 1000 / 5e5
    assert found.disagreements() == []


@pytest.mark.parametrize("loss", [4.001, math.nan])
def test_disagreement_is_by_precision(loss):
    losses = {**result().losses, "Trainer fp32": [loss, 3.0]}
    (text,) = dataclasses.replace(result(), losses=losses).disagreements()
    assert text.startswith("case tiny: the fp32 losses")


def test_results_are_read_back():
    assert Speed.from_json(result().to_json()) == result()
    lost = Speed("tiny", "cpu", 64, 2, 10, "code", failure="no")
    assert Speed.from_json(lost.to_json()).failure == "no"


def test_tables():
    speeds, rest = sheets([result(), Speed("big", "cpu", 64, 2, 10, "code", failure="no")])
    assert speeds.head[2] == "tokens/cpu-s"
    assert speeds.rows[1][:4] == ("", "Trainer bf16", "256", "2.50 (2.00 to 3.00)")
    assert speeds.rows[0][3] == ""
    assert rest.rows[0][:2] == ("tiny", "yes")
    assert "4.0%" in rest.rows[0]
    assert "3.0 s" in rest.rows[0]
    assert "big: no" in markdown([Speed("big", "cpu", 64, 2, 10, "code", failure="no")])
    names = list(result().seconds)
    gpu = dataclasses.replace(result(), device="cuda", kernels=dict.fromkeys(names, 7))
    assert next(sheets([gpu])).head[-1] == "kernels a step"
    assert next(sheets([gpu])).rows[0][-1] == "7"


def test_overhead_is_what_a_median_step_does_not_explain(monkeypatch):
    times = iter([0, 1, 1, 2, 2, 5, 5, 6, 6, 9, 9])  # steps of 1, two of them with 2 more
    monkeypatch.setattr(
        "bimix_tune.benchmark.training_speed.overhead.now", lambda device: float(next(times))
    )
    seen = [{}, {}, {"a": 1.0}, {}, {"a": 1.0}]
    stream = iter([Checkpoint(0), *(Checkpoint(1, losses) for losses in seen)])
    assert _share(stream, CPU) == pytest.approx(4 / 9)


def test_background_work_is_waited_for():
    until = time.process_time() + 0.5

    def busy():
        while time.process_time() < until:
            pass

    thread = threading.Thread(target=busy)
    thread.start()
    settle()
    assert not thread.is_alive()


def test_the_start_of_a_process_is_timed(tmp_path, monkeypatch):
    corpus = write_text(tmp_path / "text", 64, 5000, 500)
    found = start_times(TINY, corpus, "cpu", "fp32", 64)
    assert tuple(found) == PARTS
    assert all(seconds > 0 for seconds in found.values())
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(TrainingError, match="did not come to its first step"):
        start_times(TINY, corpus, "cpu", "fp32", 64)


def test_the_lean_trainer_takes_the_shape_of_the_case(tmp_path):
    corpus = write_text(tmp_path / "text", 64, 5000, 500)
    trainer = case_trainer(TINY, corpus, "cpu", "fp32", 64, 10)
    module = trainer.build(Corpus.open(corpus), 0, CPU).module
    assert module.shape == TINY.shape
    assert module.dtype == torch.float32
    assert trainer.steps().count == 10
