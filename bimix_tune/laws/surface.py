"""Surfaces: log losses of all targets as functions of the mixture and the tokens seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bimix_tune.laws.base import BASE, Law, growth
from bimix_tune.laws.kernel import Kernel
from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace


class Surface(Protocol):
    """Log losses of V targets as a function of the mixture and of the tokens seen."""

    def log_loss(self, r: Array, t: Array, decayed: Array) -> Array:
        """Log losses, (V, M).

        Args:
            r: Proportions, (M, K).
            t: Tokens over the reference, (M,) or (V, M).
            decayed: One at the end of the learning-rate decay, else zero, shaped as ``t``.
        """
        ...

    def slope(self, r: Array, t: Array, decayed: Array) -> Array | None:
        """Derivatives by the proportions, each taken as free, (V, M, K); None: not smooth."""
        ...


@dataclass(frozen=True, eq=False)
class Process:
    """The mean of Gaussian processes given runs: ``sum_n k_v(r, r_n) a_vn``.

    Args:
        kernel: Of the processes.
        r: Mixtures of the runs, (N, K).
        weights: a, (V, N).
    """

    kernel: Kernel
    r: Array
    weights: Array

    def __call__(self, r: Array) -> Array:
        """(M, K) -> (V, M)."""
        return np.asarray((self.kernel(r, self.r) @ self.weights[..., None])[..., 0])

    def slope(self, r: Array) -> Array:
        """(M, K) -> (V, M, K)."""
        return self.kernel.slope(r, self.r, self.weights)


@dataclass(frozen=True, eq=False)
class Waves:
    """A draw from processes by random Fourier features (Rahimi and Recht 2007).

    ``g_v(r) = sum_w height_vw cos(frequency_vw z(r) + phase_vw)``.

    Args:
        kernel: Says what z is.
        frequency: (V, W, K).
        phase: (V, W).
        height: (V, W).
    """

    kernel: Kernel
    frequency: Array
    phase: Array
    height: Array

    def __call__(self, r: Array) -> Array:
        """(M, K) -> (V, M)."""
        angle = self.kernel.embed(r) @ np.swapaxes(self.frequency, -1, -2)
        return np.asarray((np.cos(angle + self.phase[:, None, :]) @ self.height[..., None])[..., 0])

    def slope(self, r: Array) -> Array:
        """(M, K) -> (V, M, K)."""
        angle = self.kernel.embed(r) @ np.swapaxes(self.frequency, -1, -2)
        by_z = -(np.sin(angle + self.phase[:, None, :]) * self.height[:, None, :]) @ self.frequency
        return np.asarray(by_z / (r + np.exp(self.kernel.floor)))


@dataclass(frozen=True, eq=False)
class Shape:
    """A law with fixed coordinates, plus a process, plus waves.

    Args:
        law: The law.
        space: Domains and targets.
        theta: Coordinates, (V, P).
        process: Or None.
        waves: Or None.
    """

    law: Law
    space: SearchSpace
    theta: Array
    process: Process | None = None
    waves: Waves | None = None

    def log_loss(self, r: Array, t: Array, decayed: Array) -> Array:
        """See `Surface`."""
        value = self.law.share(self.theta, self.space, r)[0]
        value = value + growth(self.theta[..., :BASE], t, decayed)[0]
        for part in (self.process, self.waves):
            if part is not None:
                value = value + part(r)
        return value

    def terms(self, weights: Array, t: float) -> Terms | None:
        """The law's weighted losses at the end of the decay as a sum of powers, if they are one.

        Args:
            weights: Of the targets, (V,).
            t: Tokens over the reference.
        """
        grown, _ = growth(self.theta[..., :BASE], np.array([t]), np.ones(1))
        return self.law.terms(self.theta, self.space, weights * np.exp(grown[..., 0]))

    def slope(self, r: Array, t: Array, decayed: Array) -> Array:
        """See `Surface`; the same at all token counts."""
        value = self.law.slope(self.theta, self.space, r)
        for part in (self.process, self.waves):
            if part is not None:
                value = value + part.slope(r)
        return value


@dataclass(frozen=True, eq=False)
class Blend:
    """A weighted mean of surfaces' log losses.

    Args:
        shapes: The surfaces, m of them.
        weights: For each target summing to one, (m, V).
    """

    shapes: tuple[Shape, ...]
    weights: Array

    def log_loss(self, r: Array, t: Array, decayed: Array) -> Array:
        """See `Surface`."""
        values = np.stack([s.log_loss(r, t, decayed) for s in self.shapes])
        return np.asarray((self.weights[:, :, None] * values).sum(0))

    def slope(self, r: Array, t: Array, decayed: Array) -> Array:
        """See `Surface`."""
        values = np.stack([s.slope(r, t, decayed) for s in self.shapes])
        return np.asarray((self.weights[:, :, None, None] * values).sum(0))
