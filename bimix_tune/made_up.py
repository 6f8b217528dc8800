"""Targets that no text stands behind: the values of a study and its constraints, as losses.

Laws need positive losses that fall with quality, so values are turned to minimisation, measured
in units of their range and shifted to begin at one; this does not move an optimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bimix_tune.constraints import constraints_of
from bimix_tune.curves import LossCurve
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import Target

OBJECTIVE = "objective"
"""Name of the only target of a study that reports no losses, just a value."""

CHECKPOINTS = 8
"""So many intermediate values of a trial are enough to tell how they fall."""

FEWEST_CONSTRAINED = 4
"""Constraints are predicted from so many trials on."""


def objective_targets(objectives: int) -> list[Target]:
    """One target for each objective of a study."""
    names = [OBJECTIVE] if objectives == 1 else [f"{OBJECTIVE} {i}" for i in range(objectives)]
    return [Target(name) for name in names]


def value_curves(
    trials: Sequence[FrozenTrial],
    mixtures: Sequence[Mixture | None],
    directions: Sequence[StudyDirection],
) -> list[LossCurve]:
    """Curves of `objective_targets` from the values of a study, and the intermediate ones.

    Args:
        trials: Trials that have ended.
        mixtures: What they were trained on; one without a mixture has no curve.
        directions: Of the study.
    """
    m = len(directions)
    names = [target.name for target in objective_targets(m)]
    signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions])
    found = []
    steps_count = _intermediate_count(trials, m)
    for t, mixture in zip(trials, mixtures, strict=True):
        points = _points(t, steps_count)
        if mixture is not None and points:
            steps, values = zip(*points, strict=True)
            found.append((t, mixture, np.array(steps) + 1.0, signs * np.array(values)))
    if found:
        end = max(steps[-1] for _, _, steps, _ in found)
        ends = np.array([y[-1] for _, _, steps, y in found if steps[-1] == end])
        least = np.min([y.min(axis=0) for *_, y in found], axis=0)
        unit = np.array([range_of(column) for column in ends.T])
        found = [(t, mixture, steps, 1.0 + (y - least) / unit) for t, mixture, steps, y in found]
    return [LossCurve(r, steps, y, names, run=str(t.number)) for t, r, steps, y in found]


def _intermediate_count(trials: Sequence[FrozenTrial], objectives: int) -> int:
    """How many intermediate values of a trial to use; 0 if they are not like the final one.

    A trial that ends with the value that it reported last is one curve of that objective. Then a
    value of a trial that a scheduler stopped early counts as one at its step, whatever its state.
    """
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    alike = objectives == 1 and all(
        t.last_step is not None and t.values == [t.intermediate_values[t.last_step]]
        for t in complete
    )
    return CHECKPOINTS if alike and complete else 0


def _points(trial: FrozenTrial, most: int) -> list[tuple[int, list[float]]]:
    """(step, values of all objectives) of a trial, in order, finite ones only."""
    if most:
        steps = sorted(s for s, v in trial.intermediate_values.items() if math.isfinite(v))
        chosen = steps[:: -max(1, math.ceil(len(steps) / most))][::-1]
        return [(step, [trial.intermediate_values[step]]) for step in chosen]
    if trial.state != TrialState.COMPLETE or not all(map(math.isfinite, trial.values)):
        return []
    return [(0, list(trial.values))]


def with_constraints(
    curves: Sequence[LossCurve], trials: Sequence[FrozenTrial]
) -> tuple[list[LossCurve], list[Target], Array]:
    """A target more for each constraint that enough trials have and that varies among them.

    Args:
        curves: Named by the numbers of their trials.
        trials: Trials that have ended.

    Returns:
        The curves with the C further targets, these targets, and the greatest loss allowed for
        each of them, (C,).
    """
    by_run = {str(t.number): values for t in trials if (values := constraints_of(t))}
    rows = [by_run.get(c.run, {}) for c in curves]
    names = sorted({name for row in rows for name in row})
    table = np.array([[row.get(name, np.nan) for name in names] for row in rows])
    table = table.reshape(len(rows), len(names))
    kept = [
        i
        for i, column in enumerate(table.T)
        if np.isfinite(column).sum() >= FEWEST_CONSTRAINED and np.nanmax(column) > np.nanmin(column)
    ]
    if not kept:
        return list(curves), [], np.array([])
    table = table[:, kept]
    targets = [Target(f"constraint {names[i]}", weight=0.0) for i in kept]
    least, unit = np.nanmin(table, axis=0), np.nanmax(table, axis=0) - np.nanmin(table, axis=0)
    scaled = 1.0 + (table - least) / unit
    longer = [_longer(c, row, targets) for c, row in zip(curves, scaled, strict=True)]
    return longer, targets, 1.0 - least / unit


def _longer(curve: LossCurve, row: Array, targets: Sequence[Target]) -> LossCurve:
    """A curve with further targets that were measured at its end only, (C,)."""
    added = np.full((len(curve.tokens), len(row)), np.nan)
    added[-1] = row
    names = (*curve.targets, *(t.name for t in targets))
    losses = np.hstack([curve.losses, added])
    return LossCurve(
        curve.mixture,
        curve.tokens,
        losses,
        names,
        curve.decayed,
        seed=curve.seed,
        unit=curve.unit,
        scale=curve.scale,
        run=curve.run,
    )


def range_of(values: Array) -> float:
    """Greatest less least, or one where they do not differ."""
    return (float(np.ptp(values)) if len(values) else 0.0) or 1.0
