"""What a study says about mixtures, in the form that laws are fitted to.

Trials with losses give their loss curves. Where a study has none, its objective values (and the
intermediate ones) become losses of made-up targets. Constraint values become further targets
(`bimix_tune.made_up`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bimix_tune.constraints import Limited
from bimix_tune.curves import LossCurve
from bimix_tune.goals import Goal, goal_matrix
from bimix_tune.laws import LawFit
from bimix_tune.laws.optimum.objectives import ObjectiveLike, as_objective
from bimix_tune.made_up import objective_targets, range_of, value_curves, with_constraints
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace
from bimix_tune.trials import PREFIX, curve_of, lessons, mixture_of

T = TypeVar("T")
Read = Callable[[FrozenTrial, SearchSpace], T]

MOST_CURVES = 256
"""A law that proposes is fitted to no more: time grows with the cube of the curves."""
STEP = 16
"""A law is fitted anew when there are a sixteenth more curves."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Curves of a study, and what to minimise under a law fitted to them.

    Args:
        curves: One per trial that teaches something.
        space: Domains; V targets, among them those of constraints, which have no weight.
        goals: Weights of the targets in each objective of the study, (M, V).
        limits: Greatest loss allowed for each target, (V,); infinite but for constraints.
        foreign: How many finished trials have all proportions, but these are no mixture and none
            is recorded beside them: what they were trained on is unknown.
        measured: Whether targets are those of the space, not made up from values.
    """

    curves: Sequence[LossCurve]
    space: SearchSpace
    goals: Array
    limits: Array
    foreign: int = 0
    measured: bool = True

    @property
    def tokens(self) -> float:
        """The most tokens seen, 1 without any curves."""
        return max((float(c.tokens[-1]) for c in self.curves), default=1.0)

    @property
    def constrained(self) -> bool:
        """Whether a target has a limit."""
        return bool(np.isfinite(self.limits).any())

    def weights(self, rng: np.random.Generator) -> Array:
        """Weights of the targets for one proposal, (V,).

        With several objectives, each in units of its range among the longest runs, a random
        weighting of them: the Dirichlet distribution with all parameters one.
        """
        if len(self.goals) == 1:
            return np.asarray(self.goals[0])
        shares = rng.dirichlet(np.ones(len(self.goals)))
        ranges = np.array([range_of(self._ends() @ np.nan_to_num(g)) for g in self.goals])
        return np.asarray((shares / ranges) @ self.goals)

    def aim(
        self, law: LawFit, rng: np.random.Generator, objective: ObjectiveLike = "mean"
    ) -> tuple[LawFit, ObjectiveLike]:
        """The law with the weights for one proposal, and what to minimise under it.

        Args:
            law: Fitted to these curves.
            rng: Source of randomness.
            objective: Of losses, in a study with one objective.
        """
        weights = self.weights(rng)
        if len(self.goals) > 1:
            law = dataclasses.replace(law, space=_weighted(law.space, weights))
        if len(self.goals) > 1 or not self.measured:
            objective = "mean"
        if not self.constrained:
            return law, objective
        own = law.space.target_names[: int(np.isinf(self.limits).sum())]
        base = as_objective(objective, own)
        scale = range_of(self._ends() @ (weights / weights.sum()))
        return law, Limited(self.limits, scale, base)

    def taught(self) -> Evidence:
        """The part that a law is fitted to, so that a proposal stays fast in a large study.

        All curves while they are few; then as many as the last step of a sixteenth; at most
        `MOST_CURVES` of them.
        """
        curves = evenly(self.curves[: _step(len(self.curves))], MOST_CURVES)
        return dataclasses.replace(self, curves=curves)

    def _ends(self) -> Array:
        """Last losses of the longest runs, (N, V); zero where not measured."""
        longest = [c for c in self.curves if c.tokens[-1] == self.tokens]
        rows = [_last(c, self.space.target_names) for c in longest]
        counted = np.array(rows)[:, self.goals.sum(axis=0) > 0]
        complete = np.array(rows)[np.isfinite(counted).all(axis=1)]
        return np.asarray(np.nan_to_num(complete))


def evenly(curves: Sequence[LossCurve], most: int) -> Sequence[LossCurve]:
    """Curves to fit a law to: all, or as many as allowed, evenly spread over their order.

    Not those with the least losses: they are the luckiest too, and a law of them is wrong about the
    optimum. In searches of 1,000 runs whose losses scatter by 0.5 %, laws of 256 runs promised
    0.001 nats too much at their optimum and missed 0.0005; with half of the runs chosen as the
    best ones, 0.019 and 0.004.
    """
    if len(curves) <= most:
        return curves
    return [curves[i] for i in np.linspace(0, len(curves) - 1, most).round().astype(int)]


def _last(curve: LossCurve, targets: Sequence[str]) -> list[float]:
    """Last losses of some targets, NaN where not measured."""
    final = curve.final()
    return [final.get(name, math.nan) for name in targets]


class Reader:
    """Reads trials of a space; what has ended is read once, as it does not change any more.

    Args:
        space: Domains and targets.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._mixtures: dict[Hashable, Mixture | None] = {}
        self._curves: dict[Hashable, LossCurve | None] = {}
        self._rows: dict[Hashable, Array | None] = {}

    def mixture(self, study: Study, trial: FrozenTrial) -> Mixture | None:
        """`bimix_tune.trials.mixture_of`."""
        return self._once(self._mixtures, mixture_of, study, trial)

    def row(self, study: Study, trial: FrozenTrial) -> Array | None:
        """The mixture in the order of the space, (K,)."""
        return self._once(self._rows, lambda t, _: self._row(self.mixture(study, t)), study, trial)

    def _row(self, mixture: Mixture | None) -> Array | None:
        return None if mixture is None else self._space.array(mixture)

    def curve(self, study: Study, trial: FrozenTrial) -> LossCurve | None:
        """`bimix_tune.trials.curve_of`."""
        return self._once(
            self._curves, lambda t, s: curve_of(t, s, self.mixture(study, t)), study, trial
        )

    def _once(self, known: dict[Hashable, T], read: Read[T], study: Study, trial: FrozenTrial) -> T:
        if not trial.state.is_finished():
            return read(trial, self._space)
        key = study.study_name, trial.number, trial.datetime_complete
        if key not in known:
            known[key] = read(trial, self._space)
        return known[key]


