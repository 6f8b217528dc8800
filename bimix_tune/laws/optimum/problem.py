"""What is sought: a surface of losses, an objective, and where mixtures may lie."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from bimix_tune.errors import FitError
from bimix_tune.laws.optimum.groups import Group, region_of
from bimix_tune.laws.optimum.landscape import Landscape, Surface
from bimix_tune.laws.optimum.objectives import ObjectiveLike, as_objective
from bimix_tune.laws.optimum.region import Region
from bimix_tune.laws.terms import Terms
from bimix_tune.simplex import Array


@dataclass(frozen=True, eq=False)
class Problem:
    """What is sought.

    Args:
        surface: Losses by proportions.
        names: Domain names, (K,).
        targets: Target names, (V,).
        low: Lower bounds, (K,); equal to the upper one for a fixed proportion.
        high: Upper bounds, (K,).
        prior: Natural proportions, (K,).
        objective: A name, an objective or a function of the losses; see `as_objective`.
        weights: Of the targets, (V,), not negative; None: all equal.
        starts: Mixtures to begin from, (S, K), moved into the bounds.
        kl: Adds ``kl * KL(r || prior)`` to what is minimised. In units of the objective per nat
            of divergence: the same number pulls half as much where losses are twice as large.
            Olmix has 0.05 (Chen et al., arXiv 2602.12237).
        groups: Bounds on sums of proportions.
        worst: Find the worst mixture instead, to see what is at stake: the objective less the
            divergence is maximised.
        terms: The weighted mean of the losses as a sum of powers, if it is one.

    Raises:
        SpaceError: No mixture satisfies the bounds and groups.
        FitError: An argument has the wrong shape or is out of its range, or the objective is
            unknown.
    """

    surface: Surface
    names: tuple[str, ...]
    targets: tuple[str, ...]
    low: Array
    high: Array
    prior: Array
    objective: ObjectiveLike = "mean"
    weights: Array | None = None
    starts: Array | None = None
    kl: float = 0.0
    groups: tuple[Group, ...] = ()
    worst: bool = False
    terms: Terms | None = None
    region: Region = dataclasses.field(init=False)
    landscape: Landscape = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        k, v = len(self.names), len(self.targets)
        weights = np.ones(v) if self.weights is None else self.weights
        _not_negative("weights", weights, (v,))
        if not weights.sum() > 0:
            raise FitError("at least one target must have a weight > 0, but all are zero")
        _not_negative("prior", self.prior, (k,))
        if self.starts is not None:
            _not_negative("starts", self.starts, (len(self.starts), k))
        if not (math.isfinite(self.kl) and self.kl >= 0):
            raise FitError(f"kl must be a finite number >= 0, but got {self.kl!r}")
        region = region_of(self.names, self.low, self.high, self.groups)
        objective = as_objective(self.objective, self.targets)
        sign = -1.0 if self.worst else 1.0
        land = Landscape(self.surface, objective, weights, self.prior, self.kl, sign)
        object.__setattr__(self, "region", region)
        object.__setattr__(self, "landscape", land)


def _not_negative(name: str, values: Array, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise FitError(f"{name} must have shape {shape}, but have {values.shape}")
    if not (np.isfinite(values) & (values >= 0)).all():
        raise FitError(f"{name} must be finite numbers >= 0, but are {values.tolist()}")
