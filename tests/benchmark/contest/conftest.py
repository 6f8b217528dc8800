"""Small problems and strategies, and matches written by hand.

The classes go to Ray workers by value, hence no `cached_property`, which holds a lock.
"""

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import pytest

from bimix_tune.benchmark.contest import Match
from bimix_tune.benchmark.problems import Problem
from bimix_tune.laws.optimum.objectives import Mean
from bimix_tune.space import SearchSpace
from bimix_tune.strategies.base import Strategy
from bimix_tune.training.base import Checkpoint

NAMES = ("web", "code", "books")


@dataclass(frozen=True, eq=False)
class Bowl(Problem):
    """Losses ``base + |r - target|^2`` that fall with tokens; four checkpoints, two silent ones."""

    kind = "synthetic"
    name: str = "bowl"
    noise: float = 0.0
    space: SearchSpace = field(default_factory=lambda: SearchSpace(NAMES))
    tokens: int = 1000
    runs: int = 6
    unit: str = "nats/token"
    objective: object = field(default_factory=Mean)
    known: dict = field(default_factory=dict)
    log: list = field(default_factory=list)
    """Seeds and checkpoints given, of this process."""

    def train(self, r, seed):
        self.log.append(seed)
        shift = self.noise * np.random.default_rng(seed).normal()
        yield Checkpoint(100)
        for tokens in (250, 500, 750, 1000):
            level = 2.0 + 0.2 * (1000 / tokens - 1) + shift
            losses = level + self._excess(r)
            yield Checkpoint(tokens, dict(zip(NAMES, losses.tolist(), strict=True)))
            self.log.append(tokens)

    def _excess(self, r):
        return 2.0 * (r - np.array([0.5, 0.3, 0.2])) ** 2

    def truth(self, points):
        return 2.0 + 2.0 * ((points - np.array([0.5, 0.3, 0.2])) ** 2).mean(axis=1)

    @property
    def digest(self):
        return f"{self.name} {self.noise}"

    @property
    def best(self):
        return 2.0


@dataclass(frozen=True, eq=False)
class Pool(Bowl):
    """The same, of 40 mixtures only."""

    kind = "pool"
    name: str = "pool"
    candidates: np.ndarray = field(
        default_factory=lambda: np.random.default_rng(1).dirichlet(np.ones(3), 40)
    )

    @property
    def best(self):
        return float(self.truth(self.candidates).min())


class Random(Strategy):
    def propose(self):
        return self.rng.dirichlet(np.ones(3))


class Corner(Strategy):
    """Goes to the best mixture at once; the noise of its seed is not used."""

    def propose(self):
        return np.array([0.5, 0.3, 0.2])


class Impatient(Random):
    """Stops every other run at its second checkpoint, and says what it was asked."""

    asked = ()

    def stop(self, curve):
        self.asked = (*self.asked, tuple(curve.tokens))
        return len(self.curves) % 2 == 1 and len(curve.tokens) == 2


class Content(Random):
    """Wants three runs."""

    def propose(self):
        return super().propose() if len(self.curves) < 3 else None


class Broken(Random):
    def propose(self):
        if len(self.curves) == 2:
            raise KeyError("no luck")
        return super().propose()


class Outside(Random):
    def propose(self):
        return np.array([1.2, -0.1, -0.1])


TOYS = {
    c.__name__.lower(): c
    for c in (Bowl, Pool, Random, Corner, Impatient, Content, Broken, Outside)
}  # fmt: skip


@pytest.fixture
def toys():
    """Classes by name: a test module cannot import this one."""
    return TOYS


@pytest.fixture
def bowl():
    return Bowl()


@pytest.fixture
def pool():
    return Pool()


def match(problem="bowl", strategy="random", seed=0, regret=(0.5, 0.2, 0.4), **changes):
    """A match whose runs measured what they are, at full length."""
    count = len(regret)
    plain = Match(
        problem=problem,
        digest="d",
        strategy=strategy,
        runs=count,
        seed=seed,
        code="c",
        complete=1000.0,
        tokens=(1000.0,) * count,
        measured=tuple(regret),
        regret=tuple(regret),
        seconds=(0.5,) * count,
        cpu_seconds=(0.4,) * count,
        proportions=((0.5, 0.3, 0.2),) * count,
        best_seen=min(regret, default=float("nan")),
        own=0.1,
        law=0.05,
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture
def make_match():
    return match
