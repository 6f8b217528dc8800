"""Recorded runs as a search problem: each recorded mixture may be run once.

Nothing about these losses is made up, noise included, but a strategy cannot go beyond the
mixtures that were recorded.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.benchmark.swarms import Swarm
from bimix_tune.curves import LossCurve
from bimix_tune.errors import ConfigError, MixtureError, did_you_mean
from bimix_tune.laws.optimum.objectives import Mean, Objective, Regret
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace
from bimix_tune.training.base import Checkpoint

SAME = 1e-6
"""Mixtures that differ less in every proportion are one."""
FEW_DOMAINS, RUNS_FEW, RUNS_MANY = 10, 60, 100
"""Runs of a search in up to so many domains, and in more."""
SHARE = 0.25
"""A search may run at most this share of a pool: half of it would find the best by chance."""


@dataclass(frozen=True, eq=False)
class Pool(Problem):
    """Replays recorded runs; made by `Pool.of`.

    Args:
        swarm: The runs; a mixture recorded with several seeds is one candidate.
        candidates: The different mixtures, (N, K).
    """

    kind: ClassVar[str] = "pool"

    name: str
    space: SearchSpace
    tokens: int
    runs: int
    unit: str
    objective: Objective
    candidates: Array = field(repr=False)
    known: Mapping[str, Mixture] = field(repr=False)
    swarm: Swarm = field(repr=False)

    @classmethod
    def of(cls, swarm: Swarm, label: str, objective: str) -> Pool:
        """The pool of a swarm.

        Args:
            swarm: The runs.
            label: Begins the name.
            objective: One of `OBJECTIVES` or a target.

        Raises:
            ConfigError: There is no such objective for this swarm.
        """
        space, chosen = aim(swarm, objective)
        mixtures = losses_by_mixture(swarm)[0]
        runs = max(1, min(budget(len(space.names)), int(SHARE * len(mixtures))))
        return cls(
            f"{label}-{slug(objective)}",
            space,
            int(swarm.tokens),
            runs,
            swarm.curves[0].unit,
            chosen,
            mixtures,
            training_free(swarm),
            swarm,
        )

    @cached_property
    def _runs_of(self) -> list[list[LossCurve]]:
        """The curves of each candidate."""
        return [[self.swarm.curves[i] for i in runs] for runs in groups(self.swarm).values()]

    @cached_property
    def _truth(self) -> Array:
        """The objective of each candidate, (N,): of its losses, averaged over its seeds."""
        losses = losses_by_mixture(self.swarm)[1]
        return self.objective.value(losses, self.space.weights)

    def _find(self, points: Array) -> Array:
        """Positions of mixtures (M, K) among the candidates, (M,)."""
        off = np.abs(points[:, None] - self.candidates[None]).max(axis=2)
        if (off.min(axis=1) > SAME).any():
            missing = points[int(off.min(axis=1).argmax())]
            raise MixtureError(
                f"{self.name} knows the recorded mixtures only, and not {missing.tolist()}"
            )
        return np.asarray(off.argmin(axis=1))

    def train(self, r: Array, seed: int) -> Iterator[Checkpoint]:
        """The recorded checkpoints; ``seed`` counts through the runs of the mixture."""
        runs = self._runs_of[int(self._find(r[None])[0])]
        curve = runs[seed % len(runs)]
        for tokens, row, decayed in zip(curve.tokens, curve.losses, curve.decayed, strict=True):
            losses = dict(zip(curve.targets, row.tolist(), strict=True))
            seen = {t: losses[t] for t in self.space.target_names if np.isfinite(losses[t])}
            yield Checkpoint(int(tokens), seen, bool(decayed))

    def truth(self, points: Array) -> Array:
        """The recorded objective of candidates, with its noise where only one run was made."""
        return np.asarray(self._truth[self._find(points)])

    @property
    def digest(self) -> str:
        return self.fingerprint(self.swarm.digest, self.runs)


def slug(text: str) -> str:
    """A name in the form of those of problems.

    >>> slug("regmix_1m pile_cc")
    'regmix-1m-pile-cc'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def budget(domains: int) -> int:
    """Runs of a search in so many domains."""
    return RUNS_FEW if domains <= FEW_DOMAINS else RUNS_MANY


