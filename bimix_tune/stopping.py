"""When to stop a search: when what is still to be gained is not worth another run.

The gain is the expected regret of the present recommendation under the law's posterior,

    E_law [ f(recommendation) - min_r f(r) ],

which all further runs together cannot exceed on average (the expected value of perfect information;
Howard 1966, IEEE Trans. Systems Science and Cybernetics 2, 22). One run gains less than that.
"""

from __future__ import annotations

import logging

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bimix_tune.evidence import Evidence
from bimix_tune.laws import LawFit, optimise
from bimix_tune.laws.optimum.objectives import ObjectiveLike, as_objective
from bimix_tune.proposals import trust_region
from bimix_tune.sampler import BiMixSampler
from bimix_tune.space import SearchSpace
from bimix_tune.trials import lessons

logger = logging.getLogger(__name__)

DRAWS = 24
"""Laws drawn for one estimate: its standard error is about a fifth of the gain."""


def expected_gain(
    law: LawFit,
    region: SearchSpace,
    tokens: float,
    *,
    objective: ObjectiveLike = "mean",
    draws: int = DRAWS,
    seed: int = 0,
) -> float:
    """How much better than the law's optimum the best mixture is expected to be.

    Args:
        law: A fitted law.
        region: Mixtures that further runs may try.
        tokens: Training tokens to judge at.
        objective: As `bimix_tune.laws.optimise` has it.
        draws: Laws drawn from the posterior.
        seed: Of the draws.

    Returns:
        In the unit of the objective, >= 0.
    """
    rng = np.random.default_rng(seed)
    score = as_objective(objective, law.space.target_names)
    names = law.space.names

    def optimum(of: LawFit) -> np.ndarray:
        found = optimise(of, region, tokens, objective=objective, rough=True)
        return np.array([found[n] for n in names])

    chosen, gains = optimum(law), []
    for _ in range(draws):
        drawn = law.draw(rng)
        both = np.stack([chosen, optimum(drawn)])
        values = score.value(drawn.losses_at(tokens).losses(both), law.space.weights)
        gains.append(max(float(values[0] - values[1]), 0.0))
    return float(np.mean(gains))


class StopWhenSettled:
    """A callback of `Study.optimize` that stops when no run is worth its cost any more.

    Args:
        worth: The least improvement of the objective that is worth a run, in its unit.
        sampler: Knows the space, tokens and objective; None: that of the study.

    Raises:
        ValueError: ``worth`` is not above 0; or (when called) there is no `BiMixSampler`, or the
            study has several objectives.
    """

    def __init__(self, worth: float, sampler: BiMixSampler | None = None) -> None:
        if not worth > 0:
            raise ValueError(f"`worth` must be > 0, but got {worth=}")
        self._worth = worth
        self._sampler = sampler

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Stop the study if it has settled."""
        gain = self.gain(study)
        if gain is not None and gain < self._worth:
            logger.info("settled: a gain of %.3g is expected, %.3g is wanted", gain, self._worth)
            study.stop()

    def gain(self, study: Study) -> float | None:
        """The expected gain in the unit of the study's values; None during start-up."""
        sampler = self._sampler or study.sampler
        if not isinstance(sampler, BiMixSampler):
            raise ValueError(
                "StopWhenSettled needs a BiMixSampler: as the study's sampler or as `sampler`"
            )
        if len(study.directions) > 1:
            raise ValueError("StopWhenSettled needs a study with one objective")
        if sampler.law_for(study, number=-1)[0] is None:  # start-up: too little is known
            return None
        evidence, law = sampler.judged(study)
        assert law is not None
        region = trust_region(law.space, sampler.tried(study))
        _, objective, tokens = sampler.aim(evidence, law, np.random.default_rng(0))
        scaled = expected_gain(law, region, tokens, objective=objective)
        return scaled * (1.0 if evidence.measured else _unit(study, evidence))


def _unit(study: Study, evidence: Evidence) -> float:
    """Values of the study per unit of the made-up losses, which are a line in the values."""
    ends = {c.run: float(c.losses[-1, 0]) for c in evidence.curves}
    complete = lessons(study, (TrialState.COMPLETE,))
    pairs = [(ends[str(t.number)], t.value) for t in complete if str(t.number) in ends]
    made, values = np.array([p for p in pairs if p[1] is not None], dtype=float).T
    return float(np.ptp(values) / np.ptp(made)) if np.ptp(made) > 0 else 0.0
