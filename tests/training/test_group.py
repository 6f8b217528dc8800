"""Several processes share a training; with gloo on a CPU, as NCCL would on GPUs."""

import dataclasses
import multiprocessing
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bimix_tune.errors import DivergedError, TrainingError
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import described
from bimix_tune.training.llama import LlamaTrainer

MIXTURE = Mixture(("ab", "cd", "mixed"), [0.5, 0.3, 0.2])


SIZES = {"tokens": 3000, "size": "0.1M", "sequence_length": 16, "batch_tokens": 112}


def llama(corpus: Path, **options: object) -> LlamaTrainer:
    return LlamaTrainer(corpus=corpus, **{**SIZES, "device": "cpu", **options})


def test_two_processes_train_what_one_does(corpus: Path, tmp_path: Path) -> None:
    alone = list(llama(corpus).run(MIXTURE, 3))
    trainer = llama(corpus, processes=2, save_to=tmp_path)
    together = list(trainer.run(MIXTURE, 3))
    curves = [{c.tokens: c.losses for c in run if c.losses} for run in (alone, together)]
    assert curves[0].keys() == curves[1].keys()
    for tokens, losses in curves[0].items():
        # bfloat16, where the hardware has it, and another order of sums.
        assert curves[1][tokens] == pytest.approx(losses, rel=1e-2)
    assert list(tmp_path.glob("*/model.safetensors"))
    assert described(trainer) == described(dataclasses.replace(trainer, processes=1))


def test_an_error_of_the_training_is_the_error_of_the_group(corpus: Path) -> None:
    with pytest.raises(DivergedError, match="lower learning_rate"):
        list(llama(corpus, processes=2, learning_rate=1e30).run(MIXTURE, 0))


def test_a_process_that_dies_ends_the_training(corpus: Path) -> None:
    run = llama(corpus, processes=2, tokens=10**9).run(MIXTURE, 0)
    next(run)
    members = multiprocessing.active_children()
    assert len(members) == 2
    members[1].kill()
    with pytest.raises(TrainingError, match="died"):
        list(run)
    assert not any(member.is_alive() for member in members)


def test_closing_a_run_ends_its_processes(corpus: Path) -> None:
    run = llama(corpus, processes=2, tokens=10**9).run(MIXTURE, 0)
    next(run)
    members = multiprocessing.active_children()
    run.close()
    assert len(members) == 2
    assert not any(member.is_alive() for member in members)


MEMBER = """
    import sys
    import numpy as np, torch, torch.distributed as dist
    from bimix_tune.training.cross_entropy import IGNORED
    from bimix_tune.training.model import Llama
    from bimix_tune.training.parallel import own_rows, shared, summed
    from bimix_tune.training.sizes import Shape
    from bimix_tune.training.step import Proxy

    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)

    def proxy():
        module = Llama(Shape(2, 32, 2, 48), 64)
        module.initialise(torch.Generator().manual_seed(0))
        return Proxy(module, module.loss, torch.device("cpu"), 1, {})

    rows = torch.from_numpy(np.random.default_rng(0).integers(64, size=(5, 9)))  # one too many
    whole, parts = proxy(), shared(proxy())
    whole.loss(rows[:, :-1], rows[:, 1:]).backward()
    mine = own_rows(rows[:, :-1], 0), own_rows(rows[:, 1:], IGNORED)
    loss = parts.loss(*mine)
    (2 * loss).backward()
    for name, parameter in parts.module.named_parameters():
        wanted = whole.module.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-5, atol=1e-5)
    assert mine[0].shape == (3, 8)
    assert summed(torch.ones(1)).item() == 2.0
    dist.destroy_process_group()  # or PyTorch may abort as the process ends
"""


def members(script: str, *arguments: tuple[str, str]) -> list[str]:
    """Run a script in two processes, each with its rank and arguments; what each printed."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(rank), *own],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, own in enumerate(zip(*arguments, strict=True))
    ]
    printed = [member.communicate(timeout=300)[0] for member in started]
    assert [member.returncode for member in started] == [0, 0], printed
    return printed


def test_gradients_of_shares_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    members(MEMBER, (f"file://{tmp_path / 'meeting-point'}",) * 2)


RESUMES = """
    import sys
    from bimix_tune.mixture import Mixture
    from bimix_tune.training import loop
    from bimix_tune.training.group import member
    from bimix_tune.training.llama import LlamaTrainer

    rank, meeting, corpus, states, sizes = sys.argv[1:]
    loop.SIGN_OF_LIFE = 0.0
    trainer = LlamaTrainer(
        corpus=corpus, device="cpu", compile="never", processes=2, states=states, **eval(sizes)
    )
    run = member(trainer, Mixture(("ab", "cd", "mixed"), [0.5, 0.3, 0.2]), 3, int(rank), meeting)
    trained = [c.tokens for c in run if c.tokens and not c.losses]
    print("trained from", min(trained))
"""


@pytest.mark.parametrize("common", [True, False])
def test_a_run_goes_on_if_all_processes_read_its_state(
    common: bool, corpus: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    run = llama(corpus, states=here, compile="never").run(MIXTURE, 3)
    cut = next(c for c in run if c.tokens >= 1000).tokens
    run.close()
    printed = members(
        RESUMES,
        (f"file://{tmp_path / 'meeting-point'}",) * 2,
        (str(corpus),) * 2,
        (str(here), str(here if common else there)),
        (repr(SIZES),) * 2,
    )
    first = [int(text.split()[-1]) for text in printed]
    if common:
        assert first[0] == first[1] > cut
    else:
        assert first == [112, 112]
        assert "not every process of the run can read it" in printed[0]


LEAVES = """
    import sys
    from pathlib import Path
    from bimix_tune.mixture import Mixture
    from bimix_tune.training.group import member
    from bimix_tune.training.llama import LlamaTrainer

    def threads():
        return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]

    rank, meeting, corpus, sizes = sys.argv[1:]
    trainer = LlamaTrainer(
        corpus=corpus, device="cpu", compile="never", processes=2, **eval(sizes)
    )
    run = member(trainer, Mixture(("ab", "cd", "mixed"), [0.5, 0.3, 0.2]), 0, int(rank), meeting)
    next(run)
    assert any("gloo" in name for name in threads())
    for checkpoint in run:
        pass
    print([name for name in threads() if "gloo" in name])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names of threads are read from /proc")
def test_a_member_leaves_no_thread_of_its_group(corpus: Path, tmp_path: Path) -> None:
    """One that drops a tensor as the interpreter ends takes the process with it."""
    meeting = f"file://{tmp_path / 'meeting-point'}"
    printed = members(LEAVES, (meeting,) * 2, (str(corpus),) * 2, (repr(SIZES),) * 2)
    assert printed == ["[]\n"] * 2
