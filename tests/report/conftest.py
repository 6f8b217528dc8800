"""A made-up search with everything a report can show, from a known law."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bimix_tune.curves import BITS_PER_BYTE, LossCurve
from bimix_tune.laws import fit, optimise
from bimix_tune.loop.result import (
    BASELINE,
    CONFIRMATION,
    PROPOSAL,
    RECOMMENDATION,
    STARTUP,
    RunRecord,
    SearchResult,
    compare,
)
from bimix_tune.mixture import Mixture
from bimix_tune.space import Domain, SearchSpace, Target

TOKENS = np.geomspace(1e6, 5e7, 8)


class Maker:
    """Trains on paper: losses of a product law with transfer, and noise."""

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        self.space, self.rng = space, np.random.default_rng(seed)
        v, k = len(space.target_names), len(space.names)
        self.level = self.rng.uniform(0.6, 1.6, v)
        self.alpha = self.rng.uniform(0.05, 0.2, v)
        self.transfer = self.rng.uniform(0, 0.2, (v, k))
        for row, own in zip(self.transfer, space.own, strict=True):
            if own is not None:
                row[own] = 1.0

    def curve(self, mixture: Mixture, seed: int, checkpoints: int = 8, run: str = "") -> LossCurve:
        """A run's losses: a seed's common effect is shared by all mixtures."""
        x = 0.01 + self.transfer @ self.space.array(mixture)
        s = TOKENS[:checkpoints, None]
        shared = np.random.default_rng(seed).normal(0, 0.004)
        noise = self.rng.normal(shared, 0.002, (checkpoints, len(x)))
        losses = self.level * x**-self.alpha * (40 * s**-0.35 + 0.6) * np.exp(noise)
        decayed = [i == len(TOKENS) - 1 for i in range(checkpoints)]
        names = self.space.target_names
        unit = BITS_PER_BYTE
        return LossCurve(mixture, TOKENS[:checkpoints], losses, names, decayed, seed, unit, "", run)

    def record(
        self, number: int, role: str, mixture: Mixture, label: str = "", seed: int = 0, s: int = 8
    ) -> RunRecord:
        curve = self.curve(mixture, seed, s, str(number))
        objective = float(curve.losses[-1] @ self.space.weights)
        law = None
        if role == PROPOSAL:
            expected = float(self.curve(mixture, seed).losses[-1] @ self.space.weights)
            law = (expected + self.rng.normal(0, 0.01), 0.012)
        state = "COMPLETE" if s == len(TOKENS) else "PRUNED"
        notes = {"device": "cpu", "parameters": 3_100_000, "epochs": 0.1 * number}
        return RunRecord(
            number, role, label, state, mixture, curve, objective, law, seed, 61.0, "", notes
        )


def build(space: SearchSpace, folder: Path, proposals: int = 12, law: str = "auto") -> SearchResult:
    """A search of four baselines, two startup runs, proposals, failures and a confirmation."""
    maker = Maker(space)
    k = len(space.names)
    draw = maker.rng.dirichlet(np.full(k, 1.5), size=2 + proposals)
    baselines = {
        "natural": space.natural(),
        "uniform": space.uniform(),
        "CE": space.fit_in(space.prior**0.5),
        "SE": space.fit_in(maker.rng.dirichlet(np.full(k, 2.0))),
    }
    runs = [(BASELINE, m, name, 8) for name, m in baselines.items()]
    runs += [(STARTUP, space.fit_in(r), "", 8) for r in draw[:2]]
    runs += [
        (PROPOSAL, space.fit_in(r), "", 3 if i % 4 == 3 else 8) for i, r in enumerate(draw[2:])
    ]
    records = [maker.record(i, role, m, name, 0, s) for i, (role, m, name, s) in enumerate(runs)]
    n = len(records)
    cause = "DivergedError: loss became NaN"
    records.append(RunRecord(n, PROPOSAL, "", "FAIL", None, None, None, None, 0, math.nan, cause))
    found = fit([r.curve for r in records if r.curve], space, law)
    recommendation = optimise(found, space, TOKENS[-1])
    chosen = {RECOMMENDATION: recommendation, **baselines}
    table: dict[str, dict[int, float]] = {name: {} for name in chosen}
    for seed in (1, 2):
        for name, mixture in chosen.items():
            record = maker.record(len(records), CONFIRMATION, mixture, name, seed)
            records.append(record)
            table[name][seed] = record.objective or 0.0
    return SearchResult(
        space,
        50_000_000,
        BITS_PER_BYTE,
        recommendation,
        found,
        baselines,
        tuple(records),
        compare(table),
        folder,
    )


def small_space() -> SearchSpace:
    """Four domains, one with a hostile name, and a target that is no domain."""
    domains = [
        Domain("web", 5.0, 900_000_000),
        Domain("code", 2.0, 300_000_000),
        Domain("<b>&x", 2.0, 100_000_000, 0.01, 0.6),
        Domain("books", 1.0, 50_000_000),
    ]
    targets = [Target(d.name, domain=d.name) for d in domains]
    return SearchSpace(domains, [*targets, Target("exams", 2.0)], "made up")


def large_space() -> SearchSpace:
    """17 domains and 13 targets with long names."""
    names = [f"a-rather-long-name-of-a-training-domain-{i:02d}" for i in range(17)]
    domains = [Domain(n, 1.0 + i) for i, n in enumerate(names)]
    return SearchSpace(domains, [Target(n, domain=n) for n in names[:13]])


@pytest.fixture(scope="session")
def result() -> SearchResult:
    return build(small_space(), Path("runs") / "first")


@pytest.fixture(scope="session")
def large() -> SearchResult:
    return build(large_space(), Path("runs/large"), 20)


@pytest.fixture(scope="session")
def make() -> Callable[..., SearchResult]:
    return build
