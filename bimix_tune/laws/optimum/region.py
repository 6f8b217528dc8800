"""A region of mixtures: bounds on proportions and on sums over groups of them, as geometry.

Arrays only, no names: `bimix_tune.laws.optimum.groups` makes regions and says why one would be
empty.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bimix_tune import simplex
from bimix_tune.laws.optimum.barrier import Sums
from bimix_tune.laws.optimum.linear_program import linear_program
from bimix_tune.simplex import Array

SLACK = 1e-9
"""Violations below it are rounding."""


@dataclass(frozen=True, eq=False)
class Region:
    """The mixtures within all bounds; the bounds of domains allow one.

    Args:
        low: Lower bounds, (K,).
        high: Upper bounds, (K,).
        members: Ones where a domain belongs to a group, (G, K).
        least: Lower bounds on the sums of the groups, (G,).
        most: Upper bounds on the sums of the groups, (G,).
    """

    low: Array
    high: Array
    members: Array
    least: Array
    most: Array

    @property
    def sums(self) -> tuple[Array, Array]:
        """Rows (2 G, K) and limits (2 G,) of the groups, ``rows @ r <= limits``."""
        limits = np.concatenate([self.most, -self.least])
        return np.concatenate([self.members, -self.members]), limits

    def violation(self, r: Array) -> float:
        """How far a mixture (K,) is from satisfying the bound that it breaks most."""
        sums = self.members @ r
        over = np.concatenate([self.low - r, r - self.high, self.least - sums, sums - self.most])
        return max(float(over.max()), abs(float(r.sum()) - 1.0))

    def inside(self, wishes: Array) -> Array:
        """Mixtures of the region, each near a wish, (M, K) -> (M, K).

        The nearest in Kullback-Leibler sense if there are no groups. With groups, one is moved
        from there in a straight line towards the middle, as far as necessary; within the plane
        where bounds that leave no choice hold.
        """
        r = simplex.scale_into(wishes, self.low, self.high)
        if not len(self.members):
            return r
        rows, values = self._equations
        r = r - (r @ rows.T - values) @ np.linalg.pinv(rows).T
        move = r - self.middle
        sides, limits = self._sides
        room, speed = np.maximum(limits - sides @ self.middle, 0.0), move @ sides.T
        far = speed > room + 1e-15
        reach = np.where(far, room / np.where(far, speed, 1.0), 1.0)
        r = self.middle + reach.min(1, keepdims=True, initial=1.0) * move
        return np.asarray(np.clip(r, self.low, self.high))  # rounding

    def extremes(self) -> Array:
        """For each domain a mixture with as much of it as is allowed, (K, K)."""
        if not len(self.members):
            return self.inside(np.eye(len(self.low)))
        return self.inside(np.array([self.lowest(-row) for row in np.eye(len(self.low))]))

    def lowest(self, slope: Array) -> Array:
        """``argmin_r slope . r`` over the region, (K,) -> (K,)."""
        sides, limits = self.sums
        ones = np.ones((1, len(slope)))
        best = linear_program(slope, sides, limits, ones, np.ones(1), self.low, self.high)
        return self.middle if best is None else best

    @functools.cached_property
    def middle(self) -> Array:
        """A mixture far from all bounds that leave a choice, (K,)."""
        return self._deepest(*self._equations, *self._sides)[0]

    @functools.cached_property
    def free(self) -> NDArray[np.bool_]:
        """Domains whose proportions may vary, (K,)."""
        rows, _ = self._equations
        return np.asarray(self._wide[0] & ~rows[(rows != 0).sum(1) == 1].any(0))

    @functools.cached_property
    def group_sides(self) -> tuple[Array, Array]:
        """Rows (H, K) and limits (H,) of the bounds of groups that matter, ``rows @ r <= limits``.

        Neither do the bounds of domains imply them, nor do they hold as equations.
        """
        loose = ~self._tight[2 * self._wide[0].sum() :]
        rows, limits = self._group_bounds
        return rows[loose], limits[loose]

    @functools.cached_property
    def ties(self) -> tuple[Array, Array]:
        """Rows (E, K) and values (E,) of the sum, and of groups whose sum has no choice."""
        rows, values = self._equations
        several = (rows != 0).sum(1) != 1
        return rows[several], values[several]

    @property
    def strict(self) -> Sums | None:
        """The bounds of groups for `interior`, or None if it cannot stay within all of them."""
        if not np.array_equal(self.free, self._wide[0]):
            return None
        return Sums(*self.group_sides, self.ties[0], self.middle)

    @functools.cached_property
    def _wide(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Domains (K,) and groups (G,) whose own bounds leave a choice."""
        return self.high - self.low > SLACK, self.most - self.least > SLACK

    @functools.cached_property
    def _group_bounds(self) -> tuple[Array, Array]:
        """Rows and limits of the bounds of groups that those of domains do not imply."""
        inside, outside = self.members, 1.0 - self.members
        most = np.minimum(inside @ self.high, 1.0 - outside @ self.low)
        least = np.maximum(inside @ self.low, 1.0 - outside @ self.high)
        upper = self._wide[1] & (self.most < most - SLACK)
        lower = self._wide[1] & (self.least > least + SLACK)
        limits = np.concatenate([self.most[upper], -self.least[lower]])
        return np.concatenate([inside[upper], -inside[lower]]), limits

    @functools.cached_property
    def _all_sides(self) -> tuple[Array, Array]:
        """Rows and limits of the bounds of domains, upper and lower, and then of groups."""
        wide = self._wide[0]
        box, (rows, limits) = np.eye(len(self.low))[wide], self._group_bounds
        values = np.concatenate([self.high[wide], -self.low[wide], limits])
        return np.concatenate([box, -box, rows]), values

    @functools.cached_property
    def _stated(self) -> tuple[Array, Array]:
        """Rows and values of the sum, and of bounds that are equal."""
        k, (wide, loose) = len(self.low), self._wide
        rows = np.concatenate([np.ones((1, k)), np.eye(k)[~wide], self.members[~loose]])
        return rows, np.concatenate([[1.0], self.low[~wide], self.least[~loose]])

    @functools.cached_property
    def _tight(self) -> NDArray[np.bool_]:
        """Which of all sides are equations, as nothing lies strictly within them all, (H,)."""
        (sides, limits), (rows, values) = self._all_sides, self._stated
        h, k = sides.shape
        if self._deepest(rows, values, sides, limits)[1] > SLACK:
            return np.zeros(h, bool)
        best = linear_program(
            np.repeat([0.0, -1.0], [k, h]),  # as many as can be are one millionth away
            np.column_stack([sides, np.eye(h)]),
            limits,
            np.column_stack([rows, np.zeros((len(rows), h))]),
            values,
            np.repeat([-np.inf, 0.0], [k, h]),
            np.repeat([np.inf, 1e-6], [k, h]),
        )
        return np.zeros(h, bool) if best is None else np.asarray(best[k:] < SLACK)

    @property
    def _sides(self) -> tuple[Array, Array]:
        rows, limits = self._all_sides
        return rows[~self._tight], limits[~self._tight]

    @functools.cached_property
    def _equations(self) -> tuple[Array, Array]:
        (rows, values), (sides, limits) = self._stated, self._all_sides
        tight = self._tight
        return np.concatenate([rows, sides[tight]]), np.concatenate([values, limits[tight]])

    def _deepest(
        self, rows: Array, values: Array, sides: Array, limits: Array
    ) -> tuple[Array, float]:
        """The mixture farthest from the sides, (K,), and how far it is."""
        k = len(self.low)
        best = linear_program(
            -np.eye(k + 1)[k],
            np.column_stack([sides, np.ones(len(sides))]),
            limits,
            np.column_stack([rows, np.zeros(len(rows))]),
            values,
            np.append(np.full(k, -np.inf), 0.0),
            np.append(np.full(k, np.inf), 1.0),
        )
        if best is None:  # rounding has made the plane of the equations miss the region
            return self.elastic()[0], 0.0
        return best[:k], float(best[k])

    def elastic(self) -> tuple[Array, Array]:
        """The mixture within the bounds of domains that breaks groups least, and by how much.

        Returns:
            (K,), and for each group the distance to its bounds, (G,).
        """
        g, k = self.members.shape
        sides, limits = self.sums
        best = linear_program(
            np.repeat([0.0, 1.0], [k, g]),
            np.column_stack([sides, -np.tile(np.eye(g), (2, 1))]),
            limits,
            np.repeat([1.0, 0.0], [k, g])[None],
            np.ones(1),
            np.append(self.low, np.zeros(g)),
            np.append(self.high, np.full(g, np.inf)),
        )
        wish = self.high if best is None else best[:k]
        r = simplex.settle(np.clip(wish, self.low, self.high), self.low, self.high)
        sums = self.members @ r
        return r, np.maximum(np.maximum(sums - self.most, self.least - sums), 0.0)
