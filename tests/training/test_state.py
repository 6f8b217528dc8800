"""A training that is cut short goes on to the last bit, or begins again."""

import logging
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import optuna
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import load_file

from bimix_tune import Domain, SearchSpace, search
from bimix_tune.executors.base import Event, Finished, Job, Progress
from bimix_tune.executors.local import LocalExecutor
from bimix_tune.loop.second_look import SecondLook
from bimix_tune.loop.state import SearchState
from bimix_tune.mixture import Mixture
from bimix_tune.training import state as state_module
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.llama import LlamaTrainer
from bimix_tune.training.state import SAVE_EVERY, SAVING_SHARE, State, StateFile
from bimix_tune.training.torch_trainer import TorchTrainer, run_name
from bimix_tune.training.transformers import TransformersTrainer

DOMAINS = ("ab", "cd", "mixed")
MIXTURE = Mixture(DOMAINS, [0.5, 0.3, 0.2])
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16}
STEPS = 13
FIRST_EPOCH_OF_AB = 4
"""Steps after which the domain "ab", cut to 20 windows, is read for the second time."""


@pytest.fixture(autouse=True)
def every_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bimix_tune.training.loop.SIGN_OF_LIFE", 0.0)


def make(kind: str, corpus: Path, folder: Path, **options: object) -> TorchTrainer:
    """A run of `STEPS` steps, evaluated after 1, 4, 10 and 13 of them."""
    chosen = {"tokens": 2000, "sequence_length": 16, "batch_tokens": 160, "checkpoints": 4}
    chosen |= {"corpus": corpus, "device": "cpu", "learning_rate": 4e-3, **options}
    chosen |= {"unique_tokens": {"ab": 320}, "save_to": folder / "out"}
    if kind == "llama":
        return LlamaTrainer(size="0.1M", **chosen)
    return TransformersTrainer(model=GPT2, **chosen)


def cut_short(trainer: TorchTrainer, step: int, seed: int = 0) -> None:
    """Train, and stop after a step of this training."""
    run = trainer.run(MIXTURE, seed)
    next(c for c in run if c.tokens >= min(160 * step, 2000))
    run.close()


class StopsAll(optuna.pruners.BasePruner):
    """Wrong about some."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return True


def curve(
    trainer: TorchTrainer, seed: int = 0, mixture: Mixture = MIXTURE
) -> list[tuple[int, dict[str, float], bool]]:
    """Tokens, losses and decay of every checkpoint with losses, to the end of the run."""
    return [(c.tokens, dict(c.losses), c.decayed) for c in trainer.run(mixture, seed) if c.losses]


def weights(trainer: TorchTrainer) -> dict[str, torch.Tensor]:
    return load_file(trainer.save_to / run_name(MIXTURE, 0) / "model.safetensors")


def assert_same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.mark.parametrize("kind", ["llama", "transformers"])
def test_a_run_goes_on_to_the_last_bit(kind: str, corpus: Path, tmp_path: Path) -> None:
    whole = make(kind, corpus, tmp_path / "whole")
    expected = curve(whole)
    assert [tokens for tokens, *_ in expected] == [160, 640, 1600, 2000]
    parts = make(kind, corpus, tmp_path / "parts", states=tmp_path / "states")
    for step in (1, 2, FIRST_EPOCH_OF_AB, 7, 10, 11, 12):  # 11 and 12 are in the decay
        cut_short(parts, step)
        assert len(list(parts.states.iterdir())) == 1
    assert curve(parts) == expected
    assert_same_weights(weights(parts), weights(whole))
    assert list(parts.states.iterdir()) == []


@pytest.mark.parametrize("step", [1, 6, 12])
def test_it_trains_only_what_is_left(step: int, corpus: Path, tmp_path: Path) -> None:
    expected = curve(make("llama", corpus, tmp_path))
    parts = make("llama", corpus, tmp_path, states=tmp_path / "states")
    cut_short(parts, step)
    trained = [c.tokens for c in parts.run(MIXTURE, 0) if not c.losses and c.tokens]
    assert min(trained, default=2000) > 160 * step
    cut_short(parts, step)
    assert curve(parts) == expected


def test_a_run_stopped_at_its_end_or_start_leaves_nothing(corpus: Path, tmp_path: Path) -> None:
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    for step in (0, STEPS):
        cut_short(trainer, step)
        assert not list(tmp_path.glob("states/*"))


def test_each_run_has_a_state_of_its_own(corpus: Path, tmp_path: Path) -> None:
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    expected = [curve(make("llama", corpus, tmp_path), seed) for seed in (0, 1)]
    for seed in (0, 1):
        cut_short(trainer, 6, seed)
    assert [curve(trainer, seed) for seed in (0, 1)] == expected


def test_a_state_of_other_settings_is_not_used(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut_short(make("llama", corpus, tmp_path, states=tmp_path / "states"), 6)
    for options in ({"learning_rate": 1e-3}, {"evaluation_tokens": 32}, {"tokens": 1999}):
        other = make("llama", corpus, tmp_path, **{"states": tmp_path / "states", **options})
        kept = next((tmp_path / "states").iterdir()).read_bytes()
        assert curve(other) == curve(make("llama", corpus, tmp_path, **options))
        assert "of a run with other settings" in caplog.text
        caplog.clear()
        (tmp_path / "states" / f"{run_name(MIXTURE, 0)}.safetensors").write_bytes(kept)


def test_a_job_that_is_queued_again_goes_on(corpus: Path, tmp_path: Path) -> None:
    """As a search does with a run that it had pruned, or that a worker lost."""
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    with LocalExecutor(trainer) as executor:
        executor.submit(Job(0, MIXTURE, 0))
        while not measured(executor.events(60)):
            pass
        executor.stop(0)
        assert executor.events(60) == [Finished(0, stopped=True)]
        executor.submit(Job(1, MIXTURE, 0))
        events = []
        while Finished(1) not in events:
            events += executor.events(60)
    assert measured(events) == curve(make("llama", corpus, tmp_path))


def measured(events: list[Event]) -> list[tuple[int, dict[str, float], bool]]:
    """As `curve`, from events."""
    seen = [e.checkpoint for e in events if isinstance(e, Progress) and e.checkpoint.losses]
    return [(c.tokens, dict(c.losses), c.decayed) for c in seen]


def test_a_search_that_is_continued_continues_its_runs(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run under way is queued again with the very same shares, else its state would stay."""
    monkeypatch.setattr("bimix_tune.loop.phases.MONITOR_SECONDS", 0.0)
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    space = SearchSpace([Domain(name) for name in DOMAINS])
    options = {"trials": 3, "confirm_seeds": 0, "storage": optuna.storages.InMemoryStorage()}

    def interrupt(state: SearchState) -> None:
        if any(run.role != "baseline" and run.reported for run in state.running):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(space, trainer, folder=tmp_path / "run", monitor=interrupt, **options)
    assert len(list(trainer.states.iterdir())) == 1
    result = search(space, trainer, folder=tmp_path / "run", **options)
    assert list(trainer.states.iterdir()) == []
    again = list(trainer.run(result.records[-1].mixture, 0))[-1].losses
    assert result.records[-1].objective == pytest.approx(sum(again.values()) / 3, rel=1e-12)


