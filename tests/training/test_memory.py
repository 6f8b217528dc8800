"""Memory predicted: the arithmetic, what is free, refusals, and the truth."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bimix_tune.benchmark.training_speed.text import write_text
from bimix_tune.corpus import Corpus
from bimix_tune.errors import OutOfMemoryError
from bimix_tune.mixture import Mixture
from bimix_tune.training import device, memory, parallel
from bimix_tune.training.device import check_memory
from bimix_tune.training.device_text import held_bytes
from bimix_tune.training.llama import LlamaTrainer
from bimix_tune.training.memory import (
    CPU_MICRO_BATCH,
    CPU_WORKSPACE,
    GPU_WORKSPACE,
    LOGIT_BYTES,
    TEXT_SHARE,
    Footprint,
    Memory,
    free_memory,
    micro_batch,
    predict,
    require,
)
from bimix_tune.training.schedule import Steps
from bimix_tune.training.transformers import TransformersTrainer

MIXTURE = Mixture(("ab", "cd", "mixed"), [0.5, 0.3, 0.2])
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def test_micro_batch_follows_the_device() -> None:
    steps = Steps(10**6, 128, 4096)
    assert micro_batch(steps, 1, "cpu") * 128 == CPU_MICRO_BATCH
    assert micro_batch(steps, 2**20, "cuda") == 8 * 2**30 // 2**20 // 128
    assert micro_batch(Steps(10**6, 4096, 2), 1, "cpu") == 1
    assert micro_batch(Steps(10**6, 16, 2), 1, "cpu") == 2


def test_micro_batches_of_a_step_are_equal() -> None:
    assert micro_batch(Steps(10**6, 128, 24), 1, "cpu") == 12
    assert micro_batch(Steps(10**6, 128, 24), 1, "cpu", processes=3) == 8


def test_the_parts_add_up() -> None:
    steps = Steps(10**6, 128, 4)
    mixed = predict(Footprint(1000, 50, 10), steps, "cpu", mixed=True)
    assert mixed.total == 22 * 1000 + 512 * (50 + 60) + CPU_WORKSPACE
    full = predict(Footprint(1000, 50, 10), steps, "cpu", mixed=False)
    assert full.total == 20 * 1000 + 512 * 2 * (50 + 60) + CPU_WORKSPACE
    assert "bfloat16 weights" not in full.parts
    gpu = predict(Footprint(1000, 50, 10), Steps(10**6, 128, 64), "cuda", mixed=True)
    assert gpu.parts["activations"] == 64 * 128 * 50
    assert gpu.parts["PyTorch"] == GPU_WORKSPACE
    assert gpu.parts["gradients"] == 4 * 1000
    passes = predict(Footprint(1000, 2**20 - 60, 10), Steps(10**6, 128, 128), "cuda", mixed=True)
    assert passes.parts["activations"] == 64 * 128 * (2**20 - 60)
    assert passes.parts["gradients"] == 2 * 4 * 1000


def test_text_on_the_device_is_counted() -> None:
    needs = Footprint(1000, 50, 10), Steps(10**6, 128, 64), "cuda", True
    assert predict(*needs, text=12345).total == predict(*needs).total + 12345
    assert predict(*needs, text=12345).parts["training text"] == 12345


def test_processes_have_a_share_of_the_batch_each() -> None:
    footprint, steps = Footprint(1000, 50, 10), Steps(10**6, 128, 64)
    whole = predict(footprint, steps, "cuda", True)
    share = predict(footprint, steps, "cuda", True, processes=4)
    assert share.parts["activations"] == whole.parts["activations"] / 4
    assert share.parts["weights"] == whole.parts["weights"]


def test_logits_in_chunks_are_bounded() -> None:
    whole, chunked = (Footprint(1000, 50, 10**5, chunked) for chunked in (False, True))
    assert whole.logits(10**5) == 6 * 10**10
    assert chunked.logits(10**5) == pytest.approx(3 * LOGIT_BYTES, rel=1e-3)
    assert chunked.logits(10) == whole.logits(10) == 6 * 10**6
    assert (whole.pass_bytes, chunked.pass_bytes) == (600_050, 50)


@pytest.mark.parametrize("kind", ["llama", "transformers"])
def test_parameters_are_those_of_the_model(kind: str, corpus: Path) -> None:
    common = {"corpus": corpus, "tokens": 1000, "device": "cpu"}
    if kind == "llama":
        trainer = LlamaTrainer(size="0.1M", **common)
    else:
        trainer = TransformersTrainer(model=CONFIG, **common)
    proxy = trainer.build(Corpus.open(corpus), 0, torch.device("cpu"))
    assert trainer.footprint().parameters == sum(p.numel() for p in proxy.module.parameters())


def test_a_refusal_has_the_numbers_and_the_mend() -> None:
    need = Memory({"weights": 3 * 10**9, "activations and logits": 10**9})
    require(need, 4 * 10**9, "it")
    require(need, None, "it", 100)
    with pytest.raises(OutOfMemoryError) as one:
        require(need, 4 * 10**9 - 1, "it")
    assert str(one.value) == (
        "it needs 4.0 GB (weights 3.0 GB, activations and logits 1.0 GB) of memory, but 4.0 GB "
        "are free: lower size, the vocabulary, batch_tokens or sequence_length"
    )
    with pytest.raises(OutOfMemoryError, match=r"needs 12\.0 GB: 3 at once, 4\.0 GB .* each"):
        require(need, 10 * 10**9, "it", 3)
    with pytest.raises(OutOfMemoryError, match=r"lower executor\.slots to 2, or size"):
        require(need, 10 * 10**9, "it", 3)


def test_a_run_that_does_not_fit_is_refused_before_it_is_built(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = LlamaTrainer(
        corpus=corpus, tokens=2000, size="0.1M", sequence_length=16, batch_tokens=160, device="cpu"
    )
    monkeypatch.setattr("bimix_tune.training.device.free_memory", lambda: 10**8)
    monkeypatch.setattr(LlamaTrainer, "build", lambda *args: pytest.fail("it was built"))
    with pytest.raises(OutOfMemoryError, match=r"10 sequences of 16 .*but 0\.10 GB are free"):
        next(trainer.run(MIXTURE, 0))


CUDA = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """A made-up GPU with some bytes free, on which so many processes share a run."""

    def made(free: int, processes: int = 1) -> None:
        monkeypatch.setattr(device, "available", lambda _: free)
        monkeypatch.setattr(device, "compute_dtype", lambda _: torch.bfloat16)
        for module in (device, parallel):
            monkeypatch.setattr(module, "place", lambda: (0, processes))

    return made


def test_a_gpu_of_several_needs_room_for_its_share_only(corpus: Path, gpu) -> None:
    trainer = LlamaTrainer(
        corpus=corpus, tokens=10**6, size="1M", sequence_length=128, batch_tokens=2**17
    )
    needs = trainer.footprint(), trainer.steps(), "cuda", True
    whole, share = (predict(*needs, processes=n).total for n in (1, 4))
    assert share < whole
    gpu(share, processes=4)
    check_memory(trainer, CUDA, "it", 0)
    gpu(share - 1, processes=4)
    with pytest.raises(OutOfMemoryError, match="it needs"):
        check_memory(trainer, CUDA, "it", 0)
    gpu(whole - 1)
    with pytest.raises(OutOfMemoryError, match="it needs"):
        check_memory(trainer, CUDA, "it", 0)


def test_a_gpu_holds_text_that_takes_little_room(corpus: Path, gpu) -> None:
    trainer = LlamaTrainer(corpus=corpus, tokens=10**6, size="1M")
    need = predict(trainer.footprint(), trainer.steps(), "cuda", True).total
    gpu(2 * need)
    most = int(TEXT_SHARE * 2 * need)
    assert check_memory(trainer, CUDA, "it", most)
    assert not check_memory(trainer, CUDA, "it", most + 1)
    gpu(need + 10)
    assert check_memory(trainer, CUDA, "it", 10)
    assert not check_memory(trainer, CUDA, "it", 11)


def test_a_cpu_reads_text_from_its_files(corpus: Path) -> None:
    trainer = LlamaTrainer(corpus=corpus, tokens=1000, size="0.1M")
    assert not check_memory(trainer, torch.device("cpu"), "it", 1)


def test_text_that_does_not_fit_any_more_is_given_up(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = LlamaTrainer(corpus=corpus, tokens=1000, size="0.1M", device="cpu")
    for fits in (True, False):
        monkeypatch.setattr(device, "check_memory", lambda *args, fits=fits: fits)
        list(trainer.run(MIXTURE, 0))
        assert bool(held_bytes(torch.device("cpu"))) == fits


MEMBER = """
import sys
from bimix_tune.mixture import Mixture
from bimix_tune.training import device
from bimix_tune.training.group import member
from bimix_tune.training.llama import LlamaTrainer
from bimix_tune.training.memory import predict

