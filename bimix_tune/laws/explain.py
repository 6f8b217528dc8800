"""What a law says about a mixture, in numbers that people ask for: what a little more of each
domain does, and what domains are worth in terms of each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bimix_tune.errors import FitError
from bimix_tune.laws.law_fit import LawFit
from bimix_tune.simplex import Array

POINT = 0.01
"""One more percent of the tokens."""
DRAWS = 32
"""Draws from the posterior that say how certain an effect is."""
RELATIVE = frozenset({"linear", "exponential", "log-linear"})
"""Laws whose coefficients by domain are known up to a common constant, as proportions sum to one:
effects are differences of them, but what a token is worth is not defined."""
MARGIN = 1e-6
"""Proportions that miss the tried range by less are in it."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Effects about one mixture. Domains and targets are in the order of ``fit.space``.

    Args:
        fit: The law.
        mixture: Proportions, (K,).
        effects: Change of each target's loss if one percent more of the tokens comes from a
            domain and all others give way in proportion, (V, K); negative is better.
        objective: The same for the weighted mean, (K,).
        deviation: Its standard deviation over draws from the posterior, (K,).
        exchange: Tokens of the column's domain that lower the objective as much as one token of
            the row's, (K, K); NaN where a domain does not lower it, and for laws in `RELATIVE`.
        outside: Sentences about proportions that no run tried.
    """

    fit: LawFit
    mixture: Array
    effects: Array
    objective: Array
    deviation: Array
    exchange: Array
    outside: tuple[str, ...]


def explain(fit: LawFit, mixture: Mapping[str, float], tokens: float) -> Explanation:
    """What a law says about the neighbourhood of a mixture.

    Args:
        fit: A law that is smooth.
        mixture: The mixture.
        tokens: Training tokens at which losses are judged.

    Raises:
        FitError: ``tokens`` is not a finite number > 0, or the law has no derivatives.
        MixtureError: The mixture has other domains.
    """
    r = fit.space.array(mixture)
    effects = _effects(fit, r, tokens)
    rng = np.random.default_rng(DRAWS)
    weights = fit.space.weights
    drawn = np.stack([weights @ _effects(fit.draw(rng), r, tokens) for _ in range(DRAWS)])
    objective = weights @ effects
    return Explanation(
        fit,
        r,
        effects,
        objective,
        np.sqrt(((drawn - objective) ** 2).mean(axis=0)),
        _exchange(weights @ _slopes(fit, r, tokens), bool(RELATIVE & set(fit.rungs))),
        outside(fit, mixture),
    )


def outside(fit: LawFit, mixture: Mapping[str, float]) -> tuple[str, ...]:
    """A sentence for each proportion of a mixture that lies beyond all runs of a fit."""
    r = fit.space.array(mixture)
    low, high = fit.tried
    return tuple(
        f"{name}: {share:.1%} is outside what was tried, {least:.1%} to {most:.1%}"
        for name, share, least, most in zip(fit.space.names, r, low, high, strict=True)
        if not least - MARGIN <= share <= most + MARGIN
    )


def _slopes(fit: LawFit, r: Array, tokens: float) -> Array:
    """Derivatives of the losses, (V, K)."""
    slopes = fit.slopes(r[None], tokens)
    if slopes is None:
        raise FitError(f"the law {fit.law!r} has no derivatives, so its effects are not defined")
    return np.asarray(slopes[0])


def _effects(fit: LawFit, r: Array, tokens: float) -> Array:
    """Along ``r_j + h, r_k (1 - h / (1 - r_j))`` for h of one percent, to first order, (V, K)."""
    slopes = _slopes(fit, r, tokens)
    rest = np.maximum(1.0 - r, POINT)
    others = ((slopes @ r)[:, None] - slopes * r) / rest
    return np.asarray(POINT * (slopes - others))


def _exchange(gradient: Array, relative: bool) -> Array:
    """Ratios of the gains of a token, (K, K)."""
    gain = np.where((gradient < 0) & (not relative), -gradient, np.nan)
    return np.asarray(gain[:, None] / gain[None, :])