def test_a_run_that_was_stopped_early_goes_on_when_the_law_wants_it(
    corpus: Path, tmp_path: Path
) -> None:
    """From its state, and to the last bit as if it had never stopped."""
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    space = SearchSpace([Domain(name) for name in DOMAINS])
    storage = optuna.storages.InMemoryStorage()
    options = {"trials": 2, "confirm_seeds": 0, "storage": storage, "pruner": StopsAll()}
    first = search(space, trainer, folder=tmp_path / "run", **options)
    stopped = first.records[-1]
    assert stopped.state == "PRUNED"
    assert trainer.resumes(stopped.mixture, 0)
    assert not trainer.resumes(stopped.mixture, 1)
    study = optuna.load_study(study_name="run", storage=storage)
    law = SimpleNamespace(predict=lambda mixtures, tokens: np.zeros((len(mixtures), 3)))
    SecondLook(study, space, trainer).take(law)
    result = search(space, trainer, folder=tmp_path / "run", **options)
    assert [r.label for r in result.records][1:] == ["continued"]
    found = result.records[-1].curve
    assert found.mixture == stopped.mixture
    whole = curve(make("llama", corpus, tmp_path), mixture=stopped.mixture)
    assert [
        (int(s), dict(zip(found.targets, row.tolist(), strict=True)), bool(d))
        for s, row, d in zip(found.tokens, found.losses, found.decayed, strict=True)
    ] == whole
    assert not trainer.resumes(stopped.mixture, 0)


@pytest.fixture
def saved_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(state_module, "SAVING_SHARE", 1e9)


