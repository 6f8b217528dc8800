"""The additive scaling law of mixtures (Shukor et al., arXiv 2507.09404) at one model size.

    L_i(h, D) = E_i + 1 / (sum_j C_ij h_j^gamma_ij) + B_i / D^beta_i

with proportions h, tokens D and positive coefficients for each target; the term of the model
size is part of E. The law knows no end of the learning-rate decay. Proportions are at least
`SMALLEST_SHARE`, since the powers are infinitely steep at zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from bimix_tune.laws.observations import Observations
from bimix_tune.laws.peers.scaling_fit import Terms, estimate
from bimix_tune.laws.peers.shared import SMALLEST_SHARE, Limits
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace


@dataclass(frozen=True, eq=False)
class ScalingAdditive:
    """A fitted additive law.

    Where the domains that count are left out its mixture term explodes, so that term is kept
    within `Limits` of its values at the fitted runs, which is not part of the method.

    Args:
        terms: Coefficients of all targets, with V as the first axis.
        reference: Tokens at which t is one.
        limits: Of the mixture term.
    """

    name: ClassVar[str] = "scaling-additive"

    terms: Terms
    reference: float
    limits: Limits

    @classmethod
    def fit(cls, seen: Observations, space: SearchSpace) -> Self:
        """Huber loss on the log losses of all checkpoints, for each target.

        The authors minimise a Huber loss too, with basin hopping around L-BFGS. Here several
        starts and trust-region least squares take its place, and a weak ridge, which
        makes the fit defined where there are fewer runs than coefficients.
        """
        terms = [estimate(seen, v) for v in range(len(space.target_names))]
        mixed = [
            1.0 / own.returns(seen.r[weight > 0]).sum(axis=-1)
            for own, weight in zip(terms, seen.weight, strict=True)
        ]
        return cls(Terms.stack(terms), seen.reference, Limits.around(mixed))

    def log_loss(self, r: Array, t: Array, decayed: Array) -> Array:
        """Shapes as in `bimix_tune.laws.surface.Surface`."""
        mixed = self.limits.clip(1.0 / self.terms.returns(r).sum(axis=-1))
        return np.asarray(np.log(self.terms.floor[:, None] + mixed + self.terms.decline(t)))

    def slope(self, r: Array, t: Array, decayed: Array) -> Array:
        """Zero below the least share and where the mixture term leaves the limits."""
        returns = self.terms.returns(r)
        mixed = 1.0 / returns.sum(axis=-1)
        factor = -self.limits.inside(mixed) * mixed**2 / np.exp(self.log_loss(r, t, decayed))
        share = np.where(r > SMALLEST_SHARE, r, np.inf)
        return np.asarray(factor[..., None] * returns * self.terms.gamma[:, None, :] / share)

    def parameters(self, space: SearchSpace) -> dict[str, dict[str, Any]]:
        """By target: E, B and beta for D in tokens, and C and gamma by domain."""
        result: dict[str, dict[str, Any]] = {}
        for target, *row in zip(space.target_names, *self.terms, strict=True):
            floor, worth, gamma, growth, beta = (part.tolist() for part in row)
            result[target] = {
                "E": floor,
                "C": dict(zip(space.names, worth, strict=True)),
                "gamma": dict(zip(space.names, gamma, strict=True)),
                "B": growth * self.reference**beta,
                "beta": beta,
            }
        return result

    def to_dict(self) -> dict[str, Any]:
        return {
            **{name: part.tolist() for name, part in self.terms._asdict().items()},
            "reference": self.reference,
            "limits": self.limits.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the form of `to_dict`."""
        terms = Terms(*(np.array(data[name], dtype=float) for name in Terms._fields))
        return cls(terms, float(data["reference"]), Limits.from_dict(data["limits"]))
