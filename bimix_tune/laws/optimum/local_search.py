"""A local optimum of a landscape within a region, and whether it is one.

A greatest loss has a kink where two losses are equal, which is where its least value lies. So it
is solved in epigraph form,

    min_{r, u} u + kl * KL(r || prior)   with   loss_v(r) - level_v <= u,

and everything else as it is, by sequential quadratic programming with exact derivatives. The
coordinates are the roots of the proportions: the slopes of r^rho and of r log r are infinite at
r = 0 and finite in the root (for rho >= 1/2), so that steps need not be short. On laws of 50
domains with rho in 0.3 to 1 this takes a tenth of the iterations that the proportions themselves
do, which moreover may end in a false place; where all rho are one, the two are alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from bimix_tune.laws.optimum.landscape import Landscape
from bimix_tune.laws.optimum.linear_program import linear_program
from bimix_tune.laws.optimum.region import Region
from bimix_tune.simplex import Array

COARSE, FINE = 1e-4, 1e-10
"""SLSQP stops where a step changes the objective by less, in units of its spread."""

FLOOR = 1e-3
"""Roots of proportions at the start at least: at zero a root has no slope, and no step leaves."""

STEPS = np.append(10.0 ** -np.arange(0.0, 6.5, 0.5), 0.0)
"""Parts of the way to the linearised optimum that are tried in looking for something better."""


def descend(
    land: Landscape,
    region: Region,
    start: Array,
    unit: float,
    precision: float,
    iterations: int,
) -> tuple[Array, str]:
    """A local optimum by SLSQP (Kraft 1988), and what the solver says of it.

    Args:
        land: What to descend.
        region: Where.
        start: A mixture of the region, (K,).
        unit: How far the objective varies over the region: the scale of its numbers.
        precision: Where to stop, in units.
        iterations: Most iterations.

    Returns:
        A mixture of the region, (K,), not worse than the start; the solver's message.
    """
    form = _Form(land, region, start, unit)
    options: Any = {"ftol": precision, "maxiter": iterations}
    done = minimize(
        form.value,
        form.start(),
        jac=form.slope,
        method="SLSQP",
        bounds=form.bounds(),
        constraints=form.constraints(),
        options=options,
    )
    found = region.inside(form.mixture(np.asarray(done.x, dtype=float))[None])
    both = np.concatenate([start[None], found])
    return np.asarray(both[land.total(both).argmin()]), str(done.message)


def better(land: Landscape, region: Region, r: Array) -> tuple[Array, float]:
    """Something better near a mixture that may be a local optimum.

    The landscape is replaced by its tangents at r (each loss by its own, where the greatest
    counts); on the way from r to the optimum of this linear program, steps of many lengths are
    tried. At a local optimum none of them is better.

    Args:
        land: What to descend.
        region: Where.
        r: A mixture of the region, (K,).

    Returns:
        The best of the mixtures tried, r among them, (K,), and by how much it is better.
    """
    towards = region.inside(np.maximum(_tangent_optimum(land, region, r), 0.0)[None])
    line = r + STEPS[:, None] * (towards - r)
    total = land.total(line)
    best = int(total.argmin())
    return np.asarray(line[best]), float(total[-1] - total[best])


def _tangent_optimum(land: Landscape, region: Region, r: Array) -> Array:
    levels = land.levels
    if levels is None:
        return region.lowest(land.gradient(r))
    counted = land.weights > 0
    slopes = land.slopes(r)[counted]
    height = (land.losses(r[None])[0] - levels)[counted]
    sides, limits = region.sums
    tangents = np.column_stack([slopes, -np.ones(len(slopes))])
    best = linear_program(
        np.append(land.pull_slope(r), 1.0),
        np.concatenate([np.column_stack([sides, np.zeros(len(sides))]), tangents]),
        np.concatenate([limits, slopes @ r - height]),
        np.append(np.ones(len(r)), 0.0)[None],
        np.ones(1),
        np.append(region.low, -np.inf),
        np.append(region.high, np.inf),
    )
    return r if best is None else best[:-1]


class _Form:
    """The problem as SLSQP sees it, with N coordinates y.

    They are the roots of the F proportions with room, and in the epigraph form u. Objective and u
    are in units of ``unit``.
    """

    def __init__(self, land: Landscape, region: Region, start: Array, unit: float) -> None:
        self._land, self._region, self._unit = land, region, unit
        self._free = np.flatnonzero(region.free)
        self._base = start
        self._levels = land.levels
        self._counted = land.weights > 0

    def mixture(self, y: Array) -> Array:
        """(N,) -> (K,)."""
        r = self._base.copy()
        r[self._free] = y[: len(self._free)] ** 2
        return np.clip(r, self._region.low, self._region.high)

    def start(self) -> Array:
        least, most = self._bounds()
        roots = np.clip(np.sqrt(self._base[self._free]), np.maximum(least, FLOOR), most)
        if self._levels is None:
            return roots
        return np.append(roots, self._heights(self._base).max())

    def bounds(self) -> list[tuple[float, float]]:
        """Infinite for u."""
        least, most = self._bounds()
        pairs = list(zip(least.tolist(), most.tolist(), strict=True))
        return pairs if self._levels is None else [*pairs, (-np.inf, np.inf)]

    def _bounds(self) -> tuple[Array, Array]:
        region = self._region
        return np.sqrt(region.low[self._free]), np.sqrt(region.high[self._free])

    def value(self, y: Array) -> float:
        r = self.mixture(y)
        if self._levels is None:
            return float(self._land.total(r[None])[0]) / self._unit
        return float(y[-1] + self._land.pull(r) / self._unit)

    def slope(self, y: Array) -> Array:
        r = self.mixture(y)
        if self._levels is None:
            return self._by_root(self._land.gradient(r), y) / self._unit
        return np.append(self._by_root(self._land.pull_slope(r), y) / self._unit, 1.0)

    def constraints(self) -> list[Any]:
        """The sum, the groups, and the epigraph's."""
        rows, values = _independent(*self._region.ties, self._free)
        found = [self._linear("eq", rows, values)]
        sides, limits = self._region.group_sides
        if len(limits):
            found.append(self._linear("ineq", -sides, -limits))
        if self._levels is not None:
            found.append({"type": "ineq", "fun": self._room, "jac": self._room_slope})
        return found

    def _linear(self, kind: str, rows: Array, values: Array) -> dict[str, Any]:
        """``rows @ r - values``, zero or not negative."""
        level = np.zeros((len(rows), 0 if self._levels is None else 1))
        return {
            "type": kind,
            "fun": lambda y: rows @ self.mixture(y) - values,
            "jac": lambda y: np.column_stack([self._by_root(rows, y), level]),
        }

    def _by_root(self, by_proportion: Array, y: Array) -> Array:
        """Derivatives by roots from those by proportions, (..., K) -> (..., F)."""
        return by_proportion[..., self._free] * (2.0 * y[: len(self._free)])

    def _heights(self, r: Array) -> Array:
        """Losses that count above their levels, in units."""
        heights = self._land.losses(r[None])[0] - self._levels
        return np.asarray(heights[self._counted] / self._unit)

    def _room(self, y: Array) -> Array:
        return np.asarray(y[-1] - self._heights(self.mixture(y)))

    def _room_slope(self, y: Array) -> Array:
        slopes = self._by_root(self._land.slopes(self.mixture(y))[self._counted], y)
        return np.column_stack([-slopes / self._unit, np.ones(len(slopes))])


def _independent(rows: Array, values: Array, free: NDArray[np.int64]) -> tuple[Array, Array]:
    """The equations of which none follows from the others, as SLSQP demands."""
    kept: list[int] = []
    for i in range(len(rows)):
        if np.linalg.matrix_rank(rows[[*kept, i]][:, free]) > len(kept):
            kept.append(i)
    return rows[kept], values[kept]
