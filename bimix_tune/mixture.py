"""A mixture: which share of the training tokens comes from which domain.

Names travel with the numbers, and what is not on the simplex is refused, so whatever mixture
exists may be trained on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from bimix_tune import simplex
from bimix_tune.errors import MixtureError
from bimix_tune.simplex import Array

SAME_MIXTURE = 1e-9
"""Greatest distance of two mixtures that count as one: rounding on the way through a trial."""


class Mixture(Mapping[str, float]):
    """Shares of the training tokens by domain; they sum to one.

    Args:
        names: Domain names, (K,).
        proportions: Shares of the training tokens, (K,), in [0, 1], summing to one.

    Raises:
        MixtureError: Names repeat, a share is negative or not finite, or the sum is off by
            more than 1e-6. Nothing is renormalised silently: see `Mixture.normalised`.

    >>> m = Mixture(["web", "code"], [0.75, 0.25])
    >>> m["code"]
    0.25
    """

    __slots__ = ("_index", "names", "proportions")

    names: tuple[str, ...]
    proportions: Array

    def __init__(self, names: Iterable[str], proportions: Iterable[float]) -> None:
        names = tuple(names)
        values = np.array(list(proportions), dtype=float)
        if values.shape != (len(names),):
            raise MixtureError(f"{len(names)} domain names but {values.size} proportions")
        if len(set(names)) != len(names):
            raise MixtureError(f"domain names must differ from each other, but got {names}")
        bad = [n for n, v in zip(names, values, strict=True) if not (math.isfinite(v) and v >= 0)]
        if bad:
            raise MixtureError(
                f"the proportion of {bad[0]!r} must be a finite number >= 0, "
                f"but got {values[names.index(bad[0])]!r}"
            )
        total = float(values.sum())
        if abs(total - 1.0) > simplex.SUM_TOLERANCE:
            raise MixtureError(
                f"proportions must sum to 1, but sum to {total:.9g}; divide by the sum, "
                "or use Mixture.normalised if that is what you mean"
            )
        values.setflags(write=False)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "proportions", values)
        object.__setattr__(self, "_index", {n: i for i, n in enumerate(names)})

    @classmethod
    def normalised(cls, weights: Mapping[str, float]) -> Mixture:
        """The mixture proportional to non-negative weights."""
        total = float(sum(weights.values()))
        if not (math.isfinite(total) and total > 0):
            raise MixtureError(f"weights must have a positive finite sum, but it is {total!r}")
        return cls(weights.keys(), [v / total for v in weights.values()])

    def distance(self, other: Mixture) -> float:
        """Greatest absolute difference of a proportion.

        Args:
            other: A mixture of the same domains, in any order.

        Raises:
            MixtureError: The domains differ.

        >>> Mixture(["web", "code"], [0.75, 0.25]).distance(Mixture(["code", "web"], [0.5, 0.5]))
        0.25
        """
        if self.keys() != other.keys():
            raise MixtureError(
                "only mixtures of the same domains have a distance, but these differ in "
                f"{sorted(self.keys() ^ other.keys())}"
            )
        return max(abs(r - other[name]) for name, r in self.items())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Mixture is immutable, cannot set {name!r}")

    def __reduce__(self) -> tuple[type[Mixture], tuple[tuple[str, ...], list[float]]]:
        return (Mixture, (self.names, self.proportions.tolist()))

    def __getitem__(self, name: str) -> float:
        return float(self.proportions[self._index[name]])  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        shares = ", ".join(f"{n}: {v:.4f}" for n, v in self.items())
        return f"Mixture({shares})"
