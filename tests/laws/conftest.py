"""Runs made by a known law, with the noise that runs have."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from bimix_tune.curves import LossCurve
from bimix_tune.laws import LAWS
from bimix_tune.laws.peers import PEERS, missing_library
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace, Target

END = 1e6


@dataclass(frozen=True)
class Truth:
    """A product law: ``(eps + A r^rho)^-alpha (B t^-beta + C) exp(-delta d)``, t = tokens / END.

    The last ``sums`` targets have ``1 + sum_j A_j ((eps + r_j)^-alpha - (eps + 1)^-alpha) / alpha``
    for the first factor. Written out here, so that laws are judged by something else.
    """

    space: SearchSpace
    alpha: Array
    beta: Array
    b: Array
    c: Array
    eps: Array
    delta: Array
    carriers: Array
    rho: Array
    sums: int = 0

    def losses(self, r: Array, tokens: float, decayed: bool) -> Array:
        """(M, K) -> (M, V)."""
        level = self.b * (tokens / END) ** -self.beta + self.c
        x = self.eps + (self.carriers * r[..., None, :] ** self.rho[:, None]).sum(-1)
        loss = x**-self.alpha * level
        for v in range(len(level) - self.sums, len(level)):
            alpha, eps = self.alpha[v], self.eps[v]
            returns = ((eps + r) ** -alpha - (eps + 1) ** -alpha) / alpha
            loss[..., v] = (1 + returns @ self.carriers[v]) * level[v]
        return np.asarray(loss * np.exp(-self.delta * decayed))


def truth(
    rng: np.random.Generator,
    k: int = 4,
    transfer: bool = False,
    ownless: int = 0,
    sums: bool = False,
) -> Truth:
    """A plausible law of k domains, each with a target, and ``ownless`` further targets, which
    are constant, or gain from several domains by ``transfer`` or as ``sums`` over domains.
    Returns diminish (rho < 1) if there is transfer."""
    v = k + ownless
    carriers = np.eye(v, k)
    if transfer:
        carriers += rng.uniform(0.05, 0.5, (v, k)) * (rng.random((v, k)) < 0.5)
        carriers = np.minimum(carriers, 1.0)
    carriers[k:] = rng.uniform(0.1, 1.0, (ownless, k)) if transfer else 1.0
    if sums:
        carriers[k:] = rng.uniform(0.0, 0.4 / k, (ownless, k))
    targets = [Target(f"d{i}", 1.0 + i, f"d{i}") for i in range(k)]
    targets += [Target(f"other{i}", 1.0) for i in range(ownless)]
    alpha = np.exp(rng.normal(np.log(0.12), 0.4, v))
    beta = np.exp(rng.normal(np.log(0.4), 0.2, v))
    b, c = rng.uniform(0.5, 1.5, v), rng.uniform(1.0, 2.0, v)
    eps = np.exp(rng.normal(np.log(0.02), 0.3, v))
    delta = rng.uniform(0.03, 0.08, v)
    rho = rng.uniform(0.5, 0.7, v) if transfer else np.ones(v)
    space = SearchSpace([f"d{i}" for i in range(k)], targets)
    return Truth(space, alpha, beta, b, c, eps, delta, carriers, rho, ownless * sums)


def runs(
    law: Truth,
    rng: np.random.Generator,
    count: int,
    noise: float = 0.0,
    checkpoints: int = 6,
    decayed: bool = True,
    correlation: float = 0.5,
) -> list[LossCurve]:
    """Curves of random mixtures; the noise of a run is shared by its checkpoints and correlated
    between targets."""
    v, k = law.carriers.shape
    cov = noise**2 * (correlation + (1 - correlation) * np.eye(v))
    tokens = np.geomspace(END / 20, END, checkpoints) if checkpoints > 1 else np.array([END])
    curves = []
    for number in range(count):
        r = rng.dirichlet(np.ones(k))
        if number % 3 == 0:
            r[rng.integers(k)] = 0.0
            r /= r.sum()
        flags = np.zeros(checkpoints, bool)
        flags[-1] = decayed
        error = np.exp(rng.multivariate_normal(np.zeros(v), cov))
        losses = [law.losses(r, s, bool(d)) * error for s, d in zip(tokens, flags, strict=True)]
        curves.append(
            LossCurve(
                Mixture(law.space.names, r),
                tokens,
                np.array(losses),
                law.space.target_names,
                flags,
                run=f"r{number}",
            )
        )
    return curves


def changed(curve: LossCurve, **changes: object) -> LossCurve:
    """The same run with some fields replaced."""
    fields = ("mixture", "tokens", "losses", "targets", "decayed", "seed", "unit", "scale", "run")
    return LossCurve(**{name: changes.get(name, getattr(curve, name)) for name in fields})


def cut(curve: LossCurve, count: int) -> LossCurve:
    """The run stopped after some checkpoints."""
    return changed(
        curve,
        tokens=curve.tokens[:count],
        losses=curve.losses[:count],
        decayed=curve.decayed[:count],
    )


@pytest.fixture(scope="session")
def synthetic() -> SimpleNamespace:
    """``truth(rng, ...)``, ``runs(truth, rng, ...)``, ``changed(run, ...)``, ``cut(run, count)``
    and the token count ``END``."""
    return SimpleNamespace(truth=truth, runs=runs, changed=changed, cut=cut, END=END)


def _available(name: str) -> object:
    library = missing_library(name)
    skip = pytest.mark.skipif(library is not None, reason=f"{library} is not installed")
    return pytest.param(name, marks=skip)


@pytest.fixture(params=[_available(name) for name in LAWS])
def law(request: pytest.FixtureRequest) -> str:
    """Every law by name: what tests promise with it holds for all of them."""
    return str(request.param)


@pytest.fixture(params=[name for name in LAWS if name not in PEERS])
def our_law(request: pytest.FixtureRequest) -> str:
    """Every law that has a posterior, by name."""
    return str(request.param)


@pytest.fixture(params=[_available(name) for name in PEERS])
def published_law(request: pytest.FixtureRequest) -> str:
    """Every published law by name."""
    return str(request.param)
