"""A fitted law: predictions, their uncertainty, draws from the posterior, and how it went."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from bimix_tune.errors import FitError, MixtureError
from bimix_tune.laws.held_out import HeldOut
from bimix_tune.laws.surface import Blend, Shape, Surface
from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import SUM_TOLERANCE, Array
from bimix_tune.space import SearchSpace

Mixtures = Mapping[str, float] | Sequence[Mapping[str, float]] | Array
"""One mixture, several, or an array (M, K) in the order of the space."""


BEYOND = 0.03
"""Relative error of a law's form per e-fold of tokens beyond those seen, alike for all mixtures and
targets: from the first 40 % of runs with a decaying learning rate, laws of published runs miss the
end by 1.7 to 3.6 %."""


class Model(Protocol):
    """What is fitted: a surface, how uncertain it is, and draws from its posterior."""

    @property
    def surface(self) -> Surface:
        """The most probable surface."""
        ...

    @property
    def noise(self) -> Array:
        """Covariance of the targets' log losses of one run, (V, V)."""
        ...

    def variance(self, r: Array, t: Array, decayed: Array) -> Array:
        """Of the surface's log losses, without the noise of a run, (V, M)."""
        ...

    def noise_factor(self, r: Array) -> Array:
        """Variance of a run's noise at mixtures over that of `noise`, (M, K) -> (V, M)."""
        ...

    def draw(self, rng: np.random.Generator) -> Surface:
        """A surface from the posterior."""
        ...

    def shares(self, weights: Array) -> dict[str, float]:
        """The parts it consists of and their shares in the objective; target weights (V,)."""
        ...

    def parameters(self, reference: float) -> dict[str, dict[str, Any]]:
        """Coefficients by target; ``reference``: tokens of ``t = 1``."""
        ...


@dataclass(frozen=True, eq=False)
class Certain:
    """A surface without doubt.

    Args:
        surface: The surface.
        noise: Covariance of the targets' log losses of one run, (V, V).
    """

    surface: Surface
    noise: Array

    def variance(self, r: Array, t: Array, decayed: Array) -> Array:
        """Zeros, (V, M)."""
        return np.zeros((len(self.noise), len(r)))

    def noise_factor(self, r: Array) -> Array:
        """Ones, (V, M)."""
        return np.ones((len(self.noise), len(r)))

    def draw(self, rng: np.random.Generator) -> Surface:
        """The surface itself."""
        return self.surface

    def shares(self, weights: Array) -> dict[str, float]:
        """Nothing: what a draw consists of is the business of the fit it was drawn from."""
        return {}

    def parameters(self, reference: float) -> dict[str, dict[str, Any]]:
        """Nothing, for the same reason."""
        return {}


@dataclass(frozen=True, eq=False)
class LossSurface:
    """Losses at one token count as functions of the proportions.

    Args:
        surface: Log losses.
        t: Tokens over the reference.
        domains: Number K of domains.
    """

    surface: Surface
    t: float
    domains: int

    def losses(self, r: Array) -> Array:
        """(M, K) -> (M, V)."""
        return np.asarray(np.exp(self.surface.log_loss(*self._at(r))).T)

    @cached_property
    def slopes(self) -> Callable[[Array], Array] | None:
        """Their derivatives by the proportions, (M, K) -> (M, V, K); None: not smooth."""
        start = np.full((1, self.domains), 1.0 / self.domains)
        return None if self.surface.slope(*self._at(start)) is None else self._slopes

    def _slopes(self, r: Array) -> Array:
        slope = self.surface.slope(*self._at(r))
        assert slope is not None
        loss = np.exp(self.surface.log_loss(*self._at(r)))
        return np.asarray((loss[..., None] * slope).swapaxes(0, 1))

    def _at(self, r: Array) -> tuple[Array, Array, Array]:
        return r, np.full(len(r), self.t), np.ones(len(r))


