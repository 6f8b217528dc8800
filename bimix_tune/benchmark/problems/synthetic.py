"""Problems whose losses are formulas: each has one trait that suits some models and not others.

Coefficients are drawn once for each name, uneven on purpose, so that most optima lie near faces
of the simplex. p is the part of the training that is done, in (0, 1]; r are proportions, with a
target for the first domains only where there are many. Levels fall with p as
``B p^-beta + C``; the decay takes `DECAY_GAIN` off at the end, as in real runs.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.benchmark.problems.noise import of_a_run
from bimix_tune.curves import NATS_PER_TOKEN
from bimix_tune.laws.optimum.objectives import Mean, Objective
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace, Target
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.synthetic import DECAY_GAIN

PARTS = (0.1, 0.18, 0.32, 0.56, 1.0)
"""Parts of the training after which losses are measured."""
TOKENS = 10_000_000
RUNS = {7: 60, 17: 100}
"""Runs of a search by number of domains."""
MOST_TARGETS = 8
MOST_HELPED = 0.5
"""Most of the targets that one domain is likely to help: none is all that one needs."""
NOISE = 0.003
"""Relative standard deviation of a run's losses."""


@dataclass(frozen=True, eq=False)
class Synthetic(Problem):
    """A formula of K domains and V targets, which a subclass adds; made by `Synthetic.of`."""

    kind: ClassVar[str] = "synthetic"
    trait: ClassVar[str]
    """Begins the name."""

    name: str
    space: SearchSpace
    tokens: int
    runs: int
    unit: str
    objective: Objective
    known: Mapping[str, Mixture] = field(repr=False)

    @classmethod
    def of(cls, domains: int) -> Self:
        """The problem with K domains, a key of `RUNS`."""
        names = [f"domain {i + 1}" for i in range(domains)]
        space = SearchSpace(names, cls.targets_of(names))
        known = {"uniform": space.uniform()}
        name = f"{cls.trait}-{domains}"
        return cls(name, space, TOKENS, RUNS[domains], NATS_PER_TOKEN, Mean(), known)

    @classmethod
    def targets_of(cls, domains: Sequence[str]) -> list[Target]:
        """The first domains have a target each."""
        return [Target(n, domain=n) for n in domains[:MOST_TARGETS]]

    @property
    def shape(self) -> tuple[int, int]:
        """V and K."""
        return len(self.space.targets), len(self.space.domains)

    @abstractmethod
    def losses(self, r: Array, p: float) -> Array:
        """Losses without noise or decay, (M, K) -> (M, V).

        Args:
            r: Mixtures.
            p: Part of the training that is done.
        """

    def spread(self, r: Array) -> float:
        """Relative standard deviation of the losses of a run of a mixture, (K,)."""
        return NOISE

    def generator(self) -> np.random.Generator:
        """Random numbers for the coefficients, always the same for one name."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return np.random.default_rng(list(digest))

    @cached_property
    def levels(self) -> Array:
        """B, beta and C, (3, V), in the range that fits to small proxies gave."""
        rng, v = self.generator(), self.shape[0]
        return np.array([rng.uniform(0.2, 0.5, v), rng.uniform(0.3, 0.6, v), rng.uniform(1, 3, v)])

    def level(self, p: float) -> Array:
        """Of the losses when a part of the training is done, (V,)."""
        b, beta, c = self.levels
        return np.asarray(b * p**-beta + c)

    def train(self, r: Array, seed: int) -> Iterator[Checkpoint]:
        """The formula at `PARTS` with the noise of a run."""
        rng = np.random.default_rng([seed, *np.round(r * 1e9).astype(np.int64).tolist()])
        noise = self.spread(r) * of_a_run(rng, len(PARTS), self.shape[0])
        for p, off in zip(PARTS, noise, strict=True):
            whole = p == PARTS[-1]
            losses = self.losses(r[None], p)[0] * np.exp(off) * (1 - DECAY_GAIN * whole)
            named = dict(zip(self.space.target_names, losses.tolist(), strict=True))
            yield Checkpoint(round(TOKENS * p), named, whole)

    def truth(self, points: Array) -> Array:
        losses = self.losses(points, 1.0) * (1 - DECAY_GAIN)
        return self.objective.value(losses, self.space.weights)

    @cached_property
    def digest(self) -> str:
        """Of losses and noise at some mixtures, so that it changes with the formula."""
        points = np.random.default_rng(0).dirichlet(np.full(self.shape[1], 0.5), 20)
        seen = [[f"{loss:.9g}" for loss in c.losses.values()] for c in self.train(points[0], 0)]
        truth = [f"{value:.9g}" for value in self.truth(points)]
        return self.fingerprint(self.runs, truth, seen)


class Shares(Synthetic):
    """``L_v = level_v(p) (eps_v + r_v + sum_j T_vj r_j)^-alpha_v``: BiMix with transfer.

    alpha is log-uniform: some targets gain from all that they are given, others hardly.
    """

    transfer_rate: ClassVar[float] = 0.0
    """Probability that a domain helps another target."""

    @cached_property
    def coefficients(self) -> tuple[Array, Array, Array]:
        """alpha (V,), eps (V,), and I + T (V, K)."""
        rng, (v, k) = self.generator(), self.shape
        rng.random(100)  # not those of `levels`
        alpha = np.exp(rng.uniform(np.log(0.02), np.log(0.2), v))
        helped = rng.random((v, k)) < np.minimum(self.transfer_rate * _uneven(rng, k), MOST_HELPED)
        transfer = rng.uniform(0.2, 0.6, (v, k)) * helped
        return alpha, rng.uniform(0.005, 0.02, v), self.own(transfer)

    def own(self, transfer: Array) -> Array:
        """The transfer with one for a target's own domain, (V, K)."""
        transfer[np.arange(len(transfer)), np.arange(len(transfer))] = 1.0
        return transfer

    def losses(self, r: Array, p: float) -> Array:
        alpha, floor, transfer = self.coefficients
        return np.asarray(self.level(p) * (floor + self.useful(r, p) @ transfer.T) ** -alpha)

    def useful(self, r: Array, p: float) -> Array:
        """What of the proportions teaches anything, (M, K)."""
        return r


