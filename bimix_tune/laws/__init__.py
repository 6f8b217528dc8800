"""Laws that predict the loss of every target from proportions and tokens, fitted to curves.

A ladder in which each rung contains the one below: `bimix` (own proportion), `transfer` (other
domains help too), and a process about it for what no law says. `auto`, the default, blends the
rungs by how well they predict mixtures left out. For targets without own domain, `additive` (a sum
over domains) and `linear` are there too. `fit` estimates a law; `optimise` finds the best mixture
under it,
by the mean loss or another objective.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bimix_tune.curves import LossCurve
from bimix_tune.errors import FitError, did_you_mean
from bimix_tune.laws import cross_validation
from bimix_tune.laws.best import find_optimum, optimise
from bimix_tune.laws.catalogue import LAWS
from bimix_tune.laws.explain import Explanation, explain
from bimix_tune.laws.held_out import HeldOut
from bimix_tune.laws.law_fit import LawFit, Model
from bimix_tune.laws.observations import Observations, observe
from bimix_tune.laws.optimum import Group, Optimum
from bimix_tune.laws.peers import PEERS
from bimix_tune.laws.scales import curves_at, smaller_sizes
from bimix_tune.laws.warnings import warnings_of
from bimix_tune.space import SearchSpace

__all__ = [
    "LAWS",
    "Explanation",
    "Group",
    "HeldOut",
    "LawFit",
    "Optimum",
    "explain",
    "find_optimum",
    "fit",
    "optimise",
]

MANY_RUNS = 48
"""With more, fits without some of the runs begin where the full one ended; with fewer that would
flatter them."""

MOST_JUDGED = 256
"""Runs that are predicted without them, evenly spread over all: they tell how large errors are."""


def fit(
    curves: Sequence[LossCurve],
    space: SearchSpace,
    law: str = "auto",
    *,
    scale: str | None = None,
    before: LawFit | None = None,
    judge: bool = True,
) -> LawFit:
    """Fit a law to all checkpoints of all curves.

    Curves of several scales (model sizes) make one fit: the law is that of one scale, and the
    smaller ones are where it starts from. Published laws take no notice of smaller ones.

    Args:
        curves: Runs, finished or not, of at least two mixtures. Targets that the space does
            not name are ignored.
        space: Domains and targets.
        law: A name in `LAWS`.
        scale: The scale that the law is for; None: the only one, or the largest.
        before: A fit of the same law to nearly the same curves, to begin with: faster.
        judge: Whether to predict every run (`MOST_JUDGED` of more) by fits without it. Without,
            there are no held-out errors and intervals are not checked against them; it takes a
            tenth of the time, or of many runs a third.

    Raises:
        FitError: There are no curves or one mixture only, a curve lacks a domain, no curve
            has a target, units differ, scales cannot be ordered, or the law is unknown.
    """
    if law not in LAWS:
        raise FitError(f"unknown law {law!r}" + did_you_mean(law, LAWS))
    build = LAWS[law]
    at_scale, smaller = curves_at(curves, scale)
    small = None if law in PEERS else smaller_sizes(smaller, space, build)
    seen = observe(at_scale, space, 2 if small is None else 1)
    start = before.model if before is not None and before.law == law else None
    model = build(seen, space, start, small)
    if not judge:
        return _finished(law, model, seen, space, HeldOut.nothing(space.weights), 1.0)
    near = model if len(seen.r) > MANY_RUNS else None
    judged = seen
    if len(seen.r) > MOST_JUDGED:
        judged = seen.only(np.linspace(0, len(seen.r) - 1, MOST_JUDGED).round().astype(int))
    left = cross_validation.leave_out(lambda part: build(part, space, near, small), judged)
    held_out = cross_validation.held_out(judged, left, space)
    factor = cross_validation.inflation(judged, left, model.noise, space)
    return _finished(law, model, seen, space, held_out, factor)


def _finished(
    law: str,
    model: Model,
    seen: Observations,
    space: SearchSpace,
    held_out: HeldOut,
    factor: float,
) -> LawFit:
    return LawFit(
        law,
        space,
        seen.unit,
        seen.reference,
        model,
        np.stack([seen.r.min(axis=0), seen.r.max(axis=0)]),
        factor,
        held_out,
        _status(law, model, seen, space, held_out),
        warnings_of(model, seen, space),
    )


def _status(
    law: str, model: Model, seen: Observations, space: SearchSpace, held_out: HeldOut
) -> str:
    text = f"{law} law from {len(seen.r)} runs ({seen.mixtures} mixtures)"
    shares = model.shares(space.weights)
    if len(shares) > 1:
        text += ": " + ", ".join(f"{w:.0%} {name}" for name, w in shares.items())
    if len(held_out.runs):
        text += f"; held-out error {held_out.mean_error:.1%}"
        rank = held_out.spearman
        text += "" if np.isnan(rank) else f", rank correlation {rank:.2f}"
    return text
