"""What a fitted law is to those who ask it: log losses over mixtures and tokens, and slopes."""

from __future__ import annotations

from typing import Any, Protocol

from bimix_tune.simplex import Array


class Surface(Protocol):
    """Log losses of V targets as a function of the mixture and of the tokens seen."""

    def log_loss(self, r: Array, t: Array, decayed: Array) -> Array:
        """Log losses, (V, M).

        Args:
            r: Proportions, (M, K).
            t: Tokens over the reference, (M,).
            decayed: One at the end of the learning-rate decay, else zero, (M,).
        """
        ...

    def slope(self, r: Array, t: Array, decayed: Array) -> Array | None:
        """Derivatives of the log losses by the proportions, each taken as free.

        Args:
            r: Proportions, (M, K).
            t: Tokens over the reference, (M,).
            decayed: Zeros and ones, (M,).

        Returns:
            (V, M, K); None: the surface is not smooth (trees).
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON; the classmethod ``from_dict`` of the same class reads it back."""
        ...
