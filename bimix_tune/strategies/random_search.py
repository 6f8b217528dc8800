"""Random mixtures: flat ones, and swarms about the natural mixture as published methods draw them.

What every search has to beat, and the first part of every static method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bimix_tune import simplex
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace
from bimix_tune.strategies.base import Strategy

STRENGTHS = np.geomspace(0.1, 5.0, 15)
"""Sums of the Dirichlet parameters, one of which each mixture draws: those of RegMix
(sail-sg/regmix, mixture_config/synthesize_mixture.py) and of OLMix' generator alike."""
DUPLICATE = 1e-5
"""Two mixtures nearer than this in the sum of absolute differences are one (ibid.)."""
TRIES = 100
"""Draws after which a duplicate is taken; bounds may leave hardly any room."""


def flat(rng: np.random.Generator, space: SearchSpace, size: int) -> Array:
    """Uniform draws from the simplex, moved into the bounds, (size, K)."""
    k = len(space.names)
    return simplex.dirichlet(rng, np.full(k, 1.0 / k), k, space.low, space.high, size)


@dataclass(frozen=True)
class Swarm:
    """How a method draws its runs about the natural mixture p: ``Dir(strength * p^temperature)``.

    Args:
        temperature: Exponent of the natural proportions; less than one evens them out.
        least: Smaller proportions become zero.
    """

    temperature: float
    least: float

    def centre(self, space: SearchSpace) -> Array:
        """The natural proportions to the power of the temperature, normalised, (K,)."""
        tempered = space.prior**self.temperature
        return np.asarray(tempered / tempered.sum())

    def draw(self, rng: np.random.Generator, space: SearchSpace, seen: Array) -> Array:
        """A mixture within the bounds, (K,), other than those seen (n, K) if one is found."""
        for _ in range(TRIES):
            r = np.asarray(self.many(rng, space, 1)[0])
            if not (np.abs(seen - r).sum(axis=1) < DUPLICATE).any():
                break
        return r

    def many(self, rng: np.random.Generator, space: SearchSpace, size: int) -> Array:
        """Mixtures within the bounds, each of a random strength, (size, K)."""
        counts = rng.multinomial(size, np.full(len(STRENGTHS), 1.0 / len(STRENGTHS)))
        centre, low, high = self.centre(space), space.low, space.high
        drawn = np.concatenate(
            [
                simplex.dirichlet(rng, centre, strength, low, high, count)
                for strength, count in zip(STRENGTHS.tolist(), counts.tolist(), strict=True)
            ]
        )
        return simplex.scale_into(np.where(drawn < self.least, 0.0, drawn), low, high)


REGMIX_SWARM = Swarm(temperature=0.5, least=2e-4)
"""TEMP and MINIMUM of sail-sg/regmix, mixture_config/synthesize_mixture.py. Its cap of 15 epochs is
the business of the space's bounds."""
OLMIX_SWARM = Swarm(temperature=1.0, least=2e-3)
"""OLMix (allenai/olmix, olmix/generate/synthesize_mixture.py): ``minimum_weight`` 0.002."""


class Random(Strategy):
    """Flat Dirichlet draws; of candidates any one, whatever they are spread like."""

    def propose(self) -> Array:
        return np.asarray(flat(self.rng, self.setting.space, 1)[0])

    def choose(self, points: Array) -> int:
        return int(self.rng.integers(len(points)))


class RandomNatural(Strategy):
    """Draws about the natural mixture as RegMix has them; of candidates the nearest to each."""

    swarm: ClassVar[Swarm] = REGMIX_SWARM

    def propose(self) -> Array:
        space = self.setting.space
        return self.swarm.draw(self.rng, space, space.matrix(c.mixture for c in self.curves))
