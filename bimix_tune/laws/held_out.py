"""How a law does on runs it has not seen: predictions of mixtures left out, and scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from bimix_tune.simplex import Array


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

    @classmethod
    def nothing(cls, weights: Array) -> HeldOut:
        """Of no run."""
        none = np.zeros((0, len(weights)))
        return cls((), none, none, weights)

    @property
    def relative_error(self) -> Array:
        """Mean of |predicted / observed - 1| by target, (V,); NaN if never measured there."""
        error = np.abs(self.predicted / self.observed - 1.0)
        count = np.isfinite(error).sum(axis=0)
        return np.asarray(
            np.where(count > 0, np.nansum(error, axis=0) / np.maximum(count, 1), np.nan)
        )

    @property
    def mean_error(self) -> float:
        """`relative_error`, mean over the measured targets by weight; NaN without any."""
        error = self.relative_error
        weights = np.where(np.isfinite(error), self.weights, 0.0)
        total = weights.sum()
        return float(np.nansum(weights * error) / total) if total > 0 else float("nan")

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
