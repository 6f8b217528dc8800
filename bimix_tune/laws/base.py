"""What a law is: an equation for log losses, with coordinates, derivatives and a prior.

Every law here is a factor of tokens times one of proportions,

    log L_i(r, s) = log growth_i(s) + log share_i(r),
    growth_i(s) = (B_i s^-beta_i + C_i) exp(-delta_i d),

in the sense of BiMix (Ge et al., arXiv 2405.14908, eq. 3), with the paper's redundant factor
fixed to one. Laws differ in the share, mostly a power ``x_i(r)^-alpha_i`` of an effective
proportion x. ``d`` is one for checkpoints at the end of the learning-rate decay, which lie below
the constant-rate curve by a nearly constant factor.

Coordinates. With t = s / s_ref, ``B s^-beta + C = K (1 + phi (t^-beta - 1))``: K is the level
at s_ref and phi the part of it that more tokens remove, so that data at one token count
determine K alone and leave beta and phi to their prior. Positive parameters are logarithms;
delta is a square, which lets it reach zero smoothly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

LEVEL, ALPHA, BETA, PHI, EPS, DELTA = range(6)
"""Positions of log K, log alpha, log beta, logit phi, log eps and sqrt delta."""
BASE = 6
"""Number of coordinates that all laws have."""
SMALLEST = 1e-9
"""Proportion below which slopes are those at it: that of a power is infinite at zero."""

MEAN = np.array([0.0, np.log(0.12), np.log(0.4), -0.5, np.log(0.01), 0.3])
SPREAD = np.array([3.0, 0.6, 0.4, 1.0, 1.0, 0.3])
"""Prior of one target's coordinates (level: about the mean log loss). Centres are typical of
published proxy runs of 1M to 1B parameters; alpha, beta, phi and eps are pooled in fitting."""


@dataclass(frozen=True)
class Prior:
    """Independent normal priors of the coordinates.

    Args:
        mean: (V, P).
        sd: (V, P).
        groups: Label of the pool a coordinate belongs to, (V, P); -1 is in none.
        free_mean: Whether the mean of a pool, by label, is estimated (else only its spread).
        squares: Coordinates that act through their square, (P,).
    """

    mean: Array
    sd: Array
    groups: NDArray[np.int64]
    free_mean: tuple[bool, ...]
    squares: NDArray[np.bool_]


class Law(Protocol):
    """An equation for the log losses of all targets. It has a state only if it carries data."""

    name: str

    def prior(self, space: SearchSpace) -> Prior:
        """Where coordinates lie before any run is seen."""
        ...

    def start(self, theta: Array, space: SearchSpace) -> Array:
        """Where the fit begins, given the prior's mean or an earlier fit, (..., V, P)."""
        ...

    def share(self, theta: Array, space: SearchSpace, r: Array) -> tuple[Array, Array]:
        """The logarithm of the factor of proportions, and its derivatives.

        Args:
            theta: Coordinates, (..., V, P); the first six are those of this module.
            space: The domains and targets.
            r: Proportions, (N, K).

        Returns:
            Values (..., V, N) and derivatives by all coordinates (..., V, N, P), zero for
            those of `growth`.
        """
        ...

    def slope(self, theta: Array, space: SearchSpace, r: Array) -> Array:
        """Derivatives of the log share by the proportions, each taken as free, (..., V, N, K)."""
        ...

    def terms(self, theta: Array, space: SearchSpace, factor: Array) -> Terms | None:
        """The weighted sum of the losses as powers of the proportions, None if it is no such sum.

        Args:
            theta: Coordinates, (..., V, P).
            space: The domains and targets.
            factor: Each target's weight times its factor of tokens, (..., V).
        """
        ...

    def by_domain(self, theta: Array, space: SearchSpace) -> list[tuple[str, Array]]:
        """For each target the name and values (K,) of its coefficients by domain; theta (V, P)."""
        ...


def log_loss(
    law: Law, theta: Array, space: SearchSpace, r: Array, t: Array, decayed: Array
) -> tuple[Array, Array]:
    """Log losses and their derivatives by the coordinates.

    Args:
        law: The law.
        theta: Coordinates, (..., V, P).
        space: The domains and targets.
        r: Proportions of N checkpoints, (N, K).
        t: Their tokens over s_ref, (N,) or (V, N).
        decayed: One for the end of the decay, else zero, shaped as ``t``.

    Returns:
        Log losses (..., V, N) and derivatives (..., V, N, P).
    """
    value, jacobian = law.share(theta, space, r)
    grown, by_base = growth(theta[..., :BASE], t, decayed)
    jacobian[..., :BASE] += by_base
    return value + grown, jacobian


def own_carriers(space: SearchSpace) -> Array:
    """One where a target was held out from a domain, (V, K); a row of zeros has none."""
    k = len(space.names)
    return np.stack([np.zeros(k) if i is None else np.eye(k)[i] for i in space.own])


def growth(base: Array, t: Array, decayed: Array) -> tuple[Array, Array]:
    """The factor of tokens, ``K (1 + phi (t^-beta - 1)) exp(-delta d)``, which all laws share.

    Args:
        base: The six shared coordinates, (..., V, 6).
        t: Tokens over s_ref, (N,) or (V, N).
        decayed: Zeros and ones, shaped as ``t``.

    Returns:
        Its logarithm (..., V, N) and derivatives by ``base`` (..., V, N, 6).
    """
    beta = np.exp(base[..., BETA, None])
    phi = 1.0 / (1.0 + np.exp(-base[..., PHI, None]))
    root = base[..., DELTA, None]
    log_t = np.log(t)
    power = np.exp(-beta * log_t)
    shape = 1.0 + phi * (power - 1.0)
    value = base[..., LEVEL, None] + np.log(shape) - root**2 * decayed
    jacobian = np.zeros((*value.shape, BASE))
    jacobian[..., LEVEL] = 1.0
    jacobian[..., BETA] = -phi * power * beta * log_t / shape
    jacobian[..., PHI] = phi * (1.0 - phi) * (power - 1.0) / shape
    jacobian[..., DELTA] = -2.0 * root * decayed
    return value, jacobian


def power_of(x: Array, base: Array, size: int) -> tuple[Array, Array, Array]:
    """The share ``x^-alpha`` of an effective proportion with floor, ``x = eps + ...``.

    Args:
        x: (..., V, N).
        base: The six shared coordinates, (..., V, 6).
        size: Number P of coordinates.

    Returns:
        Its logarithm (..., V, N), derivatives (..., V, N, P), those by alpha and eps filled in,
        and derivatives by x (..., V, N).
    """
    alpha, eps = (np.exp(base[..., i, None]) for i in (ALPHA, EPS))
    log_x = np.log(x)
    jacobian = np.zeros((*x.shape, size))
    jacobian[..., ALPHA] = -alpha * log_x
    jacobian[..., EPS] = -alpha * eps / x
    return -alpha * log_x, jacobian, -alpha / x
