"""The compiled loss: equal to the eager one, compiled once, and never a reason to fail."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from bimix_tune.training import compile_ahead, compiled, cross_entropy
from bimix_tune.training.compile_ahead import Compilation, outcome
from bimix_tune.training.compiled import SwitchingLoss
from bimix_tune.training.model import Llama
from bimix_tune.training.sizes import Shape

SHAPE = Shape(layers=1, width=32, heads=2, ffn=48)
TOKENS = torch.randint(0, 97, (3, 20), generator=torch.Generator().manual_seed(0))
LABELS = TOKENS.roll(-1, 1).masked_fill(TOKENS == 5, -100)
PATIENCE = 300.0


def make(dtype: torch.dtype = torch.bfloat16) -> Llama:
    module = Llama(SHAPE, 97, dtype)
    module.initialise(torch.Generator().manual_seed(1))
    return module


def compile_apart(unit: Compilation, before: str = "", **environment: str) -> None:
    """`ask_for` at full priority, after some changes to the module."""
    code = (
        "import sys, time\n"
        "from bimix_tune.training import compile_ahead as c\n"
        f"c.NICE = 0\n{before}\n"
        "c.main(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, json.dumps(asdict(unit))]
    subprocess.run(command, env={**os.environ, **environment}, check=True)


def gradients(module: Llama, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters())))


def wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.2)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(compile_ahead.CACHE, "")
    monkeypatch.delenv(compile_ahead.CACHE)
    monkeypatch.setattr(compiled, "_loaded", set())
    return tmp_path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WATCH", "WORTH_LOADING", "WORTH_COMPILING"):
        monkeypatch.setattr(compiled, name, 0.0)


def test_a_run_switches_when_the_background_process_is_done(
    empty_cache: Path, impatient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "ask_for", compile_apart)
    module, notes = make(), {}
    loss = SwitchingLoss(module, "auto", 10**9, notes)
    eager = module.loss(TOKENS, LABELS)
    loss(TOKENS, LABELS)
    assert notes["compiled"] == "no: the run is short"
    assert torch.equal(loss(TOKENS, LABELS), eager)  # asked, and goes on eagerly
    assert notes["compiled"] == "no: it was not ready in time"
    unit = Compilation.of(module, TOKENS)
    wait_for(lambda: outcome(unit) is not None)
    assert outcome(unit) == {"error": None}

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    fast = loss(TOKENS, LABELS)
    assert notes["compiled"] == "after 120 tokens"
    found = torch._dynamo.utils.counters["inductor"]
    assert found["fxgraph_cache_hit"] > 0
    assert found["fxgraph_cache_miss"] == 0  # read, not compiled again
    assert fast.item() == pytest.approx(eager.item(), rel=1e-3)
    exact = Llama(SHAPE, 97)
    exact.load_state_dict(module.state_dict())
    wanted = gradients(exact, exact.loss(TOKENS, LABELS))
    for ours, theirs, name in zip(
        gradients(module, fast), wanted, dict(module.named_parameters()), strict=True
    ):
        assert (ours - theirs).norm() < 0.02 * theirs.norm(), name

    frames = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad():
        assert loss(TOKENS, LABELS).item() == pytest.approx(eager.item(), rel=1e-3)
        assert torch.equal(loss(TOKENS[:2], LABELS[:2]), module.loss(TOKENS[:2], LABELS[:2]))
    other, others_notes = make(), {}
    assert torch.equal(SwitchingLoss(other, "auto", 9, others_notes)(TOKENS, LABELS), fast)
    assert others_notes["compiled"] == "from the first step"  # this process has it already
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == frames


def test_a_large_output_layer_stays_in_parts_beside_compiled_blocks(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "FUSED_BYTES", 0)
    parts, apply = [], cross_entropy.loss_and_gradient
    monkeypatch.setattr(
        cross_entropy, "loss_and_gradient", lambda *a: parts.append(a[0].shape) or apply(*a)
    )
    module = make(torch.float32)
    loss = Compilation.of(module, TOKENS).load(module)
    parts.clear()
    fast, wanted = loss(TOKENS, LABELS), module.loss(TOKENS, LABELS)
    assert parts == [(TOKENS.numel(), 97)] * 2
    assert fast.item() == pytest.approx(wanted.item(), rel=1e-5)
    for ours, theirs in zip(gradients(module, fast), gradients(module, wanted), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_of_the_output_layer_as_a_compiler_makes_them(
    empty_cache: Path, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (100 * torch.randn(12, 97, generator=generator)).to(dtype)
    labels = torch.randint(97, (12,), generator=generator)
    labels[::5] = cross_entropy.IGNORED
    found = torch.compile(cross_entropy.for_a_compiler, fullgraph=True)(logits, labels)
    wanted = cross_entropy.in_place(logits.clone(), labels)
    assert found[1].dtype == dtype
    torch.testing.assert_close(found, wanted)


def test_failures_leave_the_run_eager_and_a_note(
    empty_cache: Path, impatient, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, notes = make(), {}
    monkeypatch.setenv("CXX", "no-such-compiler")
    unit = Compilation.of(module, TOKENS)
    compile_ahead.write_atomic(unit.path, json.dumps({"error": "InvalidCxxCompiler: none"}))
    loss = SwitchingLoss(module, "auto", 10**9, notes)
    for _ in range(3):
        assert torch.equal(loss(TOKENS, LABELS), module.loss(TOKENS, LABELS))
    assert notes["compiled"].startswith("no: InvalidCxxCompiler: none (delete /")

    monkeypatch.setattr(Compilation, "load", lambda *_: 1 / 0)
    loss = SwitchingLoss(module, "always", 10**9, notes)
    assert torch.equal(loss(TOKENS, LABELS), module.loss(TOKENS, LABELS))
    assert notes["compiled"] == "no: ZeroDivisionError: division by zero"


def test_short_runs_and_never_start_nothing(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "ask_for", lambda unit: pytest.fail("asked"))
    monkeypatch.setattr(compiled, "WATCH", 0.0)
    for when, calls in (("auto", 5), ("never", 10**9)):
        loss = SwitchingLoss(make(), when, calls, {})
        for _ in range(4):
            loss(TOKENS, LABELS)


def test_no_compiler_is_an_outcome_and_a_lock_lets_one_in(empty_cache: Path) -> None:
    unit = Compilation.of(make(), TOKENS)
    with compile_ahead._lock(unit.path.with_suffix(".lock")) as alone:
        assert alone
        compile_ahead.ask_for(unit)
    assert outcome(unit) is None
    compile_apart(unit, CXX="no-such-compiler")
    wait_for(lambda: outcome(unit) is not None)
    assert "Compiler" in outcome(unit)["error"]


def test_a_full_device_is_no_outcome(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = Compilation.of(make(), TOKENS)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Compilation, "load", full)
    compile_ahead.compile_now(unit)
    assert outcome(unit) is None


def test_a_killed_process_leaves_no_lock_and_no_outcome(empty_cache: Path) -> None:
    unit, started = Compilation.of(make(), TOKENS), empty_cache / "pid"
    pause = "(open({path!r}, 'w').write(str(c.os.getpid())), time.sleep(600))"
    compile_apart(unit, f"c.compile_now = lambda unit: {pause.format(path=str(started))}")

    def free() -> bool:
        with compile_ahead._lock(unit.path.with_suffix(".lock")) as alone:
            return alone

    wait_for(lambda: started.exists() and started.read_text())
    assert not free()
    os.kill(int(started.read_text()), signal.SIGKILL)
    wait_for(free)
    assert outcome(unit) is None


def test_keys_tell_apart_what_is_compiled_apart() -> None:
    module = make()
    keys = {Compilation.of(module, tokens).key for tokens in (TOKENS, TOKENS[:2], TOKENS[:, :9])}
    assert len(keys) == 3
    assert Compilation.of(make(), TOKENS).key in keys
