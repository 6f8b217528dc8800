"""Which text a run reads, exactly in the proportions asked for.

A proxy run is too short to average out the noise of drawing domains at random, so sequences
are dealt by quota. And two runs of one seed must differ by their mixture alone, so the order
in which a domain's text is read is decided by the seed and the domain, never by the mixture.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bimix_tune.errors import MixtureError, did_you_mean
from bimix_tune.space import SearchSpace

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

    def seek(self, counts: Sequence[int]) -> None:
        """Go on as if each domain had been dealt so often: the rule depends on nothing else."""
        self._counts, self._drawn = list(counts), sum(counts)


@dataclass
class Windows:
    """The windows of one domain in random order, epoch after epoch.

    Args:
        tokens: The domain's training tokens, (N,) with N > length.
        length: Tokens of a sequence; a window has one more, the last one's target.
        seed: Seed of the run.
        name: Name of the domain; with the seed it decides the order.
        limit: Tokens that may be read; None for all. Which windows they are the name alone
            decides, so that all runs of a search repeat the same text.
    """

    tokens: NDArray[np.unsignedinteger]
    length: int
    seed: int
    name: str
    limit: int | None = None
    taken: int = field(default=0, init=False)
    _order: NDArray[np.uint32] | None = field(default=None, init=False)

    @property
    def count(self) -> int:
        """Windows in an epoch, at least one; they do not overlap, but for the target of the
        last token."""
        all_of_them = (len(self.tokens) - 1) // self.length
        if self.limit is None:
            return all_of_them
        return max(1, min(all_of_them, round(self.limit / self.length)))

    @cached_property
    def _readable(self) -> NDArray[np.uint32]:
        """The windows of an epoch, (count,)."""
        windows = np.arange((len(self.tokens) - 1) // self.length, dtype=np.uint32)
        if self.count == len(windows):
            return windows
        return np.random.default_rng(self._key).permutation(windows)[: self.count]

    @property
    def _key(self) -> int:
        return zlib.crc32(self.name.encode())

    def seek(self, taken: int) -> None:
        """Go on as if so many windows had been taken."""
        self.taken, self._order = taken, None

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
        return np.random.default_rng([self.seed, self._key, epoch]).permutation(self._readable)


class Places(NamedTuple):
    """Where sequences begin.

    Args:
        domains: Numbers of the domains in `MixedReader.names`, (B,).
        starts: Positions in the training tokens of those, (B,).
    """

    domains: Integers
    starts: Integers


class MixedReader:
    """Batches of sequences in the proportions of a mixture.

    `draw` decides which ones, and `gather` reads them: whoever has the text elsewhere reads it
    there.

    Args:
        tokens: Training tokens by domain, each (N_i,) with N_i > length.
        mixture: Proportions of domains of ``tokens``; a domain that is not named is not read.
        length: Tokens of a sequence.
        seed: Decides the order of windows within each domain.
        limits: Tokens that may be read of a domain; one that is not named is read whole.

    Raises:
        MixtureError: The mixture names a domain that is not there.
    """

    def __init__(
        self,
        tokens: Mapping[str, NDArray[np.unsignedinteger]],
        mixture: Mapping[str, float],
        length: int,
        seed: int,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        check_domains(mixture, tokens)
        self.names = tuple(name for name in tokens if mixture.get(name, 0.0) > 0)
        self.length = length
        limits = limits or {}
        self._windows = [Windows(tokens[n], length, seed, n, limits.get(n)) for n in self.names]
        self._quota = Quota([mixture[n] for n in self.names])
        self._offsets = np.arange(length + 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the tokens."""
        return np.result_type(*(windows.tokens for windows in self._windows))

    def draw(self, count: int) -> Places:
        """Where the next sequences begin."""
        domains = self._quota.draw(count)
        starts = np.empty(count, np.int64)
        for i, windows in enumerate(self._windows):
            rows = np.flatnonzero(domains == i)
            starts[rows] = windows.take(len(rows))
        return Places(domains, starts)

    def gather(self, places: Places, out: NDArray[Any]) -> None:
        """Read sequences with the target of their last token into an array, (B, length + 1)."""
        for i, windows in enumerate(self._windows):
            rows = np.flatnonzero(places.domains == i)
            if len(rows):
                out[rows] = windows.tokens[places.starts[rows, None] + self._offsets]

    def batch(self, count: int) -> Integers:
        """The next sequences with the target of their last token, (count, length + 1)."""
        out = np.empty((count, self.length + 1), np.int64)
        self.gather(self.draw(count), out)
        return out

    def position(self) -> dict[str, int]:
        """Windows read of each domain: all that it takes to `seek` here."""
        return {n: w.taken for n, w in zip(self.names, self._windows, strict=True)}

    def seek(self, position: Mapping[str, int]) -> None:
        """Go on from where a reader of the same text, mixture and seed was."""
        for name, windows in zip(self.names, self._windows, strict=True):
            windows.seek(position[name])
        self._quota.seek([position[name] for name in self.names])

    def epochs(self, position: Mapping[str, int]) -> dict[str, float]:
        """Passes over what may be read of each domain, from the start to a position."""
        return {n: position[n] / w.count for n, w in zip(self.names, self._windows, strict=True)}


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


def matched_repetition(space: SearchSpace, tokens: int, target_tokens: int) -> dict[str, int]:
    """How much text proxies may read so that it repeats as it will in the real training.

    A share r of a training on T* tokens reads the N tokens of a domain ``r T* / N`` times. A proxy
    of T tokens does so as well if it reads only ``N T / T*`` of them, whatever r is ("simulated
    epoching"; small proxies that see all text once favour small domains which the real run wears
    out, "Repetition mismatch", arXiv 2606.07597).

    Args:
        space: Its domains' ``tokens`` are those that the real training will have, not those of a
            sample to train proxies on. A domain without them is left out, so it is read whole.
        tokens: Training tokens T of a proxy.
        target_tokens: Training tokens T* of the real training.

    Returns:
        Tokens by domain; for the option ``unique_tokens`` of a trainer.

    >>> from bimix_tune import Domain, SearchSpace
    >>> space = SearchSpace([Domain("web", tokens=10**12), Domain("math", tokens=10**9)])
    >>> matched_repetition(space, 10**8, 10**11)
    {'web': 1000000000, 'math': 1000000}
    """
    share = tokens / target_tokens
    return {d.name: max(1, round(d.tokens * share)) for d in space.domains if d.tokens}
