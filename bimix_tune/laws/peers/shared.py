"""What the published laws share: which checkpoints they see, the least share, the limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bimix_tune.laws.observations import Observations
from bimix_tune.simplex import Array

SMALLEST_SHARE = 5e-4
"""Tables round to three decimals, so a zero may be a share below this. Laws that are infinite
or infinitely steep at zero take smaller proportions for this one; they are flat below it."""

BELOW, ABOVE = 0.5, 1.0
"""How far predictions may leave the fitted values, in units of their range."""
LEAST_PART = 0.5
"""Of the least fitted value: no prediction is below, so that all have logarithms."""

LARGEST_EXPONENT = 50.0
"""Of exponential laws; against overflow only."""


def ends(seen: Observations, target: int) -> tuple[Array, Array]:
    """Proportions (n, K) and final log losses (n,) of the runs that have a target.

    Args:
        seen: R runs.
        target: Index of the target.
    """
    known = seen.weight[target] > 0
    return seen.r[known], seen.log_loss[target, known]


@dataclass(frozen=True, eq=False)
class Limits:
    """Bounds of V predicted losses or parts of losses. Not part of any method.

    Args:
        low: (V,).
        high: (V,).
    """

    low: Array
    high: Array

    @classmethod
    def around(cls, values: list[Array]) -> Limits:
        """Half a range below the fitted values of each target, all positive, and one above."""
        least, spread = np.array([(v.min(), np.ptp(v)) for v in values]).T
        low = np.maximum(least - BELOW * spread, LEAST_PART * least)
        return cls(low, least + (1.0 + ABOVE) * spread)

    def clip(self, values: Array) -> Array:
        """Values moved into the limits, (V, M) -> (V, M)."""
        return np.clip(values, self.low[:, None], self.high[:, None])

    def inside(self, values: Array) -> Array:
        """One where `clip` leaves a value and its slope alone, else zero, (V, M) -> (V, M)."""
        within = (values > self.low[:, None]) & (values < self.high[:, None])
        return within.astype(float)

    def to_dict(self) -> dict[str, Any]:
        return {"low": self.low.tolist(), "high": self.high.tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Limits:
        """Read the form of `to_dict`."""
        return cls(np.array(data["low"], dtype=float), np.array(data["high"], dtype=float))
