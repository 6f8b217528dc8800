"""The coefficients of one target's additive scaling law, by robust penalised least squares.

See `bimix_tune.laws.peers.scaling_additive` for the law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from bimix_tune.laws.observations import Observations
from bimix_tune.laws.peers.shared import SMALLEST_SHARE
from bimix_tune.simplex import Array

HUBER = 0.01
"""Width of the Huber loss in log loss, about the noise of a run. Ours."""
RIDGE = 1e-6
"""Weight of the squared distance of the logarithms from those of `_centre`, in units of squared
log loss: a factor of e counts as much as a residual of 0.001, below the noise of a run. It
decides only what runs do not: there are 2 K + 3 coefficients for each target. Ours."""
FLOORS = (0.3, 0.7)
"""Where E starts, as a share of the least loss; the ridge pulls to the last."""
GAMMAS = (0.1, 0.5)
"""Where gamma starts; the ridge pulls to the last."""
BETA = 0.4
"""Where beta starts."""
GROWTH = 0.3
"""Where B / D^beta starts at the most tokens, as a share of the loss above E."""
EVALUATIONS = 50
"""At most, from each start: with few runs the last digits of the minimum are noise, and 100
predict no better."""
FACTOR_ROOM, EXPONENT_ROOM = 10.0, 4.0
"""How far logarithms of factors and of exponents may go from their centre."""


class Terms(NamedTuple):
    """Coefficients of one target, or of several along leading axes.

    Args:
        floor: E, (...).
        worth: C, (..., K).
        gamma: (..., K).
        growth: B for tokens over the reference, (...); zero if all runs have one token count,
            where it cannot be told from E.
        beta: (...).
    """

    floor: Array
    worth: Array
    gamma: Array
    growth: Array
    beta: Array

    @classmethod
    def stack(cls, targets: Sequence[Terms]) -> Terms:
        """Coefficients of several targets."""
        return cls(*(np.stack(parts) for parts in zip(*targets, strict=True)))

    def returns(self, h: Array) -> Array:
        """``C_j h_j^gamma_j``, (M, K) -> (..., M, K)."""
        power = np.exp(self.gamma[..., None, :] * np.log(np.maximum(h, SMALLEST_SHARE)))
        return np.asarray(self.worth[..., None, :] * power)

    def decline(self, t: Array) -> Array:
        """``B t^-beta``, (M,) -> (..., M)."""
        return np.asarray(self.growth[..., None] * np.exp(-self.beta[..., None] * np.log(t)))


def estimate(seen: Observations, target: int) -> Terms:
    """The coefficients of one target: the best of several starts."""
    points = seen.checkpoints
    at = np.isfinite(points.log_loss[target])
    r, y = seen.r[points.run[at]], points.log_loss[target, at]
    least = float(np.exp(y.min()))
    problem = _Problem(
        np.log(np.maximum(r, SMALLEST_SHARE)),
        np.log(points.tokens[at] / seen.reference),
        y,
        _centre(r, least, FLOORS[-1], GAMMAS[-1]),
    )
    starts = [_centre(r, least, floor, gamma) for floor in FLOORS for gamma in GAMMAS]
    best = min((problem.solve(start) for start in starts), key=lambda found: found[0])[1]
    return _unpack(best, r.shape[1], problem.growing)


def _centre(r: Array, least: float, floor: float, gamma: float) -> Array:
    """Logarithms of coefficients: all domains alike, at the level of the data, (2 K + 3,).

    Args:
        r: Proportions of the checkpoints, (N, K).
        least: The least loss.
        floor: E as a share of it.
        gamma: Exponent of all domains.
    """
    k = r.shape[1]
    above = (1.0 - floor) * least
    sums = (np.maximum(r, SMALLEST_SHARE) ** gamma).sum(axis=1).mean()
    worth = np.full(k, -np.log((1.0 - GROWTH) * above * sums))
    first, last = [np.log(floor * least)], [np.log(GROWTH * above), np.log(BETA)]
    return np.concatenate([first, worth, np.full(k, np.log(gamma)), last])


def _unpack(p: Array, k: int, growing: bool) -> Terms:
    """Coefficients of one target from their logarithms, (2 K + 3,)."""
    q = np.exp(p)
    return Terms(q[0], q[1 : k + 1], q[k + 1 : 2 * k + 1], q[-2] * growing, q[-1])


@dataclass(frozen=True, eq=False)
class _Problem:
    """One target's N checkpoints.

    Args:
        log_r: Logarithms of proportions, (N, K).
        log_t: Of tokens over the reference, (N,).
        y: Log losses, (N,).
        centre: Logarithms of coefficients that the ridge pulls to, (2 K + 3,).
    """

    log_r: Array
    log_t: Array
    y: Array
    centre: Array

    @property
    def growing(self) -> bool:
        """Whether there is more than one token count."""
        return bool(np.ptp(self.log_t) > 0)

    def solve(self, start: Array) -> tuple[float, Array]:
        """Least cost and the logarithms of the coefficients there, from one start."""
        k = self.log_r.shape[1]
        room = np.full(len(start), FACTOR_ROOM)
        room[k + 1 : 2 * k + 1] = room[-1] = EXPONENT_ROOM
        found = least_squares(
            self.residual,
            start,
            self.jacobian,
            bounds=(self.centre - room, self.centre + room),
            loss="huber",  # the ridge's residuals are below its width throughout
            f_scale=HUBER,
            max_nfev=EVALUATIONS,
        )
        return float(found.cost), np.asarray(found.x)

    def residual(self, p: Array) -> Array:
        """Of the log losses, then the ridge's, (N + 2 K + 3,)."""
        floor, returns, decline, _ = self._parts(p)
        off = np.log(floor + 1.0 / returns.sum(axis=1) + decline) - self.y
        return np.concatenate([off, np.sqrt(RIDGE) * (p - self.centre)])

    def jacobian(self, p: Array) -> Array:
        """Derivatives of `residual`, (N + 2 K + 3, 2 K + 3)."""
        floor, returns, decline, (gamma, beta) = self._parts(p)
        mixed = 1.0 / returns.sum(axis=1)
        by_worth = -(mixed[:, None] ** 2) * returns
        by_loss = [
            np.full_like(mixed, floor)[:, None],
            by_worth,
            by_worth * gamma * self.log_r,
            decline[:, None],
            (-beta * self.log_t * decline)[:, None],
        ]
        factor = 1.0 / (floor + mixed + decline)
        top = factor[:, None] * np.concatenate(by_loss, axis=1)
        return np.concatenate([top, np.sqrt(RIDGE) * np.eye(len(p))])

    def _parts(self, p: Array) -> tuple[float, Array, Array, tuple[Array, float]]:
        """E, ``C h^gamma`` (N, K), ``B t^-beta`` (N,), and the exponents."""
        terms = _unpack(p, self.log_r.shape[1], self.growing)
        returns = terms.worth * np.exp(terms.gamma * self.log_r)
        decline = terms.growth * np.exp(-terms.beta * self.log_t)
        return float(terms.floor), returns, decline, (terms.gamma, float(terms.beta))
