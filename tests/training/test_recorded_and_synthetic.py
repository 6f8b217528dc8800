"""Trainers that train nothing: recorded runs and a known law."""

from pathlib import Path

import numpy as np
import pytest

from bimix_tune.curves import LossCurve, write_curves
from bimix_tune.errors import ConfigError, MixtureError, TrainingError
from bimix_tune.mixture import Mixture
from bimix_tune.training.replay import ReplayTrainer
from bimix_tune.training.synthetic import DECAY_GAIN, SyntheticTrainer

HALF = Mixture(["a", "b"], [0.5, 0.5])


def record(folder: Path) -> Path:
    third = Mixture(["a", "b"], [1 / 3, 2 / 3])
    curves = [
        LossCurve(HALF, [10, 20], [[3, 3], [2, float("nan")]], seed=0),
        LossCurve(HALF, [10, 20], [[3, 3], [2.5, 2]], seed=1),
        LossCurve(third, [10, 20], [[4, 3], [3, 2]], seed=0),
        LossCurve(third, [10], [[9, 9]], seed=4),
    ]
    write_curves(folder / "curves.jsonl", curves)
    return folder


def test_replay_takes_the_nearest_run_and_its_seed(tmp_path: Path) -> None:
    trainer = ReplayTrainer(runs=record(tmp_path))
    assert (trainer.tokens, trainer.targets, trainer.unit) == (20, ("a", "b"), "nats/token")
    near = Mixture(["b", "a"], [0.504, 0.496])
    assert list(trainer.run(near, 1))[-1].losses == {"a": 2.5, "b": 2.0}
    assert list(trainer.run(near, 0))[-1].losses == {"a": 2.0}
    assert list(trainer.run(near, 3))[-1].losses == {"a": 2.5, "b": 2.0}


def test_replay_ignores_incomplete_runs(tmp_path: Path) -> None:
    trainer = ReplayTrainer(runs=record(tmp_path))
    third = Mixture(["a", "b"], [1 / 3, 2 / 3])
    assert list(trainer.run(third, 4))[-1].losses == {"a": 3.0, "b": 2.0}


def test_replay_refuses_what_was_not_recorded(tmp_path: Path) -> None:
    trainer = ReplayTrainer(runs=record(tmp_path))
    with pytest.raises(TrainingError, match=r"no recorded run within 0.005.*is 0.1 away"):
        list(trainer.run(Mixture(["a", "b"], [0.6, 0.4]), 0))
    with pytest.raises(TrainingError, match="no recorded run"):
        list(trainer.run(Mixture(["a", "c"], [0.5, 0.5]), 0))


def test_replay_refuses_mixed_records(tmp_path: Path) -> None:
    curves = [
        LossCurve(HALF, [10], [[3, 3]]),
        LossCurve(HALF, [10], [[3, 3]], unit="bits/byte"),
    ]
    write_curves(tmp_path / "curves.jsonl", curves)
    with pytest.raises(ConfigError, match="must agree in targets and unit"):
        ReplayTrainer(runs=tmp_path)
    with pytest.raises(ConfigError, match="tolerance"):
        ReplayTrainer(runs=tmp_path, tolerance=-1)


def uniform(trainer: SyntheticTrainer) -> Mixture:
    return Mixture.normalised(dict.fromkeys(trainer.domains, 1.0))


def test_synthetic_noise_has_the_size_and_persistence_stated() -> None:
    trainer = SyntheticTrainer(noise=0.01)
    mixture = uniform(trainer)
    residuals = []
    for seed in range(300):
        curve = list(trainer.run(mixture, seed))
        residuals.append(
            [
                [
                    np.log(c.losses[n] / trainer.expected(mixture, c.tokens, c.decayed)[n])
                    for n in trainer.targets
                ]
                for c in curve
            ]
        )
    z = np.array(residuals)  # (runs, checkpoints, targets)
    assert z.std() == pytest.approx(0.01, rel=0.1)
    first, last = z[:, 0].ravel(), z[:, -1].ravel()
    assert np.corrcoef(first, last)[0, 1] == pytest.approx(0.9, abs=0.03)
    assert abs(np.corrcoef(z[:, 0, 0], z[:, 0, 1])[0, 1]) < 0.2


def test_synthetic_law_behaves_like_losses() -> None:
    trainer = SyntheticTrainer(noise=0.0)
    mixture = uniform(trainer)
    checkpoints = list(trainer.run(mixture, 0))
    assert checkpoints[-1].losses == trainer.expected(mixture, trainer.tokens, decayed=True)
    more_code = Mixture(trainer.domains, [0.2, 0.4, 0.2, 0.2])
    assert trainer.expected(more_code, 1e6)["code"] < trainer.expected(mixture, 1e6)["code"]
    assert trainer.expected(mixture, 2e6)["web"] < trainer.expected(mixture, 1e6)["web"]
    none = Mixture(trainer.domains, [0.5, 0, 0.25, 0.25])
    assert np.isfinite(trainer.expected(none, 1e6)["code"])
    assert trainer.expected(mixture, 1e6, decayed=True)["web"] == pytest.approx(
        trainer.expected(mixture, 1e6)["web"] * (1 - DECAY_GAIN)
    )
    assert SyntheticTrainer(problem=1).expected(mixture, 1e6) != trainer.expected(mixture, 1e6)


def test_synthetic_refuses_nonsense() -> None:
    with pytest.raises(ConfigError, match="different names"):
        SyntheticTrainer(domains=("a", "a"))
    with pytest.raises(ConfigError, match="domains must be a list, but got 'ab'"):
        SyntheticTrainer(domains="ab")
    with pytest.raises(ConfigError, match="noise and sleep must be >= 0"):
        SyntheticTrainer(noise=-0.1)
    with pytest.raises(MixtureError, match="did you mean 'web'"):
        list(SyntheticTrainer().run(Mixture(["wep", "code"], [0.5, 0.5]), 0))
