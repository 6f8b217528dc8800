"""An Optuna sampler that proposes mixtures from a fitted mixing law.

Each proposal, after a start-up design, is one step of Thompson sampling:

1. Collect the loss curves of all finished and pruned trials of the study.
2. Fit the law to them (`bimix_tune.laws.fit`); the fit is kept until a trial ends.
3. Draw one law from the fit's posterior.
4. Return the mixture that minimises the drawn law at the target token count, within bounds
   and within a trust region around the mixtures tried.

Trials that run in parallel get different draws, so no constant liar is needed. The sampler keeps
no state that the study does not hold: several processes may share one storage.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bimix_tune.curves import LossCurve
from bimix_tune.errors import FitError, MixtureError, did_you_mean
from bimix_tune.laws import LAWS, LawFit, fit, optimise
from bimix_tune.laws.optimum.objectives import ObjectiveLike
from bimix_tune.proposals import apart, best_of, startup_mixture, trust_region, with_fixed
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace, Target
from bimix_tune.trials import ENQUEUED, PREFIX, curves_of, distributions, lessons, mixture_of

logger = logging.getLogger(__name__)

OBJECTIVE = "objective"
"""Name of the only target of a study that reports no losses, just a value."""

WARM_RUNS = 48
"""With so many curves a fit begins where the last one ended, which saves half of its time; with
fewer it depends on the study alone, not on the fits before."""

TRIED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class BiMixSampler(BaseSampler):
    """Propose mixtures by the BiMix law fitted to all curves of the study.

    The objective asks for its mixture with `suggest_mixture` and records checkpoints with
    `report_losses`; without the latter the law is fitted to the objective values alone.

    Args:
        space: The mixtures allowed and the targets that judge them.
        target_tokens: Token count at which the law is minimised. None: the greatest seen.
        law: Name of the law, see `bimix_tune.laws.fit`.
        objective: What is minimised of the predicted losses, see `bimix_tune.laws.optimise`. Not
            used where a study reports no losses.
        candidates: The only mixtures to propose, each once: those that data exist for, say.
            None: all of the space.
        trust_region: Whether proposals stay near what was tried, see
            `bimix_tune.proposals.trust_region`.
        n_startup_trials: Trials with a mixture needed before the law is used; until then
            natural, uniform and space-filling random mixtures are proposed.
            None: one more than there are domains, between 4 and 16.
        independent_sampler: Samples all parameters that are no proportions. None: TPE.
        seed: Seed of the draws. A study run by ask and tell in one thread is reproducible.

    Raises:
        ValueError: The law is unknown; or (on asking) the study has several objectives, or
            maximises although its trials report losses.
        MixtureError: Enqueued proportions leave no feasible mixture, or the objective asks for
            a proportion with bounds that are not those of the space (on asking).
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        target_tokens: int | None = None,
        law: str = "auto",
        objective: ObjectiveLike = "mean",
        candidates: Sequence[Mapping[str, float]] | None = None,
        trust_region: bool = True,
        n_startup_trials: int | None = None,
        independent_sampler: BaseSampler | None = None,
        seed: int | None = None,
    ) -> None:
        if law not in LAWS:
            raise ValueError(f"unknown `law` {law!r}" + did_you_mean(law, LAWS))
        if target_tokens is not None and not target_tokens > 0:
            raise ValueError(f"`target_tokens` must be > 0, but got {target_tokens=}")
        self._space = space
        self._target_tokens = target_tokens
        self._law = law
        self._objective = objective
        self._trust_region = trust_region
        self._candidates = None if candidates is None else space.matrix(candidates)
        if n_startup_trials is None:
            n_startup_trials = min(max(len(space.names) + 1, 4), 16)
        if n_startup_trials < 0:
            raise ValueError(f"`n_startup_trials` must be >= 0, but got {n_startup_trials=}")
        self._n_startup_trials = n_startup_trials
        self._independent_sampler = independent_sampler or TPESampler(seed=seed)
        self._seed = seed if seed is not None else int(np.random.SeedSequence().entropy) % 2**63  # type: ignore[arg-type]
        self._distributions = distributions(space)
        self._lock = threading.Lock()
        self._fitted: tuple[object, LawFit | None] = (None, None)  # the curves used, and the fit

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_fitted")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _fitted=(None, None))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the proportions in a study, in the order of the space."""
        return tuple(self._distributions)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All proportions that are free, and what the independent sampler samples jointly."""
        self._raise_error_if_multi_objective(study)
        others = self._independent_sampler.infer_relative_search_space(study, trial)
        ours = {n: d for n, d in self._distributions.items() if not d.single()}
        return {**{n: d for n, d in others.items() if n not in self._distributions}, **ours}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One mixture, and the other parameters of the given space."""
        self._raise_error_if_multi_objective(study)
        rest = {n: d for n, d in search_space.items() if n not in self._distributions}
        params: dict[str, Any] = {}
        if rest:
            params = self._independent_sampler.sample_relative(study, trial, rest)
            for name in rest.keys() - params.keys():
                params[name] = self._independent_sampler.sample_independent(
                    study, trial, name, rest[name]
                )
        if len(rest) < len(search_space):
            mixture = self.propose(study, trial)
            named = zip(self._space.names, mixture.tolist(), strict=True)
            params |= {PREFIX + n: r for n, r in named if PREFIX + n in search_space}
        return params

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Parameters that are no proportions; a proportion never gets here in order."""
        self._raise_error_if_multi_objective(study)
        if param_name in self._distributions:
            raise MixtureError(
                f"the objective asks for {param_name!r} within {param_distribution}, but the "
                f"sampler's space has {self._distributions[param_name]}; use one SearchSpace for "
                "the sampler and for suggest_mixture, and no PartialFixedSampler around it"
            )
        return self._independent_sampler.sample_independent(
            study, trial, param_name, param_distribution
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on to the sampler of the other parameters."""
        self._independent_sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Pass on to the sampler of the other parameters."""
        self._independent_sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Give the sampler of the other parameters a new seed; ours depends on the trial."""
        self._independent_sampler.reseed_rng()

    def propose(self, study: Study, trial: FrozenTrial) -> Array:
        """The proportions for a trial, (K,), in the order of the space."""
        rng = np.random.default_rng([self._seed, trial.number])
        region = with_fixed(self._space, trial.system_attrs.get(ENQUEUED, {}))
        law, tokens = self.law_for(study, trial.number)
        asked = self.tried(study, trial.number, (*TRIED, TrialState.FAIL))
        pool = self._untried(asked)
        if law is None:
            return startup_mixture(region, asked, rng, pool)
        if self._trust_region:
            region = trust_region(region, self.tried(study, trial.number))
        objective = (
            self._objective if law.space.target_names == self._space.target_names else "mean"
        )
        drawn = law.draw(rng)
        if pool is not None:
            return best_of(drawn, pool, region, tokens, objective)
        return self._space.array(optimise(drawn, region, tokens, objective=objective))

    def _untried(self, asked: Array) -> Array | None:
        """The candidates not asked for so far, all of them once none is left, (M, K)."""
        pool = self._candidates
        if pool is None or not len(asked):
            return pool
        left = apart(pool, asked) > 1e-9
        return pool[left] if left.any() else pool

    def law_for(self, study: Study, number: int) -> tuple[LawFit | None, float]:
        """The law that proposes for a trial, None during start-up, and the tokens it is for."""
        if len(self.tried(study, number)) < self._n_startup_trials:
            return None, 1.0
        return self.fitted(study)

    def fitted(self, study: Study) -> tuple[LawFit | None, float]:
        """The law fitted to all finished trials of a study, and the tokens to optimise at.

        The law is None while no law can be fitted.
        """
        curves, space = curves_of(study, self._space), self._space
        if not curves:
            curves, space = _objective_curves(study, space)
        elif study.direction == StudyDirection.MAXIMIZE:
            raise ValueError(
                "losses are minimised, but the study maximises: create it with "
                "direction='minimize', or report no losses"
            )
        tokens = self._target_tokens or max((float(c.tokens[-1]) for c in curves), default=1.0)
        key = (study.study_name, [(c.run, len(c.tokens)) for c in curves])
        with self._lock:
            if self._fitted[0] != key:
                try:
                    near = self._fitted[1] if len(curves) >= WARM_RUNS else None
                    law = fit(curves, space, self._law, before=near, judge=False)
                    self._fitted = (key, law)
                except FitError as error:
                    if curves:
                        logger.warning("no law yet, the start-up design goes on: %s", error)
                    self._fitted = (key, None)
            return self._fitted[1], tokens

    def tried(
        self, study: Study, number: int | None = None, states: tuple[TrialState, ...] = TRIED
    ) -> Array:
        """Mixtures of all trials (but one) that are running or ended in order, (N, K)."""
        trials = [t for t in lessons(study, states) if t.number != number]
        mixtures = [mixture_of(t, self._space) for t in trials]
        return self._space.matrix(m for m in mixtures if m is not None)


def _objective_curves(study: Study, space: SearchSpace) -> tuple[list[LossCurve], SearchSpace]:
    """Curves of one made-up target for a study that reports objective values alone.

    Laws need positive losses that fall with quality, so the values are turned to minimisation
    and shifted to begin at their own range; a shift does not move an optimum.
    """
    only = SearchSpace(space.domains, [Target(OBJECTIVE)], space.source)
    trials = [t for t in lessons(study, (TrialState.COMPLETE,)) if np.isfinite(t.value or 0.0)]
    pairs = [(t, m) for t in trials if t.value is not None and (m := mixture_of(t, space))]
    if not pairs:
        return [], only
    sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
    values = sign * np.array([float(t.value or 0.0) for t, _ in pairs])
    positive = values - values.min() + max(float(np.ptp(values)), 1e-12)
    return [
        LossCurve(m, [1.0], [[y]], [OBJECTIVE], run=str(t.number))
        for (t, m), y in zip(pairs, positive, strict=True)
    ], only
