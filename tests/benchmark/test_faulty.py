"""The trainer that goes wrong on cue does so once for each cue, and is honest otherwise."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
import textwrap

import pytest

from bimix_tune.benchmark.cluster.faulty import (
    FAULTS,
    HOST_MEMORY,
    MEMORY_LIMIT,
    FaultyTrainer,
    place_cue,
    taken_cues,
)
from bimix_tune.errors import ConfigError, DivergedError, OutOfMemoryError
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.synthetic import SyntheticTrainer
from bimix_tune.training.torch_trainer import run_name

MIXTURE = Mixture(["web", "code"], [0.5, 0.5])


@pytest.fixture
def trainer(tmp_path):
    return FaultyTrainer(domains=("web", "code"), cues=tmp_path, memory=1 << 27)


def losses(trainer, seed=0):
    return [c.losses for c in trainer.run(MIXTURE, seed)]


def test_without_a_cue_it_is_the_synthetic_trainer(trainer):
    assert losses(trainer, 3) == losses(SyntheticTrainer(domains=("web", "code")), 3)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("raise", ZeroDivisionError),
        ("diverge", DivergedError),
        ("gpu memory", OutOfMemoryError),
        ("host memory", MemoryError),
        ("disk", OSError),
    ],
)
def test_a_cue_harms_one_run_once(trainer, tmp_path, monkeypatch, fault, error):
    if fault == "gpu memory":
        pytest.importorskip("torch")
    monkeypatch.setenv(MEMORY_LIMIT, "0.5")
    place_cue(tmp_path, fault)
    with pytest.raises(error) as caught:
        losses(trainer)
    if fault == "disk":
        assert caught.value.errno == errno.ENOSPC
    assert taken_cues(tmp_path) == {run_name(MIXTURE, 0): [fault]}
    assert len(losses(trainer)) == 6


def test_memory_is_filled_only_where_ray_watches(trainer, tmp_path, monkeypatch):
    monkeypatch.delenv(MEMORY_LIMIT, raising=False)
    place_cue(tmp_path, HOST_MEMORY)
    assert len(losses(trainer)) == 6
    assert taken_cues(tmp_path) == {}


def test_a_run_goes_on_from_its_state_but_not_from_a_damaged_one(
    trainer, tmp_path, monkeypatch, caplog
):
    torch = pytest.importorskip("torch")
    from bimix_tune.training.state import State

    honest = losses(trainer)
    first = list(trainer.run(MIXTURE, 0))[:2]
    kept = tuple(Checkpoint(c.tokens, dict.fromkeys(c.losses, 9.5)) for c in first)
    file = trainer._state_file(run_name(MIXTURE, 0))
    file.write(State(2, {}, kept, {}, {"weights.none": torch.zeros(1)}))
    assert losses(trainer) == [c.losses for c in kept] + honest[2:]
    file.delete()

    def end(code):
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    place_cue(tmp_path, "damaged state")
    with pytest.raises(SystemExit, match="13"):
        losses(trainer)
    assert file.path.exists()
    assert losses(trainer) == honest
    assert "its checksum does not fit its content" in caplog.text


def test_a_nan_passes_unnoticed(trainer, tmp_path):
    place_cue(tmp_path, "nan")
    assert [math.isnan(p["web"]) for p in losses(trainer)] == [True] + [False] * 5


@pytest.mark.parametrize(("fault", "code"), [("crash", 13), ("freeze", None), ("hang", None)])
def test_faults_of_the_process(tmp_path, fault, code):
    program = """
        import sys
        from bimix_tune.benchmark.cluster.faulty import FaultyTrainer, place_cue
        from bimix_tune.mixture import Mixture
        from pathlib import Path
        place_cue(Path(sys.argv[1]), sys.argv[2])
        trainer = FaultyTrainer(domains=("web",), cues=sys.argv[1])
        print("begins", flush=True)
        list(trainer.run(Mixture(["web"], [1.0]), 0))
        print("ended")
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), fault]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begins\n"
        try:
            assert process.wait(timeout=2 if code is None else 60) == code
        except subprocess.TimeoutExpired:
            assert code is None
        finally:
            process.kill()
        assert process.stdout.read() == ""


def test_unknown_faults(tmp_path):
    with pytest.raises(ConfigError, match="unknown fault 'crush'; did you mean 'crash'"):
        place_cue(tmp_path, "crush")
    assert len(FAULTS) == 10
