"""A surface of losses seen through an objective: one number for each mixture, and its slope."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bimix_tune.errors import FitError
from bimix_tune.laws.optimum.objectives import Mean, Objective, greatest
from bimix_tune.laws.terms import TINY
from bimix_tune.simplex import Array


class Surface(Protocol):
    """Losses as a function of the proportions."""

    def losses(self, r: Array) -> Array:
        """Losses of all targets, (M, K) -> (M, V)."""
        ...

    @property
    def slopes(self) -> Callable[[Array], Array] | None:
        """Their derivatives by the proportions, each taken as free, (M, K) -> (M, V, K).

        A method; or None where there are no derivatives (trees).
        """
        ...


@dataclass(frozen=True, eq=False)
class Landscape:
    """What a search descends: ``sign * objective(losses(r)) + kl * KL(r || prior)``.

    Args:
        surface: The losses.
        objective: Bound to the order of the surface's targets.
        weights: Of the targets, (V,).
        prior: Natural proportions, (K,); those below 1e-12 count as 1e-12.
        kl: Weight of the divergence, in units of the objective per nat.
        sign: One, or minus one to find the worst mixture.
    """

    surface: Surface
    objective: Objective
    weights: Array
    prior: Array
    kl: float = 0.0
    sign: float = 1.0

    @property
    def levels(self) -> Array | None:
        """If the greatest loss is to be small, what is subtracted from the losses, (V,)."""
        return greatest(self.objective, len(self.weights)) if self.sign > 0 else None

    def losses(self, r: Array) -> Array:
        """Losses of all targets, (M, K) -> (M, V).

        Raises:
            FitError: The surface gives another shape, or a loss that is not finite.
        """
        losses = np.asarray(self.surface.losses(r), dtype=float)
        self._check("losses", losses, (len(r), len(self.weights)), r)
        return losses

    def slopes(self, r: Array) -> Array:
        """Derivatives of all losses at one mixture, (K,) -> (V, K)."""
        assert self.surface.slopes is not None
        slopes = np.asarray(self.surface.slopes(r[None]), dtype=float)
        self._check("slopes", slopes, (1, len(self.weights), len(r)), r[None])
        return np.asarray(slopes[0])

    def value(self, r: Array) -> Array:
        """The objective alone, (M, K) -> (M,)."""
        return self.objective.value(self.losses(r), self.weights)

    def total(self, r: Array) -> Array:
        """What is descended, (M, K) -> (M,)."""
        return self.sign * self.value(r) + self.pull(r)

    def gradient(self, r: Array) -> Array:
        """Derivatives of the total, (K,) -> (K,)."""
        by_loss = self.objective.gradient(self.losses(r[None])[0], self.weights)
        return self.sign * (by_loss @ self.slopes(r)) + self.pull_slope(r)

    def pull(self, r: Array) -> Array:
        """``kl * KL(r || prior)``, (..., K) -> (...)."""
        if self.kl == 0:
            return np.zeros(r.shape[:-1])
        return np.asarray(self.kl * (r * self._ratio(r)).sum(-1))

    def pull_slope(self, r: Array) -> Array:
        """Its derivatives, (K,) -> (K,)."""
        if self.kl == 0:
            return np.zeros_like(r)
        return self.kl * (self._ratio(r) + 1.0)

    def _ratio(self, r: Array) -> Array:
        return np.log(np.maximum(r, TINY) / np.maximum(self.prior, TINY))

    def of_target(self, v: int) -> Landscape:
        """The same with the loss of one target as the objective."""
        one = np.eye(len(self.weights))[v]
        return Landscape(self.surface, Mean(), one, self.prior, self.kl, self.sign)

    def _check(self, what: str, values: Array, shape: tuple[int, ...], r: Array) -> None:
        if values.shape != shape:
            raise FitError(
                f"{what} of a surface must have shape {shape} for {len(r)} mixtures, "
                f"but have {values.shape}"
            )
        if not np.isfinite(values).all():
            bad = ~np.isfinite(values.reshape(len(r), -1)).all(axis=1)
            raise FitError(
                f"{what} of a surface must be finite, but are not at the mixture "
                f"{r[bad.argmax()].tolist()}"
            )
