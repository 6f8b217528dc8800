"""How long samplers think about one trial, as the study grows.

All samplers are asked in turn (A B C, A B C, ...), so that what else the machine does falls on all
of them alike.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import create_trial

from bimix_tune.sampler import BiMixSampler
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace, Target
from bimix_tune.trials import LOSSES, WEIGHTS, distributions, report_losses, suggest_mixture

CHECKPOINTS = (1_000, 2_000, 5_000, 10_000)
NOISE = 0.003
"""Relative standard deviation of a run."""
LEARNS_CURVES = "bimix-tune, losses"
"""The sampler that is given the loss curves of all targets; the others see the objective only."""

SAMPLERS: Mapping[str, Callable[[SearchSpace], BaseSampler]] = {
    LEARNS_CURVES: lambda space: BiMixSampler(space, seed=0),
    "bimix-tune, values": lambda space: BiMixSampler(space, seed=0),
    "Optuna GP": lambda space: GPSampler(seed=0),
    "Optuna TPE": lambda space: TPESampler(seed=0),
}


@dataclass(frozen=True)
class AskTime:
    """Seconds of processor time for one ask of a sampler.

    Args:
        sampler: A name of `SAMPLERS`.
        trials: Finished trials in the study before the first ask.
        first: Of the first ask, which fits all anew.
        median: Of the others.
        mean: Of the others.
    """

    sampler: str
    trials: int
    first: float
    median: float
    mean: float


def time_asks(
    trials: int, *, domains: int = 17, targets: int = 13, asks: int = 15, seed: int = 0
) -> list[AskTime]:
    """Time all samplers in studies of a size, by turns.

    Args:
        trials: Finished trials to begin with: flat random mixtures.
        domains: K.
        targets: V <= K, each with a domain of its own.
        asks: How often each sampler is asked after the first time; each answer is told.
        seed: Of the mixtures and the noise.
    """
    names = [f"domain {i}" for i in range(domains)]
    space = SearchSpace(names, [Target(name, domain=name) for name in names[:targets]])
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():  # Optuna's process was experimental until its version 5
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        studies = {n: optuna.create_study(sampler=make(space)) for n, make in SAMPLERS.items()}
    for _ in range(trials):
        r = rng.dirichlet(np.ones(domains))
        losses = _losses(r, targets, rng)
        for name, study in studies.items():
            study.add_trial(_finished(space, r, losses, name == LEARNS_CURVES))
    seconds: dict[str, list[float]] = {name: [] for name in studies}
    for _ in range(asks + 1):
        for name, study in studies.items():
            began = time.process_time()
            trial = study.ask()
            mixture = suggest_mixture(trial, space)
            seconds[name].append(time.process_time() - began)
            losses = _losses(space.array(mixture), targets, rng)
            if name == LEARNS_CURVES:
                for tokens, row in zip(CHECKPOINTS, losses, strict=True):
                    named = dict(zip(space.target_names, row.tolist(), strict=True))
                    report_losses(trial, tokens, named)
            study.tell(trial, float(losses[-1].mean()))
    return [_summary(name, trials, taken) for name, taken in seconds.items()]


def _summary(sampler: str, trials: int, taken: Sequence[float]) -> AskTime:
    rest = taken[1:]
    return AskTime(sampler, trials, taken[0], float(np.median(rest)), float(np.mean(rest)))


def _losses(r: Array, targets: int, rng: np.random.Generator) -> Array:
    """Losses of a run at all checkpoints, (S, V): BiMix with a floor, and noise."""
    end = 2.0 * (0.02 + r[:targets]) ** -0.15 * np.exp(NOISE * rng.standard_normal(targets))
    falls = 1.0 + 5.0 * np.array(CHECKPOINTS)[:, None] ** -0.4
    return np.asarray(end * falls)


def _finished(
    space: SearchSpace, r: Array, losses: Array, with_curve: bool
) -> optuna.trial.FrozenTrial:
    known = distributions(space)
    attributes: dict[str, object] = {}
    if with_curve:
        attributes[WEIGHTS] = dict(zip(space.target_names, space.weights.tolist(), strict=True))
        for tokens, row in zip(CHECKPOINTS, losses, strict=True):
            named = dict(zip(space.target_names, row.tolist(), strict=True))
            record = {"losses": named, "decayed": False, "unit": "nats/token"}
            attributes[f"{LOSSES}{tokens}"] = record
    return create_trial(
        params=dict(zip(known, r.tolist(), strict=True)),
        distributions=dict(known),
        value=float(losses[-1].mean()),
        user_attrs=attributes,
    )