@dataclass(frozen=True, eq=False)
class LawFit:
    """A law fitted to runs. Made by `bimix_tune.laws.fit`.

    Args:
        law: Name of the law.
        space: Domains and targets.
        unit: Unit of the losses.
        reference: The token count s_ref: the most tokens seen.
        model: What was fitted.
        tried: Least and greatest proportion of each domain among the runs, (2, K).
        inflation: Factor of the objective's standard deviation, from runs left out.
        held_out: Predictions of runs left out.
        status: In words how the fit went.
        warnings: Sentences about what to distrust.
    """

    law: str
    space: SearchSpace
    unit: str
    reference: float
    model: Model
    tried: Array
    inflation: float
    held_out: HeldOut
    status: str
    warnings: tuple[str, ...] = ()

    def losses_at(self, tokens: float) -> LossSurface:
        """The losses at one token count, as the search for an optimum sees them.

        Raises:
            FitError: ``tokens`` is not a finite number > 0.
        """
        return LossSurface(self.model.surface, self._time(tokens), len(self.space.names))

    def predict(self, mixtures: Mixtures, tokens: float, decayed: bool | None = None) -> Array:
        """Losses of all targets.

        Args:
            mixtures: M mixtures.
            tokens: Training tokens s.
            decayed: Whether at the end of the learning-rate decay or on the constant rate.
                None: at the end, if any curve had one. Without both kinds of checkpoint
                among the curves the two are the same.

        Returns:
            (M, V), in `unit`.

        Raises:
            FitError: ``tokens`` is not a finite number > 0.
            MixtureError: The mixtures have other domains, or are none.
        """
        at = self._at(mixtures, tokens, decayed is not False)
        return np.asarray(np.exp(self.model.surface.log_loss(*at)).T)

    def slopes(self, mixtures: Mixtures, tokens: float) -> Array | None:
        """Derivatives of the losses by the proportions, each taken as free, (M, V, K).

        None if the law is not smooth.

        Raises:
            FitError: ``tokens`` is not a finite number > 0.
            MixtureError: The mixtures have other domains, or are none.
        """
        slopes = self.losses_at(tokens).slopes
        return None if slopes is None else slopes(self._array(mixtures))

    def gradient(self, mixtures: Mixtures, tokens: float) -> Array | None:
        """Derivatives of the weighted mean of the losses, as of `slopes`, (M, K)."""
        slopes = self.slopes(mixtures, tokens)
        return None if slopes is None else np.einsum("v,mvk->mk", self.space.weights, slopes)

    def objective(
        self, mixtures: Mixtures, tokens: float, noise: bool = True
    ) -> tuple[Array, Array]:
        """The weighted mean of the targets' losses, and its standard deviation.

        Errors of targets are correlated, within a run and in the law; both are accounted for.
        1.96 deviations make a 95 % interval: they are scaled to the errors on runs left out. Beyond
        the tokens seen `BEYOND` is added, an error that all mixtures share.

        Args:
            mixtures: M mixtures.
            tokens: Training tokens.
            noise: Whether the deviation is that of a fresh run, or the law's own only. A fresh
                run is one of the seeds that the law has seen: what all runs of one seed have
                in common cannot be told from the law.

        Returns:
            Mean (M,) and standard deviation (M,).

        Raises:
            FitError: ``tokens`` is not a finite number > 0.
            MixtureError: The mixtures have other domains, or are none.
        """
        at = self._at(mixtures, tokens)
        parts = self.space.weights[:, None] * np.exp(self.model.surface.log_loss(*at))
        variance = self.model.variance(*at)
        if noise:
            factor = self.model.noise_factor(at[0])
            variance = variance + np.diagonal(self.model.noise)[:, None] * factor
        within = self.inflation**2 * joint_variance(parts, variance, self.model.noise)
        beyond = BEYOND * max(math.log(self._time(tokens)), 0.0) * parts.sum(0)
        return np.asarray(parts.sum(0)), np.sqrt(within + beyond**2)

    def draw(self, rng: np.random.Generator) -> LawFit:
        """A law from the posterior, certain of itself, with the same methods."""
        return dataclasses.replace(self, model=Certain(self.model.draw(rng), self.model.noise))

    def terms(self, tokens: float) -> Terms | None:
        """The objective at one token count as a sum of powers, None if it is no such sum.

        Raises:
            FitError: ``tokens`` is not a finite number > 0.
        """
        parts = self.all_terms(tokens)
        return parts[0] if len(parts) == 1 and _plain(self.model.surface) else None

    def all_terms(self, tokens: float) -> list[Terms]:
        """`terms` of those surfaces of a blend that are laws, without their processes."""
        surface, t = self.model.surface, self._time(tokens)
        shapes = surface.shapes if isinstance(surface, Blend) else ()
        found = [shape.terms(self.space.weights, t) for shape in shapes]
        return [terms for terms in found if terms is not None]

    def parameters(self) -> dict[str, dict[str, Any]]:
        """Coefficients by target, and for some laws a row of coefficients by domain.

        alpha, beta, B, C, eps, delta and, with transfer, rho; B belongs to s in tokens. The row is
        "transfer", A of ``x = eps + sum_j A_j r_j^rho`` (one for the own domain), "additive", W
        of a sum over domains (see `bimix_tune.laws.additive`), or "linear". Of a blend, those of
        its plain law. A published law has the coefficients that its paper prints.
        """
        return self.model.parameters(self.reference)

    @property
    def rungs(self) -> dict[str, float]:
        """Part of each rung in the prediction of the objective; one for a law alone."""
        return self.model.shares(self.space.weights)

    def _time(self, tokens: float) -> float:
        """Tokens in units of the reference."""
        if not (math.isfinite(tokens) and tokens > 0):
            raise FitError(f"tokens must be a finite number > 0, but got {tokens!r}")
        return tokens / self.reference

    def _at(
        self, mixtures: Mixtures, tokens: float, decayed: bool = True
    ) -> tuple[Array, Array, Array]:
        r = self._array(mixtures)
        return r, np.full(len(r), self._time(tokens)), np.full(len(r), float(decayed))

    def _array(self, mixtures: Mixtures) -> Array:
        """Mixtures as rows that are ones, (M, K)."""
        if isinstance(mixtures, Mapping):
            r = self.space.array(mixtures)[None]
        elif isinstance(mixtures, np.ndarray):
            r = np.atleast_2d(np.asarray(mixtures, dtype=float))
        else:
            r = self.space.matrix(mixtures)
        k = len(self.space.names)
        if r.ndim != 2 or r.shape[1] != k:
            raise MixtureError(
                f"an array of mixtures must have shape (M, {k}), one column for each domain of "
                f"the law, but has {r.shape}"
            )
        good = (r >= 0).all(axis=1) & (np.abs(r.sum(axis=1) - 1.0) <= SUM_TOLERANCE)
        if not good.all():
            raise MixtureError(
                "proportions must be >= 0 and sum to 1, but a mixture is "
                f"{r[good.argmin()].tolist()}; see Mixture.normalised"
            )
        return r

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON that `from_dict` reads back."""
        from bimix_tune.laws.storage import write

        return {
            "law": self.law,
            "space": self.space.to_dict(),
            "unit": self.unit,
            "reference": self.reference,
            "model": write(self.model),
            "tried": self.tried.tolist(),
            "inflation": self.inflation,
            "held_out": self.held_out.to_dict(),
            "status": self.status,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LawFit:
        """Read the form of `to_dict`."""
        from bimix_tune.laws.storage import read

        space = SearchSpace.from_dict(data["space"])
        return cls(
            str(data["law"]),
            space,
            str(data["unit"]),
            float(data["reference"]),
            read(data["model"], space),
            np.array(data["tried"], dtype=float),
            float(data["inflation"]),
            HeldOut.from_dict(data["held_out"]),
            str(data["status"]),
            tuple(data["warnings"]),
        )


def joint_variance(parts: Array, variance: Array, noise: Array) -> Array:
    """Variance of a sum of losses whose log errors are correlated as a run's noise is, (M,).

    Args:
        parts: Summands, (V, M).
        variance: Of their logarithms, (V, M).
        noise: Covariance that gives the correlations, (V, V).
    """
    deviation = np.sqrt(np.diagonal(noise))
    correlation = noise / np.outer(deviation, deviation)
    scaled = parts * np.sqrt(variance)
    return np.asarray(np.maximum((scaled * (correlation @ scaled)).sum(0), 0.0))


def _plain(surface: Surface) -> bool:
    shapes: tuple[Shape, ...] = surface.shapes if isinstance(surface, Blend) else ()
    return len(shapes) == 1 and shapes[0].process is None and shapes[0].waves is None
