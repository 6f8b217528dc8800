"""What a law is: an equation for log losses, with coordinates, derivatives and a prior.

Every law here is a factor of proportions times one of tokens, and for a target with its own
domain a product in the sense of BiMix (Ge et al., arXiv 2405.14908, eq. 3),

    L_i(r, s) = x_i(r)^-alpha_i * (B_i s^-beta_i + C_i) * exp(-delta_i d),
    x_i(r) = eps_i + sum_j A_ij r_j,

with the paper's redundant factor fixed to one. Laws differ in the carriers A >= 0, how much a
token of domain j is worth for target i, in tokens of its own domain, and in the factor of
proportions of a target without one (`bimix_tune.laws.additive`). ``d`` is one for checkpoints at
the end of the learning-rate decay, which lie below the constant-rate curve by a nearly constant
factor.

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

from bimix_tune.laws.optimum import Terms
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

LEVEL, ALPHA, BETA, PHI, EPS, DELTA = range(6)
"""Positions of log K, log alpha, log beta, logit phi, log eps and sqrt delta."""

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
    """An equation for the log losses of all targets."""

    name: str

    def prior(self, space: SearchSpace) -> Prior:
        """Where coordinates lie before any run is seen."""
        ...

    def start(self, mean: Array, space: SearchSpace) -> Array:
        """Where the fit begins, given the prior's mean, (V, P)."""
        ...

    def by_domain(self, theta: Array, space: SearchSpace) -> list[tuple[str, Array]]:
        """For each target the name and values (K,) of its coefficients by domain; theta (V, P)."""
        ...

    def terms(self, theta: Array, space: SearchSpace, factor: Array) -> Terms:
        """The weighted sum of the losses as powers of the proportions.

        Args:
            theta: Coordinates, (..., V, P).
            space: The domains and targets.
            factor: Each target's weight times its factor of tokens, (..., V).
        """
        ...

    def log_loss(
        self, theta: Array, space: SearchSpace, r: Array, t: Array, decayed: Array
    ) -> tuple[Array, Array]:
        """Log losses and their derivatives by the coordinates.

        Args:
            theta: Coordinates, (..., V, P).
            space: The domains and targets.
            r: Proportions of N checkpoints, (N, K).
            t: Their tokens over s_ref, (N,).
            decayed: One for the end of the decay, else zero, (N,).

        Returns:
            Log losses (..., V, N) and derivatives (..., V, N, P).
        """
        ...


def own_carriers(space: SearchSpace) -> Array:
    """Rung one's A: a target lives on its own domain, (V, K).

    A target without one lives on all domains alike: its row is ones, ``x = eps + 1``, so its
    loss is constant in r.
    """
    k = len(space.names)
    return np.stack([np.ones(k) if i is None else np.eye(k)[i] for i in space.own])


def growth(base: Array, t: Array, decayed: Array) -> tuple[Array, Array]:
    """The factor of tokens, ``K (1 + phi (t^-beta - 1)) exp(-delta d)``, which all laws share.

    Args:
        base: The six shared coordinates, (..., V, 6).
        t: Tokens over s_ref, (N,).
        decayed: Zeros and ones, (N,).

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
    jacobian = np.zeros((*value.shape, 6))
    jacobian[..., LEVEL] = 1.0
    jacobian[..., BETA] = -phi * power * beta * log_t / shape
    jacobian[..., PHI] = phi * (1.0 - phi) * (power - 1.0) / shape
    jacobian[..., DELTA] = -2.0 * root * decayed
    return value, jacobian


def product(
    base: Array, carriers: Array, r: Array, t: Array, decayed: Array
) -> tuple[Array, Array, Array]:
    """The product law and its derivatives.

    Args:
        base: The six shared coordinates, (..., V, 6).
        carriers: A, (..., V, K).
        r: Proportions, (N, K).
        t: Tokens over s_ref, (N,).
        decayed: Zeros and ones, (N,).

    Returns:
        Log losses (..., V, N), derivatives by ``base`` (..., V, N, 6) and by x (..., V, N).
    """
    alpha, eps = (np.exp(base[..., i, None]) for i in (ALPHA, EPS))
    x = eps + carriers @ r.T
    log_x = np.log(x)
    value, jacobian = growth(base, t, decayed)
    jacobian[..., ALPHA] = -alpha * log_x
    jacobian[..., EPS] = -alpha * eps / x
    return value - alpha * log_x, jacobian, -alpha / x


def product_terms(base: Array, carriers: Array, factor: Array) -> Terms:
    """The summands of a product law, one for each target; shapes as in `Law.terms`."""
    alpha, eps = (np.exp(base[..., i]) for i in (ALPHA, EPS))
    return Terms(factor, alpha, eps, carriers, np.ones_like(alpha))