def training_free(swarm: Swarm) -> Mapping[str, Mixture]:
    """The known mixtures of a swarm; the uniform one if none were noted down."""
    return swarm.known or {"uniform": swarm.space.uniform()}


def groups(swarm: Swarm) -> dict[tuple[float, ...], list[int]]:
    """Positions of the runs of each mixture."""
    found: dict[tuple[float, ...], list[int]] = {}
    for i, row in enumerate(np.round(swarm.proportions, 6).tolist()):
        found.setdefault(tuple(row), []).append(i)
    return found


def losses_by_mixture(swarm: Swarm) -> tuple[Array, Array]:
    """The different mixtures, (N, K), and their final losses averaged over seeds, (N, V)."""
    found = groups(swarm).values()
    final = swarm.final if swarm.truth is None else swarm.truth
    mixtures = np.array([swarm.proportions[runs[0]] for runs in found])
    return mixtures, np.array([final[runs].mean(axis=0) for runs in found])


def aim(swarm: Swarm, objective: str) -> tuple[SearchSpace, Objective]:
    """A search space with the weights of an objective, and the objective.

    Args:
        swarm: The runs.
        objective: One of `OBJECTIVES`, or a target by its name.

    Raises:
        ConfigError: There is no such objective for this swarm.
    """
    names = objectives(swarm)
    if objective in OBJECTIVES and objective in names:
        return OBJECTIVES[objective](swarm)
    if objective in swarm.space.target_names:
        return _weigh(swarm.space, {objective}), Mean()
    raise ConfigError(
        f"no objective {objective!r} for {swarm.name}"
        + did_you_mean(objective, [*names, *swarm.space.target_names])
    )


def objectives(swarm: Swarm) -> list[str]:
    """The objectives that a swarm has a use for."""
    outside = sum(t.domain is None for t in swarm.space.targets)
    inside = len(swarm.space.targets) - outside
    left_out = {"ood"} if not (outside and inside) else set()
    left_out |= set() if inside else {"one"}
    return [name for name in OBJECTIVES if name not in left_out]


def _weigh(space: SearchSpace, counted: set[str]) -> SearchSpace:
    """Equal weights for some targets; the others remain to be learnt from."""
    targets = [dataclasses.replace(t, weight=float(t.name in counted)) for t in space.targets]
    return SearchSpace(space.domains, targets, space.source)


def _at_home(swarm: Swarm) -> SearchSpace:
    """Only the targets with a domain of their own count, or all if there is none."""
    names = {t.name for t in swarm.space.targets if t.domain is not None}
    return _weigh(swarm.space, names or set(swarm.space.target_names))


def _mean(swarm: Swarm) -> tuple[SearchSpace, Objective]:
    return _at_home(swarm), Mean()


def _worst(swarm: Swarm) -> tuple[SearchSpace, Objective]:
    """The greatest excess over the best loss that any recorded mixture reached on a target.

    Each target thus asks for the mixture made for it alone, and the objective for the fairest
    compromise. Losses themselves do not compare: text of one kind is harder than of another.
    """
    space = _at_home(swarm)
    least = losses_by_mixture(swarm)[1].min(axis=0).tolist()
    reference = dict(zip(space.target_names, least, strict=True))
    return space, Regret(reference).bind(space.target_names)


def _outside(swarm: Swarm) -> tuple[SearchSpace, Objective]:
    names = {t.name for t in swarm.space.targets if t.domain is None}
    return _weigh(swarm.space, names), Mean()


def _one(swarm: Swarm) -> tuple[SearchSpace, Objective]:
    """The single target whose best mixture has the least of the target's own domain.

    The others are of little use as a search: in half of RegMix' swarm the best mixture for a
    target is its own domain alone, or nearly so, a corner that one guesses without any runs.
    """
    mixtures, losses = losses_by_mixture(swarm)
    shares = {
        target.name: mixtures[losses[:, v].argmin(), own]
        for v, (target, own) in enumerate(zip(swarm.space.targets, swarm.space.own, strict=True))
        if own is not None
    }
    return _weigh(swarm.space, {min(shares, key=shares.__getitem__)}), Mean()


OBJECTIVES: dict[str, Callable[[Swarm], tuple[SearchSpace, Objective]]] = {
    "mean": _mean,
    "one": _one,
    "worst": _worst,
    "ood": _outside,
}
"""Objectives by name: the mean over the targets with a domain of their own, a single target, the
worst target, and those outside of all domains."""
