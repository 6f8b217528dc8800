"""Constraints of a study: what a trial measured, and a price on mixtures that break them.

Optuna calls a trial feasible if all its constraint values are <= 0. They are known only after a
run, as losses are, and are predicted as losses are: each is one more target of the law, of no
weight. Bounds on proportions are no such constraints; a `SearchSpace` keeps them exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from bimix_tune.laws.optimum.objectives import Mean, Objective
from bimix_tune.simplex import Array

MARGIN = 0.01
"""How far inside a limit proposals aim, in units of the range of the constraint's values: the law
is fitted, so half of all mixtures on its limit are beyond the true one."""
STEEP = 0.02
"""An excess of this part of the range costs as much as the objective varies among the runs."""

OLD_KEY, NEW_PREFIX = "constraints", "constraints:"
"""Where Optuna keeps the values among the system attributes: a list by ``constraints_func`` of a
sampler, one attribute each by ``Trial.set_constraint`` (Optuna 5)."""


def constraints_of(trial: FrozenTrial) -> dict[str, float]:
    """Constraint values of a trial by name; those of a list are named by position."""
    attributes: dict[str, Any] = trial.system_attrs
    listed = attributes.get(OLD_KEY) or ()
    values = {str(i): float(value) for i, value in enumerate(listed)}
    for key, value in attributes.items():
        if key.startswith(NEW_PREFIX):
            values[key.removeprefix(NEW_PREFIX)] = float(value)
    return {name: value for name, value in values.items() if np.isfinite(value)}


@dataclass(frozen=True, eq=False)
class Limited:
    """An objective, and a price on what exceeds a limit.

        objective(L) + scale * sum_v (max(L_v - limit_v + MARGIN, 0) / STEEP)^2

    It is an objective of `bimix_tune.laws.optimise`; smooth and convex where the other one is.

    Args:
        limits: Of the targets in the order of the law's, (V,); infinite for those without.
        scale: How much the mean varies among the runs, > 0.
        objective: What is minimised within the limits, bound to the targets without one, which
            come first.
    """

    limits: Array
    scale: float
    objective: Objective = field(default_factory=Mean)

    def bind(self, targets: object) -> Limited:
        """The same: the order is that of the law."""
        return self

    def value(self, losses: Array, weights: Array) -> Array:
        """(..., V) -> (...)."""
        own = self._own
        excess = self._excess(losses)
        value = self.objective.value(losses[..., :own], weights[:own])
        return np.asarray(value + self.scale * (excess**2).sum(-1))

    def gradient(self, losses: Array, weights: Array) -> Array:
        """(V,) -> (V,)."""
        own = self._own
        slopes = 2.0 * self.scale / STEEP * self._excess(losses)
        slopes[:own] += self.objective.gradient(losses[:own], weights[:own])
        return np.asarray(slopes)

    @property
    def _own(self) -> int:
        """Number of targets without a limit."""
        return int(np.isinf(self.limits).sum())

    def _excess(self, losses: Array) -> Array:
        return np.maximum(losses - self.limits + MARGIN, 0.0) / STEEP