rank, meeting, corpus, spare = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
trainer = LlamaTrainer(
    corpus=corpus, tokens=256, size="0.1M", sequence_length=16, batch_tokens=128, device="cpu",
    processes=2,
)
mixed = device.compute_dtype(device.choose_device("cpu")) != device.torch.float32
share = predict(trainer.footprint(), trainer.steps(), "cpu", mixed, 2).total
device.free_memory = lambda: 2 * share + spare
list(member(trainer, Mixture(("ab", "cd", "mixed"), [0.5, 0.3, 0.2]), 0, rank, meeting))
"""


@pytest.mark.parametrize("spare", [0, -1])
def test_processes_on_one_machine_share_its_memory(
    spare: int, corpus: Path, tmp_path: Path
) -> None:
    meeting = f"file://{tmp_path / 'meeting-point'}"
    members = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, str(rank), meeting, str(corpus), str(spare)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [member.communicate(timeout=300)[1] for member in members]
    if spare == 0:
        assert [member.returncode for member in members] == [0, 0], errors
    for error in errors if spare else ():
        assert "OutOfMemoryError: a proxy with 8 sequences" in error
        assert ": 2 at once, " in error
        assert "lower processes to 1, or size" in error


@pytest.fixture
def linux(tmp_path: Path):
    """A made-up /proc and /sys/fs/cgroup with 8 GB free."""
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")

    def write(entry: str, files: dict[str, str]) -> int | None:
        (proc / "self" / "cgroup").write_text(entry + "\n")
        for name, text in files.items():
            path = groups / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return free_memory(proc, groups)

    return write


STAT = "anon 5\ninactive_file 300"


def test_free_memory_without_a_limit(linux) -> None:
    assert linux("0::/", {}) == 8_000_000 * 1024
    files = {"a/memory.max": "max", "a/memory.current": "7", "a/memory.stat": STAT}
    assert linux("0::/a", files) == 8_000_000 * 1024


def test_free_memory_of_a_group_of_version_2(linux) -> None:
    files = {"a/b/memory.max": "max"}
    files |= {"a/memory.max": "10000", "a/memory.current": "4000", "a/memory.stat": STAT}
    assert linux("0::/a/b", files) == 10_000 - 4_000 + 300


def test_free_memory_of_a_group_of_version_1(linux) -> None:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    values = ("5000", "6000", "cache 1\ninactive_file 200")
    files = {f"memory/job/{n}": v for n, v in zip(names, values, strict=True)}
    assert linux("3:cpu:/x\n4:memory:/job\n0::/", files) == 0  # it is over its limit
    files["memory/job/memory.usage_in_bytes"] = "1000"
    assert linux("4:memory:/job", files) == 4_200


def test_a_container_sees_its_own_root_only(linux) -> None:
    files = {"memory.max": "9000", "memory.current": "1000", "memory.stat": STAT}
    assert linux("0::/host/only", files) == 8_300


def test_free_memory_elsewhere_is_all_that_there_is(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path) == memory._whole_memory()
    assert memory._whole_memory() >= free_memory()


MEASURE = """
import json, sys
from pathlib import Path
import torch
from bimix_tune.benchmark.training_speed.lean import MIXTURE
from bimix_tune.training import loop, model
from bimix_tune.training.llama import LlamaTrainer

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

trainer = LlamaTrainer(device="cpu", tokens=10**7, batch_tokens=2048, **json.loads(sys.argv[1]))
loop.SIGN_OF_LIFE = 0.0
before = kilobytes("VmRSS")
run = trainer.run(MIXTURE, 0)
for _ in range(3):
    next(run)
after = kilobytes("VmHWM")
run.close()
print((after - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak there")
@pytest.mark.parametrize(("size", "length", "vocabulary"), [("1M", 128, 32_768), ("10M", 256, 512)])
def test_the_prediction_is_near_what_is_measured(
    size: str, length: int, vocabulary: int, tmp_path: Path
) -> None:
    from bimix_tune.training.device import compute_dtype

    corpus = write_text(tmp_path / "text", vocabulary, 20_000, 10_000)
    options = {"corpus": str(corpus), "size": size, "sequence_length": length}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    trainer = LlamaTrainer(device="cpu", tokens=10**7, batch_tokens=2048, **options)
    mixed = compute_dtype(torch.device("cpu")) == torch.bfloat16
    need = predict(trainer.footprint(), trainer.steps(), "cpu", mixed)
    assert 0.9 <= need.total / int(done.stdout) <= 1.6
