"""`bimix-tune benchmark training`, from a small case to its tables, and its errors."""

import importlib.util

import pytest
import torch

from bimix_tune.benchmark.training_speed import Case, Speed, campaign
from bimix_tune.benchmark.training_speed.paced import Paced
from bimix_tune.benchmark.training_speed.record import TOLERANCES
from bimix_tune.errors import OutOfMemoryError
from bimix_tune.training.sizes import Shape

PACKAGE = "bimix_tune.benchmark.training_speed"
TINY = Case(Shape(layers=1, width=32, heads=2, ffn=32), 64, 16, 64, 64, steps=2)
START = {"imports": 1.0, "build": 1.0, "first step": 1.0}


@pytest.fixture
def tiny(monkeypatch, cli):
    """The command line with one small case, whose costly parts are made up."""
    monkeypatch.setattr(campaign, "CASES", {"tiny": TINY})
    monkeypatch.setattr(f"{PACKAGE}.start.start_times", lambda *args: START)
    monkeypatch.setattr(f"{PACKAGE}.peak.CPU_WIDTH", 64)
    monkeypatch.setattr(f"{PACKAGE}.lean.COMPILE", "never")  # it takes long
    return lambda *args: cli("benchmark", "training", "--device", "cpu", "--output", "out", *args)


@pytest.fixture
def in_this_process(monkeypatch):
    """Contenders that a changed module reaches."""
    monkeypatch.setattr(f"{PACKAGE}.apart.Apart", lambda made, device: Paced(made(), device))


def test_both_sides_train_alike_and_are_timed_by_turns(tiny, tmp_path):
    code, output, errors = tiny("--rounds", "2")
    assert (code, errors) == (0, "")
    assert "tiny, 64 tokens" in output
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    found = Speed.from_json(line)
    assert all(len(seconds) == 2 for seconds in found.seconds.values())
    assert all(len(losses) == 1 + (2 + 2) * 2 for losses in found.losses.values())
    for precision in found.precisions:
        assert found.difference(precision) <= TOLERANCES[precision]
    assert 0 < found.overhead < 1
    assert found.ours in (tmp_path / "out" / "table.md").read_text()


def test_a_case_that_is_done_is_not_timed_again(tiny, monkeypatch):
    assert tiny("--rounds", "1")[0] == 0
    monkeypatch.setattr(campaign, "_measure", lambda *args: pytest.fail("timed again"))
    assert tiny("--rounds", "1")[0] == 0


def test_other_weights_are_found_out(tiny, in_this_process, monkeypatch, tmp_path):
    monkeypatch.setattr(f"{PACKAGE}.peer.SEED", 1)
    code, _, errors = tiny("--rounds", "1")
    assert code == 1
    assert "the fp32 losses of bimix-tune and Trainer differ by" in errors
    assert "must not be compared" in (tmp_path / "out" / "table.md").read_text()


def test_another_learning_rate_is_found_out(tiny, in_this_process, monkeypatch):
    monkeypatch.setattr(f"{PACKAGE}.peer.LEARNING_RATE", 1.1e-3)
    code, _, errors = tiny("--rounds", "1")
    assert code == 1
    assert "do not train alike" in errors


def test_a_case_that_fails_is_told_and_kept(tiny, monkeypatch):
    def fails(*args):
        raise OutOfMemoryError("too much")

    monkeypatch.setattr(campaign, "_measure", fails)
    code, _, errors = tiny("--rounds", "1")
    assert code == 1
    assert "case tiny: OutOfMemoryError: too much" in errors


def test_members_are_timed_together_and_apart(tiny, monkeypatch):
    monkeypatch.setattr(f"{PACKAGE}.members.CASES", {"tiny": TINY})
    monkeypatch.setattr(f"{PACKAGE}.members.COMPILE", "never")
    told = ("--members", "3", "--cases", "tiny", "--rounds", "3")
    code, output, errors = tiny(*told)
    assert (code, errors) == (0, "")
    assert "Several proxies at once" in output
    monkeypatch.setattr(f"{PACKAGE}.members.SEED", 1)  # of those together
    code, _, errors = tiny(*told)
    assert code == 1
    assert "together and alone do not train alike: tiny" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--members", "1"), "members must be at least 2 to be together, but got 1"),
        (("--members", "2", "--cases", "0.2M"), "no case '0.2M'"),
        (("--members", "2", "--batch-tokens", "100"), "multiple of the 128 tokens of a sequence"),
        (("--cases", "tinny"), "no case 'tinny'; did you mean 'tiny'?"),
        (("--batch-tokens", "17"), "multiple of the 16 tokens of a sequence of case tiny"),
        (("--batch-tokens", "many"), "--batch-tokens must be a whole number"),
        (("--device", "tpu9"), "device 'tpu9' cannot be used"),
    ],
)
def test_wrong_options_are_named(options, message, tiny):
    code, _, errors = tiny(*options)
    assert code == 1
    assert message in errors


def test_one_gpu_is_timed_not_many(tiny, monkeypatch):
    monkeypatch.setattr(
        "bimix_tune.training.device.choose_device", lambda name: torch.device("cuda")
    )
    monkeypatch.setattr(campaign, "_gpus", lambda: 8)
    assert "8 can be seen: set CUDA_VISIBLE_DEVICES=0" in tiny()[2]


def test_a_missing_library_is_named(tiny, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "accelerate" else found(n, *a)
    )
    assert "bimix-tune[benchmark]" in tiny()[2]
