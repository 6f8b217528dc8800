"""What every trainer promises, run over the registry."""

import dataclasses
import math
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bimix_tune.curves import BITS_PER_BYTE, NATS_PER_TOKEN, LossCurve, write_curves
from bimix_tune.errors import ConfigError
from bimix_tune.mixture import Mixture
from bimix_tune.training import TRAINERS, Trainer, load_trainer

DOMAINS = ("ab", "cd", "mixed")
MIXTURE = Mixture(DOMAINS, [0.5, 0.3, 0.2])
TINY_GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16}

PROGRAM = """
    import json, random, sys, time
    mixture, seed, tokens = json.load(open(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    random.seed(seed)
    print("warming up")
    for part in (1, 2, 4):
        losses = {k: 2 + 1 / part - v + random.random() for k, v in mixture.items()}
        print(json.dumps({"tokens": tokens * part // 4, "losses": losses, "decayed": part == 4}))
        sys.stdout.flush()
"""


def make(name: str, corpus: Path, folder: Path) -> Trainer:
    """A trainer of each kind that ends within seconds."""
    training = {"corpus": corpus, "tokens": 3001, "sequence_length": 16, "batch_tokens": 160}
    if name == "llama":
        return load_trainer(name, size="0.1M", checkpoints=3, device="cpu", **training)
    if name == "transformers":
        return load_trainer(name, model=TINY_GPT2, checkpoints=3, device="cpu", **training)
    if name == "command":
        script = folder / "program.py"
        script.write_text(textwrap.dedent(PROGRAM))
        command = [sys.executable, str(script), "{mixture}", "{seed}", "{tokens}"]
        return load_trainer(name, command=command, tokens=1000, targets=DOMAINS)
    if name == "replay":
        losses = [[3, 3, 3], [2, 2.5, 2], [1, 2, 1]]
        curve = LossCurve(MIXTURE, [10, 20, 40], losses, decayed=[False, False, True])
        write_curves(folder / "curves.jsonl", [curve])
        return load_trainer(name, runs=folder / "curves.jsonl")
    assert name == "synthetic", f"teach this suite to make the trainer {name!r}"
    return load_trainer(name, domains=DOMAINS, tokens=5000)


@pytest.fixture(params=sorted(TRAINERS))
def trainer(request: pytest.FixtureRequest, corpus: Path, tmp_path: Path) -> Trainer:
    return make(request.param, corpus, tmp_path)


def test_a_run_ends_at_its_budget(trainer: Trainer) -> None:
    checkpoints = list(trainer.run(MIXTURE, 0))
    tokens = [c.tokens for c in checkpoints]
    assert tokens == sorted(tokens)
    evaluated = [c for c in checkpoints if c.losses]
    assert len({c.tokens for c in evaluated}) == len(evaluated) >= 2
    assert checkpoints[-1].tokens == trainer.tokens
    assert [c.decayed for c in evaluated] == [False] * (len(evaluated) - 1) + [True]
    for c in evaluated:
        assert tuple(c.losses) == trainer.targets
        assert all(math.isfinite(v) and v > 0 for v in c.losses.values())
    assert trainer.targets == DOMAINS
    assert trainer.unit in (NATS_PER_TOKEN, BITS_PER_BYTE)


def test_a_seed_repeats_a_run(trainer: Trainer) -> None:
    first, second = ([c.losses for c in trainer.run(MIXTURE, 3) if c.losses] for _ in range(2))
    assert first == second


def test_another_seed_is_another_run(trainer: Trainer) -> None:
    if type(trainer).__name__ == "ReplayTrainer":
        pytest.skip("one run is recorded")
    first, second = ([c.losses for c in trainer.run(MIXTURE, s) if c.losses] for s in (0, 1))
    assert first != second


def test_closing_stops_a_run(trainer: Trainer) -> None:
    run = trainer.run(MIXTURE, 0)
    next(run)
    run.close()
    assert list(run) == []
    assert list(trainer.run(MIXTURE, 0))[-1].tokens == trainer.tokens


def test_it_travels_to_another_process(trainer: Trainer) -> None:
    copy = pickle.loads(pickle.dumps(trainer))  # our own bytes
    assert (copy.tokens, copy.targets, copy.unit) == (trainer.tokens, trainer.targets, trainer.unit)
    assert list(copy.run(MIXTURE, 0))[-1].losses == list(trainer.run(MIXTURE, 0))[-1].losses


def test_it_is_a_frozen_value(trainer: Trainer) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        trainer.tokens = 1


def test_unknown_trainers_and_options_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'llama'"):
        load_trainer("lama")
    with pytest.raises(ConfigError, match=r"no option 'token'; did you mean 'tokens'"):
        load_trainer("synthetic", token=1)
    with pytest.raises(ConfigError, match="'llama' needs corpus, tokens"):
        load_trainer("llama")


def test_the_package_needs_no_torch() -> None:
    code = (
        "import sys, bimix_tune.training as t\n"
        "t.load_trainer('synthetic'); t.trainer_class('llama'); t.trainer_class('transformers')\n"
        "heavy = {'torch', 'transformers', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
