"""Other people's published laws, one file each, to be fitted by name and compared with ours.

`paper` (BiMix as printed) and `scaling-additive` know tokens; `exponential`, `log-linear` and
`lightgbm` predict the losses at the end of runs whatever the tokens asked for. None of them
knows the learning-rate decay. Each target is fitted to the runs that have it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

from bimix_tune.laws.observations import Observations
from bimix_tune.laws.peers.exponential import Exponential
from bimix_tune.laws.peers.log_linear import LogLinear
from bimix_tune.laws.peers.paper import Paper
from bimix_tune.laws.peers.regmix import LightGbm
from bimix_tune.laws.peers.scaling_additive import ScalingAdditive
from bimix_tune.laws.surface import Surface
from bimix_tune.space import SearchSpace

__all__ = ["LIBRARIES", "PEERS", "Peer", "missing_library"]


class Peer(Surface, Protocol):
    """A surface that can be fitted and read back."""

    name: ClassVar[str]

    @classmethod
    def fit(cls, seen: Observations, space: SearchSpace) -> Self:
        """The law of these runs.

        Args:
            seen: Checkpoints of at least one run for each target.
            space: The order of domains and targets.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON."""
        ...

    def parameters(self, space: SearchSpace) -> dict[str, dict[str, Any]]:
        """By target: the coefficients in the published form, those by domain as a dict.

        Args:
            space: The space of the fit.
        """
        ...

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the form of `to_dict`."""
        ...


_ALL: tuple[type[Peer], ...] = (Paper, Exponential, LogLinear, LightGbm, ScalingAdditive)

PEERS: Mapping[str, type[Peer]] = {law.name: law for law in _ALL}
"""All published laws by name."""

LIBRARIES: Mapping[str, str] = {"lightgbm": "lightgbm"}
"""The library that a law needs beyond those of the package."""


def missing_library(law: str) -> str | None:
    """The library that a law needs and that is not installed, or None."""
    library = LIBRARIES.get(law)
    return library if library and importlib.util.find_spec(library) is None else None
