"""A fitted law: predictions, their uncertainty, draws from the posterior, and how it went."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bimix_tune.errors import FitError, MixtureError
from bimix_tune.laws.additive import Additive
from bimix_tune.laws.base import ALPHA, BETA, DELTA, EPS, LEVEL, PHI, Law, growth
from bimix_tune.laws.bimix import Bimix
from bimix_tune.laws.held_out import HeldOut
from bimix_tune.laws.optimum import Terms
from bimix_tune.laws.transfer import Transfer
from bimix_tune.simplex import SUM_TOLERANCE, Array
from bimix_tune.space import SearchSpace

LAWS: dict[str, Law] = {law.name: law for law in (Bimix(), Additive(), Transfer())}
"""All laws by name, in the order in which `fit` tries them."""

Mixtures = Mapping[str, float] | Sequence[Mapping[str, float]] | Array
"""One mixture, several, or an array (M, K) in the order of the space."""


@dataclass(frozen=True, eq=False)
class LawFit:
    """A law with its coordinates. Made by `bimix_tune.laws.fit`.

    Args:
        law: Name of the law.
        space: Domains and targets.
        unit: Unit of the losses.
        theta: Coordinates, (V, P); see `bimix_tune.laws.base`.
        reference: The token count s_ref of the coordinates: the most tokens seen.
        draws: Draws of the coordinates from their posterior, (D, V, P).
        noise: Covariance of the targets' log losses of one run about the law, (V, V).
        held_out: Predictions of runs left out.
        status: In words how the fit went.
        warnings: Sentences about what to distrust.
    """

    law: str
    space: SearchSpace
    unit: str
    theta: Array
    reference: float
    draws: Array
    noise: Array
    held_out: HeldOut
    status: str
    warnings: tuple[str, ...] = ()

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
        r = self._array(mixtures)
        t = np.full(len(r), self._time(tokens))
        d = np.full(len(r), float(decayed is not False))
        return np.asarray(np.exp(LAWS[self.law].log_loss(self.theta, self.space, r, t, d)[0]).T)

    def _time(self, tokens: float) -> float:
        """Tokens in units of the reference."""
        if not (math.isfinite(tokens) and tokens > 0):
            raise FitError(f"tokens must be a finite number > 0, but got {tokens!r}")
        return tokens / self.reference

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

    def objective(
        self, mixtures: Mixtures, tokens: float, noise: bool = True
    ) -> tuple[Array, Array]:
        """The weighted mean of the targets' losses, and its standard deviation.

        Errors of targets are correlated, within a run and in the law; both are accounted for.

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
        r = self._array(mixtures)
        parts = self.space.weights * self.predict(r, tokens)
        mean = parts.sum(-1)
        others = self._terms(self.draws, tokens).parts(r).sum(-1)
        variance = ((others - mean) ** 2).mean(0)
        if noise:
            variance = variance + np.einsum("mv,vu,mu->m", parts, self.noise, parts)
        return np.asarray(mean), np.asarray(np.sqrt(variance))

    def draw(self, rng: np.random.Generator) -> LawFit:
        """A law from the posterior, certain of itself, with the same methods."""
        theta = self.draws[rng.integers(len(self.draws))]
        return dataclasses.replace(self, theta=theta, draws=theta[None])

    def gradient(self, mixtures: Mixtures, tokens: float) -> Array:
        """Derivatives of the objective by the proportions, each taken as free, (M, K).

        Raises:
            FitError: ``tokens`` is not a finite number > 0.
            MixtureError: The mixtures have other domains, or are none.
        """
        terms = self.terms(tokens)
        return np.array([terms.gradient(r) for r in self._array(mixtures)])

    def terms(self, tokens: float) -> Terms:
        """The objective at one token count as a sum of powers.

        Raises:
            FitError: ``tokens`` is not a finite number > 0.
        """
        return self._terms(self.theta, tokens)

    def _terms(self, theta: Array, tokens: float) -> Terms:
        log_growth, _ = growth(theta[..., :6], np.array([self._time(tokens)]), np.ones(1))
        factor = self.space.weights * np.exp(log_growth[..., 0])
        return LAWS[self.law].terms(theta, self.space, factor)

    def parameters(self) -> dict[str, dict[str, Any]]:
        """By target: alpha, beta, B, C, eps, delta, and a row of coefficients by domain.

        The row is "transfer", A of ``x = eps + sum_j A_j r_j`` (one for the own domain), or
        "additive", W of a sum over domains (see `bimix_tune.laws.additive`). B belongs to s in
        tokens.
        """
        rows = LAWS[self.law].by_domain(self.theta, self.space)
        result: dict[str, dict[str, Any]] = {}
        for name, row, (kind, values) in zip(
            self.space.target_names, self.theta, rows, strict=True
        ):
            level, phi = float(np.exp(row[LEVEL])), float(1.0 / (1.0 + np.exp(-row[PHI])))
            beta = float(np.exp(row[BETA]))
            result[name] = {
                "alpha": float(np.exp(row[ALPHA])),
                "beta": beta,
                "B": level * phi * self.reference**beta,
                "C": level * (1.0 - phi),
                "eps": float(np.exp(row[EPS])),
                "delta": float(row[DELTA] ** 2),
                kind: dict(zip(self.space.names, values.tolist(), strict=True)),
            }
        return result

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON that `from_dict` reads back."""
        arrays = ("theta", "draws", "noise")
        return {
            "law": self.law,
            "space": self.space.to_dict(),
            "unit": self.unit,
            "reference": self.reference,
            **{name: getattr(self, name).tolist() for name in arrays},
            "held_out": self.held_out.to_dict(),
            "status": self.status,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LawFit:
        """Read the form of `to_dict`."""
        return cls(
            str(data["law"]),
            SearchSpace.from_dict(data["space"]),
            str(data["unit"]),
            np.array(data["theta"], dtype=float),
            float(data["reference"]),
            np.array(data["draws"], dtype=float),
            np.array(data["noise"], dtype=float),
            HeldOut.from_dict(data["held_out"]),
            str(data["status"]),
            tuple(data["warnings"]),
        )
