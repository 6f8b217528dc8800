"""``min_x slope . x`` under linear constraints, and the errors of the solver in one place."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from bimix_tune.simplex import Array


def linear_program(
    slope: Array,
    sides: Array,
    limits: Array,
    rows: Array,
    values: Array,
    low: Array,
    high: Array,
) -> Array | None:
    """The x with the least ``slope . x``, or None if there is none.

    Args:
        slope: (N,).
        sides: Of ``sides @ x <= limits``, (H, N).
        limits: (H,).
        rows: Of ``rows @ x = values``, (E, N).
        values: (E,).
        low: Lower bounds, (N,), may be infinite.
        high: Upper bounds, (N,), may be infinite.
    """
    size = float(np.abs(slope).max()) or 1.0  # the solver's tolerance is absolute
    bounds = list(zip(low.tolist(), high.tolist(), strict=True))
    done = linprog(
        slope / size, A_ub=sides, b_ub=limits, A_eq=rows, b_eq=values, bounds=bounds, method="highs"
    )
    return None if done.x is None else np.asarray(done.x, dtype=float)
