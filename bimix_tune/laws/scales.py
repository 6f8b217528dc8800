"""Curves of several scales (model sizes) in one fit: each size starts from the one below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bimix_tune.curves import LossCurve
from bimix_tune.errors import BimixError, FitError, did_you_mean
from bimix_tune.laws.observations import observe
from bimix_tune.laws.transported import Transported
from bimix_tune.quantities import parse_count
from bimix_tune.space import SearchSpace

FEWEST_MIXTURES = 4
"""A smaller size with fewer says too little to start from."""


def curves_at(
    curves: Sequence[LossCurve], scale: str | None
) -> tuple[list[LossCurve], list[list[LossCurve]]]:
    """The curves of one scale, and those of all smaller ones, the smallest first.

    Args:
        curves: Of any scales.
        scale: The label wanted; None: the only one, or the largest.

    Raises:
        FitError: No curve has the scale, or labels of several scales are no sizes such as 70M.
    """
    known = sorted({c.scale for c in curves})
    if scale is not None and scale not in known:
        raise FitError(
            f"no curve has the scale {scale!r}, they have {known}" + did_you_mean(scale, known)
        )
    if len(known) < 2:
        return list(curves), []
    ordered = sorted(known, key=_size)
    wanted = ordered[-1] if scale is None else scale
    below = ordered[: ordered.index(wanted)]
    return [c for c in curves if c.scale == wanted], [
        [c for c in curves if c.scale == label] for label in below
    ]


def _size(label: str) -> float:
    try:
        return parse_count(label, "scale")
    except BimixError as error:
        raise FitError(
            f"curves of several scales are fitted together from the smallest model on, so every "
            f"scale must be a size such as 70M or 1.2B, but one is {label!r}"
        ) from error


def smaller_sizes(
    sizes: Sequence[Sequence[LossCurve]], space: SearchSpace, build: Callable[..., Any]
) -> Transported | None:
    """The law of the smaller sizes, each fitted with the help of the one below; None without any.

    Args:
        sizes: Curves by size, the smallest first; sizes with few mixtures are passed over.
        space: Domains and targets.
        build: Fits a model, `bimix_tune.laws.catalogue.Builder`.
    """
    small: Transported | None = None
    for curves in sizes:
        if len({tuple(c.mixture.values()) for c in curves}) < FEWEST_MIXTURES:
            continue
        seen = observe(curves, space)
        model = build(seen, space, None, small)
        one = np.ones(len(seen.r))
        small = Transported(model, model.surface.log_loss(seen.r, one, one).mean(axis=1))
    return small
