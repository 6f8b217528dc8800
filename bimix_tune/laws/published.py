"""Published laws as models: a surface without a posterior, and the noise about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bimix_tune.laws.ladder import covariance
from bimix_tune.laws.observations import Observations
from bimix_tune.laws.peers import PEERS, Peer
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace


@dataclass(frozen=True, eq=False)
class Published:
    """A law of `bimix_tune.laws.peers` that was fitted.

    Args:
        surface: The law.
        space: Domains and targets.
        noise: Covariance of the targets' log losses of one run about the law, (V, V).
    """

    surface: Peer
    space: SearchSpace
    noise: Array

    def variance(self, r: Array, t: Array, decayed: Array) -> Array:
        """Zeros, (V, M): the law does not say."""
        return np.zeros((len(self.noise), len(r)))

    def noise_factor(self, r: Array) -> Array:
        """Ones, (V, M)."""
        return np.ones((len(self.noise), len(r)))

    def draw(self, rng: np.random.Generator) -> Peer:
        """The law itself."""
        return self.surface

    def shares(self, weights: Array) -> dict[str, float]:
        """The law alone."""
        return {self.surface.name: 1.0}

    def parameters(self, reference: float) -> dict[str, dict[str, Any]]:
        """Coefficients in the published form."""
        return self.surface.parameters(self.space)

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON that `from_dict` reads back."""
        return {
            "kind": self.surface.name,
            "surface": self.surface.to_dict(),
            "noise": self.noise.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], space: SearchSpace) -> Published:
        """Read the form of `to_dict`."""
        surface = PEERS[data["kind"]].from_dict(data["surface"])
        return cls(surface, space, np.array(data["noise"], dtype=float))


def published(name: str, seen: Observations, space: SearchSpace) -> Published:
    """Fit a law of `bimix_tune.laws.peers` by name."""
    surface = PEERS[name].fit(seen, space)
    t = seen.tokens / seen.reference
    residual = seen.log_loss - surface.log_loss(seen.r, t, seen.decayed)
    known = seen.weight > 0
    count = np.maximum(known.sum(axis=1), 1)
    variance = np.maximum((known * residual**2).sum(axis=1) / count, LEAST_VARIANCE)
    return Published(surface, space, covariance(residual, seen.weight, variance))


LEAST_VARIANCE = 1e-12
"""Of a run's log loss: a law that meets all runs is not certain."""
