"""The objectives of a study with several: each one target or a weighted mean of some.

Under a mixing law losses are convex in the proportions, and so is every weighted mean of them.
Then each point of the Pareto front is the optimum of some weighted sum of the objectives: a
sampler that draws the weights anew for each trial fills the whole front.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bimix_tune.errors import CurveError, SpaceError, did_you_mean
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

Goal = str | Mapping[str, float]
"""One objective: a target, or weights of some (any positive scale)."""


def objective_values(losses: Mapping[str, float], goals: Sequence[Goal]) -> tuple[float, ...]:
    """What an objective function returns to a study with several objectives.

    Args:
        losses: Loss by target.
        goals: One target, or weights of some, for each objective of the study, M.

    Returns:
        The weighted mean loss of each, (M,). NaN where a loss is; Optuna then fails the trial.

    Raises:
        CurveError: A target has no loss.
        SpaceError: A weight is negative or not finite, or all weights of an objective are zero.

    >>> objective_values({"web": 3.0, "code": 1.0, "law": 2.0}, ["code", {"web": 1, "law": 1}])
    (1.0, 2.5)
    """
    values = []
    for goal in goals:
        weights = _weights(goal)
        missing = [name for name in weights if name not in losses]
        if missing:
            raise CurveError(
                f"no loss given for target {missing[0]!r}" + did_you_mean(missing[0], losses)
            )
        total = sum(weights.values())
        values.append(float(sum(w * losses[name] for name, w in weights.items()) / total))
    return tuple(values)


def goal_matrix(goals: Sequence[Goal], space: SearchSpace) -> Array:
    """Weights of the targets in each objective, (M, V), rows summing to one.

    Raises:
        SpaceError: A target is unknown, a weight negative or not finite, or all of them zero.
    """
    rows = np.zeros((len(goals), len(space.targets)))
    for row, goal in zip(rows, goals, strict=True):
        for name, weight in _weights(goal).items():
            if name not in space.target_names:
                raise SpaceError(
                    f"an objective names an unknown target {name!r}"
                    + did_you_mean(name, space.target_names)
                )
            row[space.target_names.index(name)] = weight
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))


def _weights(goal: Goal) -> dict[str, float]:
    """The targets that count in an objective, and how much."""
    weights = {goal: 1.0} if isinstance(goal, str) else dict(goal)
    if not all(math.isfinite(w) and w >= 0 for w in weights.values()) or not any(weights.values()):
        raise SpaceError(f"an objective needs weights >= 0, not all zero, but got {weights}")
    return {name: float(w) for name, w in weights.items() if w > 0}
