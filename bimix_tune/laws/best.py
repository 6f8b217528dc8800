"""The best mixture under a fitted law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bimix_tune.errors import FitError
from bimix_tune.laws.law_fit import LawFit, LossSurface
from bimix_tune.laws.optimum import Group, Optimum, Problem, solve
from bimix_tune.laws.optimum.exact import minimise
from bimix_tune.laws.optimum.objectives import ObjectiveLike
from bimix_tune.laws.terms import Terms
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace


def find_optimum(
    fit: LawFit,
    space: SearchSpace,
    tokens: float,
    *,
    objective: ObjectiveLike = "mean",
    kl: float = 0.0,
    groups: Sequence[Group] = (),
    worst: bool = False,
    rough: bool = False,
) -> Optimum:
    """The mixture with the least predicted objective, and how it was found.

    Args:
        fit: A fitted law; its own space gives the targets and their weights.
        space: Gives the bounds and the prior; its domains are those of the fit, in any order.
        tokens: Training tokens at which losses are judged.
        objective: "mean" (weighted), "worst" (the greatest loss of a target that counts), a
            `Regret` against reference losses, or a function of the losses by name.
        kl: Adds ``kl * KL(r || prior)``, in units of the objective per nat.
        groups: Bounds on sums of proportions.
        worst: Find the worst mixture instead, to see what is at stake.
        rough: Whether an optimum to a ten-thousandth of the objective's spread will do, where
            there is no exact one: for proposals, which scatter by more.

    Raises:
        FitError: The space has other domains than the fit, ``tokens`` is not a finite number > 0,
            or an option is out of its range.
        SpaceError: The bounds and groups leave no mixture.
    """
    order = _order(fit, space)
    plain = fit.terms(tokens)
    return solve(
        Problem(
            _Ordered(fit.losses_at(tokens), order),
            space.names,
            fit.space.target_names,
            space.low,
            space.high,
            space.prior,
            objective=objective,
            weights=fit.space.weights,
            starts=_starts(fit, space, tokens, order),
            kl=kl,
            groups=tuple(groups),
            worst=worst,
            terms=None if plain is None else _reordered(plain, order),
        ),
        rough=rough,
    )


def optimise(
    fit: LawFit,
    space: SearchSpace,
    tokens: float,
    *,
    objective: ObjectiveLike = "mean",
    kl: float = 0.0,
    groups: Sequence[Group] = (),
    rough: bool = False,
) -> Mixture:
    """The mixture of `find_optimum`, whose arguments and errors these are."""
    found = find_optimum(fit, space, tokens, objective=objective, kl=kl, groups=groups, rough=rough)
    return space.mixture(found.proportions)


@dataclass(frozen=True, eq=False)
class _Ordered:
    """A surface with the domains in another order.

    Args:
        surface: The losses.
        order: Position among the new domains of each of the surface's, (K,).
    """

    surface: LossSurface
    order: NDArray[np.int64]

    def losses(self, r: Array) -> Array:
        return self.surface.losses(r[:, self.order])

    @cached_property
    def slopes(self) -> Callable[[Array], Array] | None:
        slopes = self.surface.slopes
        if slopes is None:
            return None
        back = np.argsort(self.order)
        return lambda r: slopes(r[:, self.order])[..., back]


def _order(fit: LawFit, space: SearchSpace) -> NDArray[np.int64]:
    if set(space.names) != set(fit.space.names):
        raise FitError(
            f"the space to optimise over has domains {sorted(space.names)}, "
            f"but the law was fitted to {sorted(fit.space.names)}"
        )
    return np.array([space.names.index(name) for name in fit.space.names])


def _reordered(terms: Terms, order: NDArray[np.int64]) -> Terms:
    return terms._replace(carriers=terms.carriers[:, np.argsort(order)])


def _starts(
    fit: LawFit, space: SearchSpace, tokens: float, order: NDArray[np.int64]
) -> Array | None:
    """The exact optima of the laws in a blend, (S, K); None without any."""
    found = [
        minimise(_reordered(terms, order), space.low, space.high, space.prior)
        for terms in fit.all_terms(tokens)
    ]
    return np.stack(found) if found else None
