"""Bounds on sums of proportions, by name, and the region that they leave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bimix_tune import simplex
from bimix_tune.errors import SpaceError, did_you_mean
from bimix_tune.laws.optimum.region import SLACK, Region
from bimix_tune.simplex import Array


@dataclass(frozen=True)
class Group:
    """Bounds on the sum of some proportions, ``low <= sum_{j in domains} r_j <= high``.

    Args:
        domains: Names of at least one domain.
        low: Least sum.
        high: Greatest sum.

    Raises:
        SpaceError: There is no domain, one repeats, or not ``0 <= low <= high <= 1``.
    """

    domains: tuple[str, ...]
    low: float = 0.0
    high: float = 1.0

    def __init__(self, domains: Iterable[str], low: float = 0.0, high: float = 1.0) -> None:
        object.__setattr__(self, "domains", (domains,) if isinstance(domains, str) else (*domains,))
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        if not self.domains or len(set(self.domains)) < len(self.domains):
            raise SpaceError(f"a group needs different domains, but got {list(self.domains)}")
        if not 0 <= low <= high <= 1:
            raise SpaceError(
                f"group {self}: bounds must satisfy 0 <= low <= high <= 1, "
                f"but got low={low!r}, high={high!r}"
            )

    def __str__(self) -> str:
        return "+".join(self.domains)


def region_of(
    names: Sequence[str], low: Array, high: Array, groups: Sequence[Group] = ()
) -> Region:
    """The mixtures within all bounds; at least one is.

    Args:
        names: Domain names, (K,).
        low: Lower bounds, (K,).
        high: Upper bounds, (K,).
        groups: Bounds on sums.

    Raises:
        SpaceError: No mixture satisfies the bounds, or a group names an unknown domain.
    """
    _check_bounds(names, low, high)
    for group in groups:
        for name in group.domains:
            if name not in names:
                raise SpaceError(
                    f"group {group} has an unknown domain {name!r}" + did_you_mean(name, names)
                )
    rows = [[float(name in group.domains) for name in names] for group in groups]
    members = np.array(rows).reshape(len(rows), len(names))
    least, most = np.array([g.low for g in groups]), np.array([g.high for g in groups])
    region = Region(low, high, members, least, most)
    if groups:
        _check_groups(region, groups)
    return region


def _check_bounds(names: Sequence[str], low: Array, high: Array) -> None:
    k = len(names)
    if low.shape != (k,) or high.shape != (k,):
        raise SpaceError(
            f"bounds must have shape ({k},), one for each domain, but have {low.shape} and "
            f"{high.shape}"
        )
    for name, least, most in zip(names, low, high, strict=True):
        if not 0 <= least <= most <= 1:
            raise SpaceError(
                f"domain {name!r}: bounds must satisfy 0 <= low <= high <= 1, "
                f"but got low={least:g}, high={most:g}"
            )
    reason = simplex.infeasibility(low, high)
    if reason:
        raise SpaceError(f"no mixture satisfies the bounds: {reason}")


def _check_groups(region: Region, groups: Sequence[Group]) -> None:
    r, lacking = region.elastic()
    if lacking.max() <= SLACK:
        return
    broken = [
        f"{group} is to be in [{group.low:g}, {group.high:g}], but is at best {total:.6g}"
        for group, total, lack in zip(groups, region.members @ r, lacking, strict=True)
        if lack > SLACK
    ]
    raise SpaceError(
        f"no mixture satisfies the bounds and all groups: {'; '.join(broken)}; widen the "
        "bounds of the group, of its domains, or of the groups that share domains with it"
    )