@pytest.mark.usefixtures("saved_after_every_step")
def test_the_last_checkpoint_says_what_looking_cost(corpus: Path, tmp_path: Path) -> None:
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    notes = list(trainer.run(MIXTURE, 0))[-1].notes
    assert 0 < notes["evaluation_share"] < 1
    assert 0 < notes["saving_share"] < 1
    assert notes["parameters"] > 0


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "text"])
def test_a_damaged_state_is_not_used(
    damage: str, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    cut_short(trainer, 6)
    (path,) = trainer.states.iterdir()
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    damaged = {"flip": flipped, "truncate": content[:middle], "empty": b"", "text": b"x" * 99}
    path.write_bytes(damaged[damage])
    assert curve(trainer) == curve(make("llama", corpus, tmp_path))
    assert "is not used, the run begins again" in caplog.text
    assert str(path) in caplog.text


def small_state() -> State:
    tensors = {"weights.a": torch.arange(6.0).reshape(2, 3), "optimiser.0.step": torch.tensor(3.0)}
    seen = (Checkpoint(10, {"t": 0.1 + 0.2}, seconds=0.5),)
    return State(3, {"ab": 7}, seen, {"all": 1.5}, tensors)


def equal(a: State, b: State) -> bool:
    """Whether two states have the same facts and the same bits."""
    one, two = ({k: v for k, v in vars(s).items() if k != "tensors"} for s in (a, b))
    same = a.tensors.keys() == b.tensors.keys()
    return one == two and same and all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "deep" / "s", {"seed": 1})
    assert file.read() is None
    file.write(small_state())
    assert equal(file.read(), small_state())
    assert StateFile(file.path, {"seed": 2}).read() is None
    file.delete()
    file.delete()
    assert list(file.path.parent.iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data())
def test_no_damage_goes_unseen(data: st.DataObject, tmp_path: Path) -> None:
    """Every flipped bit is found, unless it lies in padding and changes nothing."""
    file = StateFile(tmp_path / "s", {"seed": 1})
    file.write(small_state())
    content = bytearray(file.path.read_bytes())
    if data.draw(st.booleans(), "flip"):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        file.path.write_bytes(content)
        found = file.read()
        assert found is None or equal(found, small_state())
    else:
        file.path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        assert file.read() is None


def test_a_state_of_another_model_changes_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after an update that gives the same size another shape."""
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    expected = curve(make("llama", corpus, tmp_path))
    with monkeypatch.context() as patch:
        from bimix_tune.training.sizes import Shape

        shape = lambda size: Shape(1, 32, 1, 32)  # noqa: E731
        patch.setattr("bimix_tune.training.llama.shape_of", shape)
        cut_short(trainer, 6)
    assert curve(trainer) == expected
    assert "no array weights." in caplog.text


@pytest.mark.usefixtures("saved_after_every_step")
def test_a_folder_that_cannot_be_written_stops_no_run(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "states").write_text("no folder")
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    with caplog.at_level(logging.WARNING):
        assert curve(trainer) == curve(make("llama", corpus, tmp_path))
    assert caplog.text.count("no state of this run is kept") == 1


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_state import MIXTURE, make
    from bimix_tune.training import state

    state.SAVE_EVERY, state.SAVING_SHARE, whole, calls = 0.0, 1e9, state.save_file, []

    def half(tensors, path, metadata):
        calls.append(path)
        whole(tensors, path, metadata)
        if len(calls) == 5:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    state.save_file = half
    folder = Path(sys.argv[3])
    list(make("llama", Path(sys.argv[2]), folder, states=folder / "states").run(MIXTURE, 0))
"""


def test_a_kill_in_the_middle_of_saving_loses_one_step(corpus: Path, tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    arguments = [sys.executable, "-c", textwrap.dedent(KILLED), here, str(corpus), str(tmp_path)]
    assert subprocess.run(arguments, check=False, timeout=300).returncode == -signal.SIGKILL
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    assert len(list(trainer.states.iterdir())) == 2  # the whole one, and half of the next
    checkpoints = list(trainer.run(MIXTURE, 0))
    assert min(c.tokens for c in checkpoints if c.tokens and not c.losses) == 5 * 160
    expected = curve(make("llama", corpus, tmp_path))
    assert [(c.tokens, dict(c.losses), c.decayed) for c in checkpoints if c.losses] == expected
    assert list(trainer.states.iterdir()) == []


def test_a_state_takes_16_bytes_a_parameter(corpus: Path, tmp_path: Path) -> None:
    trainer = make("llama", corpus, tmp_path, states=tmp_path / "states")
    for step, each in ((9, 16), (12, 12)):  # without the average in the decay
        cut_short(trainer, step)
        (path,) = trainer.states.iterdir()
        parameters = next(trainer.run(MIXTURE, 0)).notes["parameters"]
        assert path.stat().st_size == pytest.approx(each * parameters, rel=0.05)


def test_saving_takes_its_share_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, cost = [0.0], 2.0
    monkeypatch.setattr(state_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(*_: object, **__: object) -> None:
        now[0] += cost
        Path(str(_[1])).touch()

    monkeypatch.setattr(state_module, "save_file", slow)
    file, saves = StateFile(tmp_path / "s", {}), []
    while now[0] < 2000:
        now[0] += 0.5
        if file.due():
            file.write(small_state())
            saves.append(now[0])
    assert saves[0] == SAVE_EVERY + cost
    assert len(saves) > 5
    assert cost * len(saves) <= SAVING_SHARE * now[0] + cost
