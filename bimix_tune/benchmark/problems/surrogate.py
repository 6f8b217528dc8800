"""Continuous problems made of recorded runs: networks fitted to them stand in for the training.

They are as near to real losses as a continuous problem gets; the noise of a run is that of the
recorded seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from bimix_tune.benchmark.problems import networks
from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.benchmark.problems.networks import Networks, fit_networks
from bimix_tune.benchmark.problems.noise import of_a_run
from bimix_tune.benchmark.problems.pool import aim, budget, groups, slug, training_free
from bimix_tune.benchmark.swarms import Swarm
from bimix_tune.errors import CurveError
from bimix_tune.laws.optimum.objectives import Objective
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace
from bimix_tune.training.base import Checkpoint

NOISE = 0.003
"""Relative standard deviation of a run's losses where no mixture was repeated."""


@dataclass(frozen=True, eq=False)
class Model:
    """Losses of any mixture at S checkpoints, learnt from a swarm.

    Args:
        tokens: Of the checkpoints, (S,).
        decayed: Which of them were taken after the decay.
        networks: Log losses, flattened from (S, V).
        scatter: Noise of the log losses is a normal mixture of these rows, (R, S V); None: it
            was not measured.
    """

    tokens: Array
    decayed: tuple[bool, ...]
    networks: Networks
    scatter: Array | None


@dataclass(frozen=True, eq=False)
class Surrogate(Problem):
    """A model of recorded runs; made by `Surrogate.of`.

    Args:
        swarm: The recorded runs.
    """

    kind: ClassVar[str] = "surrogate"

    name: str
    space: SearchSpace
    tokens: int
    runs: int
    unit: str
    objective: Objective
    known: Mapping[str, Mixture] = field(repr=False)
    swarm: Swarm = field(repr=False)

    @classmethod
    def of(cls, swarm: Swarm, label: str, objective: str) -> Surrogate:
        """The surrogate of a swarm; arguments and errors as in `Pool.of`."""
        space, chosen = aim(swarm, objective)
        return cls(
            f"{label}-surrogate-{slug(objective)}",
            space,
            int(swarm.tokens),
            budget(len(space.names)),
            swarm.curves[0].unit,
            chosen,
            training_free(swarm),
            swarm,
        )

    @property
    def model(self) -> Model:
        """The fitted model, shared by all problems of the swarm in this process."""
        if self.swarm.digest not in _FITTED:
            _FITTED[self.swarm.digest] = fit_model(self.swarm)
        return _FITTED[self.swarm.digest]

    def train(self, r: Array, seed: int) -> Iterator[Checkpoint]:
        """The model's curve with the noise of a run."""
        model, v = self.model, len(self.space.targets)
        steps = len(model.tokens)
        rng = np.random.default_rng([seed, *np.round(r * 1e9).astype(np.int64).tolist()])
        if model.scatter is None:
            noise = NOISE * of_a_run(rng, steps, v)
        else:
            noise = (rng.standard_normal(len(model.scatter)) @ model.scatter).reshape(steps, v)
        losses = np.exp(model.networks.predict(r[None])[0].reshape(steps, v) + noise)
        for tokens, row, decayed in zip(model.tokens, losses, model.decayed, strict=True):
            named = dict(zip(self.space.target_names, row.tolist(), strict=True))
            yield Checkpoint(int(tokens), named, decayed)

    def truth(self, points: Array) -> Array:
        final = slice(-len(self.space.targets), None)
        losses = np.exp(self.model.networks.predict(points, final))
        return self.objective.value(losses, self.space.weights)

    @property
    def digest(self) -> str:
        settings = (networks.HIDDEN, networks.MEMBERS, networks.DECAY, networks.STEPS, NOISE)
        return self.fingerprint(self.swarm.digest, self.runs, settings)


_FITTED: dict[str, Model] = {}
"""Models by the digest of their swarm: one fit serves all objectives."""


def fit_model(swarm: Swarm) -> Model:
    """Networks and noise from the checkpoints that all runs have in common.

    Raises:
        CurveError: The runs have no checkpoint in common.
    """
    columns = [swarm.curves[0].targets.index(t) for t in swarm.space.target_names]
    measured = []
    for curve in swarm.curves:
        whole = np.isfinite(curve.losses[:, columns]).all(axis=1)
        measured.append(set(curve.tokens[whole].tolist()))
    shared = sorted(set.intersection(*measured))
    if not shared:
        raise CurveError(f"the runs of {swarm.name} have no checkpoint in common")
    rows = [np.isin(c.tokens, shared) for c in swarm.curves]
    logs = [np.log(c.losses[keep][:, columns]) for c, keep in zip(swarm.curves, rows, strict=True)]
    y = np.array(logs).reshape(len(logs), -1)
    decayed = tuple(swarm.curves[0].decayed[rows[0]].tolist())
    fitted = fit_networks(swarm.proportions, y)
    return Model(np.array(shared), decayed, fitted, _scatter(swarm, y))


def _scatter(swarm: Swarm, y: Array) -> Array | None:
    """Deviations of repeated runs from their mean, scaled to the covariance of one run."""
    repeated = [runs for runs in groups(swarm).values() if len(runs) > 1]
    if not repeated:
        return None
    off = np.concatenate([y[runs] - y[runs].mean(axis=0) for runs in repeated])
    return np.asarray(off / np.sqrt(len(off) - len(repeated)))


def accuracy(swarm: Swarm, objective: str, folds: int = 5) -> tuple[float, float]:
    """How well the networks predict the final objective of mixtures they have not seen.

    Args:
        swarm: The recorded runs.
        objective: As in `Surrogate.of`.
        folds: Parts of the mixtures, each predicted from the others.

    Returns:
        Coefficient of determination, and Spearman's correlation of ranks.
    """
    space, chosen = aim(swarm, objective)
    runs_of = list(groups(swarm).values())
    order = np.random.default_rng(0).permutation(len(runs_of))
    y = np.log(swarm.final)
    guess, seen = [], []
    for part in np.array_split(order, folds):
        held = sorted(set(part.tolist()))
        rest = [i for j in range(len(runs_of)) if j not in held for i in runs_of[j]]
        fitted = fit_networks(swarm.proportions[rest], y[rest])
        first = [runs_of[j][0] for j in held]
        guess.append(np.exp(fitted.predict(swarm.proportions[first])))
        seen.append(np.array([np.exp(y[runs_of[j]]).mean(axis=0) for j in held]))
    predicted = chosen.value(np.concatenate(guess), space.weights)
    measured = chosen.value(np.concatenate(seen), space.weights)
    unexplained = float(((predicted - measured) ** 2).mean() / measured.var())
    ranks = np.array([predicted, measured]).argsort(axis=1).argsort(axis=1)
    return 1 - unexplained, float(np.asarray(np.corrcoef(ranks))[0, 1])
