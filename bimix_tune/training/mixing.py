"""Which text a run reads, exactly in the proportions asked for.

A proxy run is too short to average out the noise of drawing domains at random, so sequences
are dealt by quota. And two runs of one seed must differ by their mixture alone, so the order
in which a domain's text is read is decided by the seed and the domain, never by the mixture.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bimix_tune.errors import MixtureError, did_you_mean

Integers = NDArray[np.int64]


class Quota:
    """Deals domains so that every prefix of the sequence keeps the proportions.

    With K domains of positive proportion r, after n draws the count x_i of each satisfies
    ``|x_i - n r_i| <= 1 - 1 / (2K - 2)``, which is the best bound possible (R. Tijdeman, "The
    chairman assignment problem", Discrete Mathematics 32, 1980). So the share of a domain in
    a run of n sequences is off by less than 1 / n.

    Rule: among the domains with ``(n + 1) r_i - x_i >= 1 / (2K - 2)``, take the one whose
    deadline ``(x_i + 1 - 1 / (2K - 2)) / r_i`` comes first.

    Args:
        proportions: Shares of the domains, (K,), non-negative, summing to one.
    """

    def __init__(self, proportions: Sequence[float]) -> None:
        self._open = [(i, float(r)) for i, r in enumerate(proportions) if r > 0]
        self._slack = 1.0 / (2 * len(self._open) - 2) if len(self._open) > 1 else 0.0
        self._counts = [0] * len(proportions)
        self._drawn = 0

    def draw(self, count: int) -> Integers:
        """The next domains, (count,)."""
        return np.fromiter((self._next() for _ in range(count)), dtype=np.int64, count=count)

    def _next(self) -> int:
        self._drawn += 1
        chosen, earliest = -1, float("inf")
        for i, r in self._open:
            x = self._counts[i]
            deadline = (x + 1 - self._slack) / r
            # 1e-9: a sum of proportions that is one only to rounding must not empty the list.
            if deadline < earliest and self._drawn * r - x >= self._slack - 1e-9 * self._drawn:
                chosen, earliest = i, deadline
        self._counts[chosen] += 1
        return chosen


@dataclass
class Windows:
    """The windows of one domain in random order, epoch after epoch.

    Args:
        tokens: The domain's training tokens, (N,) with N > length.
        length: Tokens of a sequence; a window has one more, the last one's target.
        seed: Seed of the run.
        name: Name of the domain; with the seed it decides the order.
    """

    tokens: NDArray[np.unsignedinteger]
    length: int
    seed: int
    name: str
    taken: int = field(default=0, init=False)
    _order: NDArray[np.uint32] | None = field(default=None, init=False)

    @property
    def count(self) -> int:
        """Windows in an epoch; they do not overlap, but for the target of the last token."""
        return (len(self.tokens) - 1) // self.length

    @property
    def epochs(self) -> float:
        """Passes over the domain so far."""
        return self.taken / self.count

    def take(self, count: int) -> Integers:
        """First positions of the next windows, (count,)."""
        parts: list[Integers] = []
        while count > 0:
            epoch, at = divmod(self.taken, self.count)
            if at == 0 or self._order is None:
                self._order = self._shuffled(epoch)
            part = self._order[at : at + count].astype(np.int64)
            parts.append(part)
            self.taken += len(part)
            count -= len(part)
        return np.concatenate(parts) * self.length if parts else np.zeros(0, np.int64)

    def _shuffled(self, epoch: int) -> NDArray[np.uint32]:
        rng = np.random.default_rng([self.seed, zlib.crc32(self.name.encode()), epoch])
        return rng.permutation(np.arange(self.count, dtype=np.uint32))


class MixedReader:
    """Batches of sequences in the proportions of a mixture.

    Args:
        tokens: Training tokens by domain, each (N_i,) with N_i > length.
        mixture: Proportions of domains of ``tokens``; a domain that is not named is not read.
        length: Tokens of a sequence.
        seed: Decides the order of windows within each domain.

    Raises:
        MixtureError: The mixture names a domain that is not there.
    """

    def __init__(
        self,
        tokens: Mapping[str, NDArray[np.unsignedinteger]],
        mixture: Mapping[str, float],
        length: int,
        seed: int,
    ) -> None:
        check_domains(mixture, tokens)
        self._names = [name for name in tokens if mixture.get(name, 0.0) > 0]
        self._windows = [Windows(tokens[n], length, seed, n) for n in self._names]
        self._quota = Quota([mixture[n] for n in self._names])
        self._offsets = np.arange(length + 1)

    def batch(self, count: int) -> Integers:
        """The next sequences with the target of their last token, (count, length + 1)."""
        domains = self._quota.draw(count)
        out = np.empty((count, len(self._offsets)), np.int64)
        for i, windows in enumerate(self._windows):
            rows = np.flatnonzero(domains == i)
            if len(rows):
                starts = windows.take(len(rows))
                out[rows] = windows.tokens[starts[:, None] + self._offsets]
        return out

    def epochs(self) -> dict[str, float]:
        """Passes over each domain so far."""
        return {n: w.epochs for n, w in zip(self._names, self._windows, strict=True)}


def check_domains(mixture: Mapping[str, float], domains: Mapping[str, object]) -> None:
    """Refuse a mixture of text that is not there.

    A corpus may hold more domains than the mixture names: validation sets, say.

    Raises:
        MixtureError: A domain is unknown.
    """
    for name in mixture:
        if name not in domains:
            raise MixtureError(
                f"the mixture names a domain {name!r} that the corpus has not"
                + did_you_mean(name, domains)
            )
