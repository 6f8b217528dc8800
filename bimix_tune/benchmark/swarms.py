"""Swarms: finished runs of one model scale with many mixtures, judged at equal tokens.

A data set has a swarm for each scale with enough runs, and at most one `ScalePair`: many small
runs and some big ones, to see what the small runs are worth.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from bimix_tune.curves import LossCurve
from bimix_tune.errors import ConfigError
from bimix_tune.mixture import Mixture
from bimix_tune.quantities import parse_count
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace, Target

FEWEST_RUNS = 20
"""A scale with fewer runs leaves too few to judge by, and is no swarm."""
FEWEST_SMALL, FEWEST_BIG = 15, 5
"""Runs that make a scale the small or the big one of a pair."""
MOST = 0.8
"""The judged token count is the greatest at which this share of the runs was measured."""


@dataclass(frozen=True, eq=False)
class Swarm:
    """N runs of one scale, all measured at the same number of tokens.

    Args:
        name: Of the data set and the scale.
        space: Its domains and targets; all targets weigh the same.
        tokens: The token count at which losses are judged.
        curves: The runs up to there, N.
        truth: Losses without noise where they are known, (N, V); None: the measured ones.
        known: Training-free mixtures by label, if any were noted down with the runs.
    """

    name: str
    space: SearchSpace
    tokens: float
    curves: tuple[LossCurve, ...]
    truth: Array | None = None
    known: Mapping[str, Mixture] = field(default_factory=dict)

    @property
    def scale(self) -> str:
        """Label of the model size."""
        return self.curves[0].scale

    @cached_property
    def proportions(self) -> Array:
        """(N, K)."""
        return self.space.matrix([c.mixture for c in self.curves])

    @cached_property
    def final(self) -> Array:
        """Measured losses at the end, (N, V)."""
        return np.array([[c.final()[t] for t in self.space.target_names] for c in self.curves])

    @cached_property
    def digest(self) -> str:
        """Changes with the data, so that results of other data are not taken for these."""
        parts = [self.proportions, self.final, *(c.losses for c in self.curves)]
        if self.truth is not None:
            parts.append(self.truth)
        digest = hashlib.sha256(repr(self.space.to_dict()).encode())
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class ScalePair:
    """Many runs of a small scale and some of a big one, of the same domains and targets.

    Args:
        name: Of the data set and both scales.
        small: N runs.
        big: M runs; its losses are predicted.
    """

    name: str
    small: Swarm
    big: Swarm

    @cached_property
    def digest(self) -> str:
        """Of both."""
        return hashlib.sha256((self.small.digest + self.big.digest).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class DataSet:
    """What can be measured on the runs of one data set.

    Args:
        name: Name of the data set.
        swarms: One for each scale with at least `FEWEST_RUNS` runs, the smallest first.
        pair: The smallest scale with `FEWEST_SMALL` runs and the largest with `FEWEST_BIG`.
        unpaired: Why there is no pair, or empty.
    """

    name: str
    swarms: tuple[Swarm, ...]
    pair: ScalePair | None = None
    unpaired: str = ""


def data_set(
    name: str,
    curves: Sequence[LossCurve],
    own: Mapping[str, str | None] | None = None,
    space: SearchSpace | None = None,
    known: Mapping[str, Mixture] | None = None,
) -> DataSet:
    """The swarms and the pair of scales in runs of any scales.

    If some targets are named after domains, the others are taken for parts of them and left
    out: they would count twice.

    Args:
        name: Name of the data set.
        curves: Its runs.
        own: The domain of each target; None: the domain of the same name.
        space: Domains and targets, all of which are kept; None: from the curves and ``own``.
        known: Training-free mixtures by label.
    """
    found = []
    for scale in dict.fromkeys(c.scale for c in curves):
        members = [c for c in curves if c.scale == scale]
        searched = space or _space(members[0], own)
        swarm = _at_equal_tokens(f"{name} {scale}".strip(), searched, members)
        if swarm is not None:
            found.append(dataclasses.replace(swarm, known=dict(known or {})))
    found.sort(key=lambda s: _parameters(s.scale) or 0)
    pair = _pair(name, found)
    why = "" if pair else f"no scale of {FEWEST_SMALL} runs below one of {FEWEST_BIG}"
    return DataSet(name, tuple(s for s in found if len(s.curves) >= FEWEST_RUNS), pair, why)


def _space(curve: LossCurve, own: Mapping[str, str | None] | None) -> SearchSpace:
    domains, targets = curve.mixture.names, curve.targets
    named = [t for t in targets if t in domains] or list(targets)
    owner = {t: t if t in domains else None for t in named} if own is None else own
    return SearchSpace(domains, [Target(t, domain=owner.get(t)) for t in named])


def _pair(name: str, swarms: Iterable[Swarm]) -> ScalePair | None:
    """The smallest of many runs, and the largest of some."""
    sized = [(size, s) for s in swarms if (size := _parameters(s.scale)) is not None]
    small = min((p for p in sized if len(p[1].curves) >= FEWEST_SMALL), default=None, key=_size)
    big = max((p for p in sized if len(p[1].curves) >= FEWEST_BIG), default=None, key=_size)
    if small is None or big is None or small[0] >= big[0]:
        return None
    return ScalePair(f"{name} {small[1].scale} to {big[1].scale}", small[1], big[1])


def _size(sized: tuple[int, Swarm]) -> int:
    return sized[0]


def _parameters(scale: str) -> int | None:
    """The number that a label such as 70M means; None if it is of another kind."""
    try:
        return parse_count(scale)
    except ConfigError:
        return None


def _at_equal_tokens(name: str, space: SearchSpace, curves: Sequence[LossCurve]) -> Swarm | None:
    """The runs measured at the judged token count, cut there; None if it is of too few runs.

    Where most runs have one checkpoint only, the earlier ones of the others are dropped.
    """
    measured = [_measured(c, space) for c in curves]
    counts = sorted({t for tokens in measured for t in tokens}, reverse=True)
    shared = [t for t in counts if sum(t in m for m in measured) >= MOST * len(curves)]
    if not shared:
        return None
    end = shared[0]
    cut = [until(c, end) for c, m in zip(curves, measured, strict=True) if end in m]
    if len(cut) < FEWEST_BIG:
        return None
    if np.median([len(c.tokens) for c in cut]) < 2:
        cut = [_rows(c, c.tokens == end) for c in cut]
    return Swarm(name, space, end, tuple(cut))


def _measured(curve: LossCurve, space: SearchSpace) -> set[float]:
    """Token counts at which every target was measured."""
    columns = [curve.targets.index(t) for t in space.target_names]
    complete = np.isfinite(curve.losses[:, columns]).all(axis=1)
    return set(curve.tokens[complete].tolist())


def until(curve: LossCurve, end: float) -> LossCurve:
    """The checkpoints up to a number of tokens, of which there must be one."""
    return _rows(curve, curve.tokens <= end)


def _rows(curve: LossCurve, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> LossCurve:
    return dataclasses.replace(
        curve, tokens=curve.tokens[keep], losses=curve.losses[keep], decayed=curve.decayed[keep]
    )
