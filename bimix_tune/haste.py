"""Proposals in haste, for runs that are shorter than a proposal takes.

A `Plan` is what one proposal was thought out from: a law, and its optimum. It serves for many more,
each the best of some mixtures around that optimum under a law drawn from the posterior. When it is
old, the `Planner` has the next plan thought out in a thread beside the one that proposes, which
goes on with the old plan meanwhile: nobody waits for a fit but the first to be in haste.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from bimix_tune.evidence import Evidence
from bimix_tune.laws import LawFit, optimise
from bimix_tune.laws.optimum.objectives import ObjectiveLike
from bimix_tune.proposals import best_first, scattered
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

REST = 10.0
"""A plan serves for so many times as long as it took to think out."""

BATCH = 8
"""Proposals from one drawn law: the best of some hundred mixtures."""


@dataclass(frozen=True)
class Plan:
    """What proposals in haste rest on.

    Args:
        study: Name of the study.
        evidence: What it said.
        law: Fitted to that.
        region: Where the law is trusted.
        tokens: Token count at which it is minimised.
        objective: What is minimised, before the evidence has its say.
        centre: The law's optimum, (K,).
        until: When it is time to think again, on the monotonic clock.
        ready: Further proposals of the law drawn last, best first.
    """

    study: str
    evidence: Evidence
    law: LawFit
    region: SearchSpace
    tokens: float
    objective: ObjectiveLike
    centre: Array
    until: float
    ready: list[Array] = field(default_factory=list)

    def proposal(self, rng: np.random.Generator) -> Array:
        """One of the best of some mixtures around the law's optimum, under a drawn law, (K,)."""
        if not self.ready:
            drawn, objective = self.evidence.aim(self.law.draw(rng), rng, self.objective)
            pool = scattered(self.centre, self.region, rng)
            self.ready.extend(best_first(drawn, pool, self.tokens, objective)[:BATCH])
        return self.ready.pop(0)


def think(
    study: str,
    evidence: Evidence,
    fitted: Callable[[Evidence], LawFit | None],
    region: SearchSpace,
    tokens: float,
    objective: ObjectiveLike,
    rng: np.random.Generator,
) -> Plan | None:
    """Fit a law and find its optimum; None where no law can be fitted.

    Args:
        study, evidence, region, tokens, objective: As `Plan` has them.
        fitted: Fits a law to the evidence.
        rng: Weighs the objectives of a study that has several.
    """
    began = time.monotonic()
    law = fitted(evidence)
    if law is None:
        return None
    weighted, aim = evidence.aim(law, rng, objective)
    found = optimise(weighted, region, tokens, objective=aim, rough=True)
    until = began + (REST + 1) * (time.monotonic() - began)
    centre = region.array(found)
    return Plan(study, evidence, law, region, tokens, objective, centre, until)


class Planner:
    """Has a plan ready, and the next one thought out beside it."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._next: Future[Plan | None] | None = None

    def plan(self, study: str) -> Plan | None:
        """The latest plan for a study, by name; None: there is none, so `take` one."""
        if self._next is not None and self._next.done():
            self._plan, self._next = self._next.result(), None
        return self._plan if self._plan is not None and self._plan.study == study else None

    @property
    def due(self) -> bool:
        """Whether it is time to `renew` the plan."""
        old = self._plan is None or time.monotonic() > self._plan.until
        return old and self._next is None

    def take(self, plan: Plan | None) -> Plan | None:
        """Go on with a plan that was thought out elsewhere."""
        self._plan = plan
        return plan

    def renew(self, think: Callable[[], Plan | None]) -> None:
        """Have the next plan thought out in a thread, which must not touch the study."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="law")
        self._next = thread.submit(think)
        thread.shutdown(wait=False)  # it ends with the thought
