"""Data sets in folders, and one that is made in code so that a comparison needs no data.

Published swarms come as folders in the forms of `bimix_tune.curves.read_curves`; a file
``meta.json`` beside them may say which domain a validation set belongs to (``own``), or give
the whole search space (``space``) and training-free mixtures by label (``known``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bimix_tune.atomic import write_atomic
from bimix_tune.benchmark.swarms import FEWEST_RUNS, DataSet, ScalePair, Swarm, data_set
from bimix_tune.curves import LossCurve, read_curves
from bimix_tune.errors import CurveError, did_you_mean
from bimix_tune.mixture import Mixture
from bimix_tune.space import SearchSpace
from bimix_tune.training.synthetic import DECAY_GAIN, SyntheticTrainer

BIG_RUNS, BIGGER, LOWER = 10, 8, 0.85
"""The invented big scale: its runs, its tokens and its losses relative to the small one's."""


def load_data(folder: str | Path) -> list[DataSet]:
    """All data sets in a folder, or the one that the folder is.

    A data set is a folder with ``runs.csv`` and ``losses.csv`` or ``curves.jsonl``.

    Raises:
        CurveError: There is no such folder, no data set in it, or none with enough runs.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CurveError(f"no such folder: {folder}")
    places = [p for p in (folder, *sorted(folder.iterdir())) if holds_runs(p)]
    if not places:
        raise CurveError(
            f"{folder} holds no swarm: expected runs.csv + losses.csv or curves.jsonl in it "
            "or in its subfolders"
        )
    found = [data_set(p.name, read_curves(p), **read_meta(p / "meta.json")) for p in places]
    if not any(d.swarms or d.pair for d in found):
        raise CurveError(
            f"{folder} holds no swarm: no model scale has {FEWEST_RUNS} runs that were all "
            "measured at one token count"
        )
    return found


def choose(data: Sequence[DataSet], names: Sequence[str]) -> list[DataSet]:
    """The data sets or single swarms of the given names.

    Raises:
        CurveError: A name is none of a data set, swarm or pair.
    """
    known = [n for d in data for n in (d.name, *_members(d))]
    for name in names:
        if name not in known:
            raise CurveError(f"no swarm {name!r}" + did_you_mean(name, dict.fromkeys(known)))
    chosen = []
    for d in data:
        swarms = tuple(s for s in d.swarms if {d.name, s.name} & set(names))
        pair = d.pair if d.pair and {d.name, d.pair.name} & set(names) else None
        if swarms or pair:
            chosen.append(DataSet(d.name, swarms, pair, "" if d.pair else d.unpaired))
    return chosen


def _members(data: DataSet) -> list[str]:
    return [s.name for s in data.swarms] + ([data.pair.name] if data.pair else [])


def synthetic_data(
    runs: int = 96, domains: int = 6, seed: int = 0, noise: float = 0.005
) -> DataSet:
    """A swarm whose truth is known and a bigger scale beside it: `synthetic_swarm` of both."""
    small = synthetic_swarm(runs, domains, seed, noise)
    big = synthetic_swarm(BIG_RUNS, domains, seed, noise, BIGGER, LOWER)
    pair = ScalePair(f"synthetic {small.scale} to {big.scale}", small, big)
    return DataSet("synthetic", (small,), pair)


def synthetic_swarm(
    runs: int = 96,
    domains: int = 6,
    seed: int = 0,
    noise: float = 0.005,
    longer: int = 1,
    level: float = 1.0,
) -> Swarm:
    """Runs of BiMix with transfer (`bimix_tune.training.synthetic`), whose truth is known.

    The learning rate is constant to the end, so that early checkpoints can speak for it.

    Args:
        runs: N; mixtures are uniform on the simplex.
        domains: K, and as many targets.
        seed: Of the coefficients, the mixtures and the noise.
        noise: Relative standard deviation of a run's losses.
        longer: How many million tokens a run takes.
        level: Factor of all losses, below one for a better model.
    """
    names = tuple(f"domain {i}" for i in range(domains))
    trainer = SyntheticTrainer(
        domains=names, problem=seed, noise=noise, tokens=longer * 1_000_000, checkpoints=8
    )
    rng = np.random.default_rng([seed, *([longer] if longer > 1 else [])])
    mixtures = [Mixture(names, row) for row in rng.dirichlet(np.ones(domains), size=runs)]
    curves = [
        _curve(trainer, mixture, seed, level, f"{longer}M", str(number))
        for number, mixture in enumerate(mixtures)
    ]
    expected = [trainer.expected(mixture, trainer.tokens) for mixture in mixtures]
    truth = level * np.array([[e[n] for n in names] for e in expected])
    name = f"synthetic {longer}M"
    return Swarm(name, SearchSpace(names), float(trainer.tokens), tuple(curves), truth)


def _curve(
    trainer: SyntheticTrainer, mixture: Mixture, seed: int, level: float, scale: str, run: str
) -> LossCurve:
    """One run without the gain of the decay at its end."""
    points = list(trainer.run(mixture, seed))
    gains = [level / (1.0 - DECAY_GAIN * p.decayed) for p in points]
    losses = [
        [gain * p.losses[n] for n in trainer.domains] for p, gain in zip(points, gains, strict=True)
    ]
    return LossCurve(mixture, [p.tokens for p in points], losses, scale=scale, run=run)


def holds_runs(path: Path) -> bool:
    """Whether a folder is a data set."""
    tables = (path / "runs.csv").is_file() and (path / "losses.csv").is_file()
    return tables or (path / "curves.jsonl").is_file()


def write_meta(path: Path, space: SearchSpace, known: Mapping[str, Mixture]) -> None:
    """Note down what curves do not tell, in the form that `read_meta` reads.

    Args:
        path: The file, ``meta.json`` beside the curves.
        space: Domains and targets.
        known: Training-free mixtures by label.
    """
    mixtures = {label: dict(mixture) for label, mixture in known.items()}
    about = {"space": space.to_dict(), "known": mixtures}
    write_atomic(path, json.dumps(about, indent=1) + "\n")


def read_meta(path: Path) -> dict[str, Any]:
    """The arguments of `data_set` that a ``meta.json`` gives; none without a file.

    Names of targets in ``own`` are those that `read_curves` gives them.

    Raises:
        CurveError: The file is something else.
    """
    if not path.exists():
        return {}
    found: dict[str, Any] = {}
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta.get("own") is not None:
            found["own"] = {k.removeprefix("loss_"): v for k, v in meta["own"].items()}
        if "space" in meta:
            found["space"] = SearchSpace.from_dict(meta["space"])
        known = meta.get("known", {})
        found["known"] = {n: Mixture(m.keys(), m.values()) for n, m in known.items()}
        return found
    except (ValueError, AttributeError, TypeError) as error:
        raise CurveError(
            f"{path}: expected an object with a map `own`, or `space` and `known`: {error}"
        ) from error
