"""An objective that is a sum of powers, ``sum_v c_v x_v(r)^-alpha_v``, with its derivatives.

The effective proportion ``x_v = eps_v + sum_j A_vj r_j^rho_v`` is concave in r for rho in (0, 1],
and ``x^-alpha`` is convex and decreasing, so that the objective is convex.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bimix_tune.simplex import Array

TINY = 1e-12
"""With rho < 1 the slope at r_j = 0 is infinite; it is given as the one at this proportion."""

CHUNK = 4_000_000
"""Numbers held at once while powers are summed over domains (32 MB)."""


class Terms(NamedTuple):
    """The summands of the objective at one token count.

    A target is one summand or several; below, V counts summands.

    Args:
        c: Factors > 0, (V,); of any sign where the carriers are zero, which adds a constant.
        alpha: Exponents > 0, (V,).
        eps: Floors > 0, (V,).
        carriers: A >= 0, (V, K).
        power: Exponents rho in (0, 1] of the proportions, (V,); below one returns diminish.
    """

    c: Array
    alpha: Array
    eps: Array
    carriers: Array
    power: Array

    def parts(self, r: Array) -> Array:
        """The summands, (M, K) -> (..., M, V), for terms of shape (..., V)."""
        x = self.eps[..., None, :] + np.swapaxes(self.carried(r), -1, -2)
        return np.asarray(self.c[..., None, :] * x ** -self.alpha[..., None, :])

    def carried(self, r: Array) -> Array:
        """``sum_j A_vj r_j^rho_v``, (M, K) -> (..., V, M)."""
        carried = self.carriers @ r.T
        bent = np.argwhere(np.broadcast_to(self.power, carried.shape[:-1]) < 1.0)
        rows = max(1, CHUNK // max(r.size, 1))
        logs = _log(r)
        for start in range(0, len(bent), rows):
            at = tuple(bent[start : start + rows].T)
            raised = np.exp(self.power[at][:, None, None] * logs)
            carried[at] = (raised @ self.carriers[at][:, :, None])[..., 0]
        return np.asarray(carried)

    def slopes(self, r: Array) -> Array:
        """Derivatives of the summands by the proportions, each taken as free.

        Args:
            r: One mixture, (K,).

        Returns:
            (V, K), for terms of shape (V,).
        """
        x = self.eps + self.carried(r[None])[:, 0]
        outer = -self.c * self.alpha * x ** (-self.alpha - 1.0)
        bend = self.power[:, None] - 1.0
        inner = self.power[:, None] * np.exp(bend * np.log(np.maximum(r, TINY)))
        return np.asarray(outer[:, None] * self.carriers * inner)

    def gradient(self, r: Array) -> Array:
        """Derivatives of the sum by the proportions, each taken as free, (K,) -> (K,)."""
        return np.asarray(self.slopes(r).sum(0))


def _log(r: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(r)
