"""How a law does on runs it has not seen: leave one mixture out.

Each fold drops all runs of one mixture (repeats of it would give the answer away) and refits
with a few Levenberg-Marquardt steps from the full fit, noise and pooled priors kept. All
folds and targets are solved as one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from bimix_tune.laws import least_squares
from bimix_tune.laws.base import Law
from bimix_tune.laws.fitting import Estimate, model
from bimix_tune.laws.observations import Observations
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

MOST_FOLDS = 64
REFIT_STEPS = 6
BATCH_FLOATS = 4_000_000
"""Size of the derivatives of one batch of refits (32 MB)."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Losses at the end of runs, predicted by a fit without them.

    Args:
        runs: Names, N.
        predicted: (N, V).
        observed: (N, V); NaN where not measured.
        weights: Weights of the targets in the objective, (V,).
    """

    runs: tuple[str, ...]
    predicted: Array
    observed: Array
    weights: Array

    @property
    def relative_error(self) -> Array:
        """Mean of |predicted / observed - 1| by target, (V,); NaN if never measured there."""
        error = np.abs(self.predicted / self.observed - 1.0)
        count = np.isfinite(error).sum(axis=0)
        return np.asarray(
            np.where(count > 0, np.nansum(error, axis=0) / np.maximum(count, 1), np.nan)
        )

    @property
    def objective_predicted(self) -> Array:
        """(N,)."""
        return np.asarray(self.predicted @ self.weights)

    @property
    def objective_observed(self) -> Array:
        """(N,); NaN where a target that counts was not measured."""
        return np.asarray(np.where(self.weights > 0, self.observed, 0.0) @ self.weights)

    @property
    def spearman(self) -> float:
        """Rank correlation of the objective; NaN with fewer than three complete runs."""
        p, o = self._pairs()
        if len(p) < 3 or np.ptp(p) == 0 or np.ptp(o) == 0:
            return float("nan")
        return float(np.corrcoef(rankdata(p), rankdata(o))[0, 1])

    @property
    def r2(self) -> float:
        """Share of the objective's variance explained; NaN with fewer than three runs."""
        p, o = self._pairs()
        if len(p) < 3 or np.ptp(o) == 0:
            return float("nan")
        return float(1.0 - ((p - o) ** 2).sum() / ((o - o.mean()) ** 2).sum())

    def _pairs(self) -> tuple[Array, Array]:
        seen = np.isfinite(self.objective_observed)
        return self.objective_predicted[seen], self.objective_observed[seen]

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON."""
        observed = [[v if np.isfinite(v) else None for v in row] for row in self.observed.tolist()]
        return {
            "runs": list(self.runs),
            "predicted": self.predicted.tolist(),
            "observed": observed,
            "weights": self.weights.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HeldOut:
        """Read the form of `to_dict`."""
        shape = (len(data["runs"]), len(data["weights"]))
        predicted, observed, weights = (
            np.array(data[k], dtype=float) for k in ("predicted", "observed", "weights")
        )
        return cls(tuple(data["runs"]), predicted.reshape(shape), observed.reshape(shape), weights)


def leave_out(law: Law, space: SearchSpace, seen: Observations, full: Estimate) -> Array:
    """Log losses at the last checkpoint of each run, fitted without its mixture, (V, R)."""
    predict = model(law, space, seen)
    fold = seen.group % MOST_FOLDS
    count = int(fold.max()) + 1
    size = full.theta.shape[1] * full.weight.size
    batch = max(1, BATCH_FLOATS // size)
    out = np.empty((len(full.theta), len(fold)))
    for first in range(0, count, batch):
        members = np.arange(first, min(first + batch, count))
        kept = fold[seen.run] != members[:, None]
        start = np.broadcast_to(full.theta, (len(members), *full.theta.shape))
        solution = least_squares.solve(
            predict,
            seen.log_loss,
            full.weight * kept[:, None, :],
            full.prior.mean,
            full.precision,
            start,
            full.prior.squares,
            REFIT_STEPS,
            tolerance=1e-3,
        )
        f, _ = predict(solution.theta)
        for at, number in enumerate(members):
            runs = np.flatnonzero(fold == number)
            out[:, runs] = f[at][:, seen.last[runs]]
    return out