def _uneven(rng: np.random.Generator, k: int) -> Array:
    """Popularity of domains, (K,), of mean one: a few help everywhere, most nowhere."""
    drawn = rng.permutation(np.arange(1, k + 1) ** -0.7)
    return np.asarray(drawn / drawn.mean())


class BimixRight(Shares):
    """No transfer: the law BiMix holds exactly, but for the floor eps."""

    trait = "bimix-right"


class Transfer(Shares):
    """Strong transfer: a few domains serve many targets, and the others are hardly needed."""

    trait = "transfer"
    transfer_rate = 0.45


class Saturation(Shares):
    """Domains are small: what a run reads of one beyond `caps` teaches nothing.

    ``r_j`` counts as ``min(r_j, cap_j / p)``. The kink moves with the tokens: early in a run no
    domain is used up, so early checkpoints do not show it.
    """

    trait = "saturation"
    transfer_rate = 0.25

    @cached_property
    def caps(self) -> Array:
        """Shares of the whole training that the domains can fill, (K,), in all 1.5 times it."""
        rng = self.generator()
        rng.random(1000)
        drawn = np.exp(rng.normal(0, 0.8, self.shape[1]))
        return np.asarray(1.5 * drawn / drawn.sum())

    def useful(self, r: Array, p: float) -> Array:
        return np.minimum(r, self.caps / p)


class NonMonotone(Shares):
    """Too much of a domain hurts its own target: narrow text makes for a narrow model.

    ``L_v = level_v(p) (1 + b_v ln^2((eps_v + share_v) / (eps_v + ideal_v)))``, a bowl; the ideals
    of all targets do not add up to one.
    """

    trait = "non-monotone"
    transfer_rate = 0.25

    @cached_property
    def bowls(self) -> tuple[Array, Array]:
        """b and the ideal shares, (V,)."""
        rng = self.generator()
        rng.random(1000)
        depth = np.exp(rng.uniform(np.log(0.006), np.log(0.06), self.shape[0]))
        drawn = np.exp(rng.normal(0, 0.9, self.shape[0]))
        return depth, np.asarray(1.2 * drawn / drawn.sum())

    def losses(self, r: Array, p: float) -> Array:
        _, floor, transfer = self.coefficients
        depth, ideal = self.bowls
        off = np.log((floor + r @ transfer.T) / (floor + ideal))
        return np.asarray(self.level(p) * (1 + depth * off**2))


class Exponential(Synthetic):
    """``L_v = level_v(p) + w_v exp(t_v . r)``: the data mixing law (Ye et al., arXiv 2403.16952).

    t is most negative for the own domain; other domains help a little, or hurt.
    """

    trait = "exponential"

    @cached_property
    def coefficients(self) -> tuple[Array, Array]:
        """w (V,) and t (V, K)."""
        rng, (v, k) = self.generator(), self.shape
        rng.random(100)
        rates = rng.normal(0, 0.4, (v, k)) - 0.4 * _uneven(rng, k) * (rng.random((v, k)) < 0.4)
        rates[np.arange(v), np.arange(v)] = -rng.uniform(1, 6, v)
        return np.exp(rng.uniform(np.log(0.25), np.log(1.0), v)), rates

    def losses(self, r: Array, p: float) -> Array:
        height, rates = self.coefficients
        return np.asarray(self.level(p) + height * np.exp(r @ rates.T))


class Heteroscedastic(Exponential):
    """The noise grows tenfold from the uniform mixture to a single domain, `NOISE` amid them.

    Its logarithm is linear in the entropy of the mixture.
    """

    trait = "heteroscedastic"

    def spread(self, r: Array) -> float:
        entropy = -float((r * np.log(np.maximum(r, 1e-12))).sum())
        return float(NOISE * 10 ** (0.5 - entropy / np.log(self.shape[1])))


class OutOfDomain(Shares):
    """No target has a domain of its own; all gain by transfer from a few domains each."""

    trait = "ood"
    transfer_rate = 0.3

    @classmethod
    def targets_of(cls, domains: Sequence[str]) -> list[Target]:
        return [Target(f"target {i + 1}") for i in range(5)]

    def own(self, transfer: Array) -> Array:
        return transfer


SYNTHETIC: dict[str, tuple[type[Synthetic], int]] = {
    f"{kind.trait}-{domains}": (kind, domains)
    for kind, sizes in (
        (BimixRight, (7,)),
        (Transfer, (7, 17)),
        (Saturation, (7, 17)),
        (NonMonotone, (7, 17)),
        (Exponential, (7, 17)),
        (Heteroscedastic, (7,)),
        (OutOfDomain, (17,)),
    )
    for domains in sizes
}
"""Kind and number of domains of each synthetic problem by name."""