def _step(count: int) -> int:
    """The greatest step up to a count: 1, 2, ... 32, 34, ..., each a sixteenth further."""
    reached = 0
    while reached < count:
        further = reached + max(1, reached // STEP)
        if further > count:
            break
        reached = further
    return reached


def evidence_of(
    study: Study, space: SearchSpace, goals: Sequence[Goal] | None, reader: Reader | None = None
) -> Evidence:
    """What a study teaches about the mixtures of a space.

    Args:
        study: Any study, empty or not.
        space: Domains and targets.
        goals: The study's objectives in terms of the targets. None: the mean loss by the space's
            weights of a study with one objective, and one target each of one with as many
            objectives as there are targets.
        reader: Remembers trials between calls.

    Raises:
        ValueError: Losses are recorded, but the study maximises an objective, or what its
            objectives mean is not known.
    """
    reader = reader or Reader(space)
    trials = lessons(study, (TrialState.COMPLETE, TrialState.PRUNED))
    curves = [curve for t in trials if (curve := reader.curve(study, t)) is not None]
    if curves:
        _raise_if_maximised(study.directions)
        found = Evidence(curves, space, *_meaning(space, goals, len(study.directions)))
        if len(found.goals) > 1 or goals is not None:
            weighted = _weighted(space, found.goals.mean(axis=0))
            found = dataclasses.replace(found, space=weighted)
    else:
        mixtures = [reader.mixture(study, t) for t in trials]
        made, m = value_curves(trials, mixtures, study.directions), len(study.directions)
        only = SearchSpace(space.domains, objective_targets(m), space.source)
        found = Evidence(made, only, np.eye(m), np.full(m, np.inf), measured=False)
    asked = [t for t in trials if all(PREFIX + name in t.params for name in space.names)]
    foreign = sum(reader.mixture(study, t) is None for t in asked)
    return dataclasses.replace(_with_constraints(found, trials), foreign=foreign)


def _raise_if_maximised(directions: Sequence[StudyDirection]) -> None:
    if StudyDirection.MAXIMIZE in directions:
        raise ValueError(
            "losses are minimised, but the study maximises: create it with "
            "direction='minimize', or report no losses"
        )


def _meaning(space: SearchSpace, goals: Sequence[Goal] | None, count: int) -> tuple[Array, Array]:
    """Weights of the targets in each of ``count`` objectives (M, V), and no limits (V,)."""
    no_limits = np.full(len(space.targets), np.inf)
    if goals is not None:
        return goal_matrix(goals, space), no_limits
    if count == 1:
        return space.weights[None], no_limits
    if count != len(space.targets):
        raise ValueError(
            f"the study has {count} objectives and the space {len(space.targets)} targets: say "
            "which targets make each objective, as in BiMixSampler(space, objectives=[...])"
        )
    return np.eye(count), no_limits


def _weighted(space: SearchSpace, weights: Array) -> SearchSpace:
    """The space with other weights of its targets, (V,)."""
    targets = [
        dataclasses.replace(t, weight=float(w)) for t, w in zip(space.targets, weights, strict=True)
    ]
    return SearchSpace(space.domains, targets, space.source)


def _with_constraints(found: Evidence, trials: Sequence[FrozenTrial]) -> Evidence:
    """With a target more for each constraint."""
    curves, targets, limits = with_constraints(found.curves, trials)
    if not targets:
        return found
    space = SearchSpace(found.space.domains, [*found.space.targets, *targets], found.space.source)
    goals = np.hstack([found.goals, np.zeros((len(found.goals), len(targets)))])
    limits = np.concatenate([found.limits, limits])
    return dataclasses.replace(found, curves=curves, space=space, goals=goals, limits=limits)
