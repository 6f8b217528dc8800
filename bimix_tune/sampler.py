"""An Optuna sampler that proposes mixtures from a fitted mixing law.

Each proposal, after a start-up design, is one step of Thompson sampling:

1. Collect the loss curves of all finished and pruned trials of the study
   (`bimix_tune.evidence`), and the values of its constraints.
2. Fit the law to them (`bimix_tune.laws.fit`); the fit is kept until a trial ends.
3. Draw one law from the fit's posterior and, in a study with several objectives, their weights.
4. Return the mixture that minimises the drawn law at the target token count, within bounds
   and within a trust region around the mixtures tried, at a price on predicted violations of
   constraints; or one beside it, if that has been tried or is running.

Trials that run in parallel get different draws, so no constant liar is needed. The sampler keeps
no state that the study does not hold: several processes may share one storage.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bimix_tune.errors import FitError, MixtureError, did_you_mean
from bimix_tune.evidence import Evidence, Reader, evidence_of
from bimix_tune.goals import Goal, goal_matrix
from bimix_tune.haste import Plan, Planner, think
from bimix_tune.laws import LAWS, LawFit, fit, optimise
from bimix_tune.laws.optimum.objectives import ObjectiveLike
from bimix_tune.proposals import (
    apart,
    best_of,
    nearest,
    startup_mixture,
    trust_region,
    with_fixed,
)
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace
from bimix_tune.trials import (
    ENQUEUED,
    PREFIX,
    PROPOSED,
    distributions,
    lessons,
    mixture_of,
    raise_unless_whole,
)

logger = logging.getLogger(__name__)

WARM_RUNS = 48
"""With so many curves a fit begins where the last one ended, which saves half of its time; with
fewer it depends on the study alone, not on the fits before."""

PROCESS_ONLY = ("_lock", "_turn", "_reader", "_fitted", "_planner", "_behind")
"""Attributes that are not pickled."""

TRIED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class BiMixSampler(BaseSampler):
    """Propose mixtures by the BiMix law fitted to all curves of the study.

    The objective asks for its mixture with `suggest_mixture` and records checkpoints with
    `report_losses`; without the latter the law is fitted to the objective values alone (and to
    the intermediate ones, where a trial ends with the last of them).

    Several objectives: each is a target, or a weighted mean of some. Every proposal minimises
    another weighted sum of them, so that trials fill the Pareto front::

        goals = ["code", {"web": 2, "books": 1}]

        def objective(trial):
            losses = train(suggest_mixture(trial, space))  # yours; losses: target -> loss
            report_losses(trial, tokens, losses)
            return objective_values(losses, goals)

        sampler = BiMixSampler(space, objectives=goals)
        study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)

    Constraints (`Trial.set_constraint`, or ``constraints_func`` of another sampler before): their
    values are predicted as losses are, and proposals keep a little inside the limits. The losses
    of infeasible trials teach the law as any. Limits of proportions belong into the space.

    Args:
        space: The mixtures allowed and the targets that judge them.
        objectives: What each objective of the study is: the name of a target, or weights of
            some. None: the mean loss by the weights of the space, or, with several objectives,
            one target each, in order. A study that reports no losses does without.
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
            None: half of the number of domains and one more, between 4 and 8.
        independent_sampler: Samples all parameters that are no proportions. None: TPE.
        seed: Seed of the draws. A study run by ask and tell in one thread is reproducible.

    Raises:
        SpaceError: An objective names an unknown target, or its weights are none.
        ValueError: The law is unknown; or (on asking) the study has another number of objectives,
            or maximises although its trials report losses.
        MixtureError: (On asking) enqueued proportions leave no feasible mixture, the objective
            asks for a proportion with bounds that are not those of the space, or a
            `PartialFixedSampler` fixes some proportions. (On telling) a trial asked for some
            proportions but not for all, or enqueued ones do not sum to one.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        objectives: Sequence[Goal] | None = None,
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
        if objectives is not None:
            goal_matrix(objectives, space)  # complains about what it cannot read
        self._space = space
        self._objectives = None if objectives is None else tuple(objectives)
        self._target_tokens = target_tokens
        self._law = law
        self._objective = objective
        self._trust_region = trust_region
        self._candidates = None if candidates is None else space.matrix(candidates)
        if n_startup_trials is None:
            n_startup_trials = min(max(len(space.names) // 2 + 1, 4), 8)
        if n_startup_trials < 0:
            raise ValueError(f"`n_startup_trials` must be >= 0, but got {n_startup_trials=}")
        self._n_startup_trials = n_startup_trials
        self._independent_sampler = independent_sampler or TPESampler(seed=seed)
        self._seed = seed if seed is not None else int(np.random.SeedSequence().entropy) % 2**63  # type: ignore[arg-type]
        self._distributions = distributions(space)
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._reader = Reader(space)
        self._fitted: tuple[object, LawFit | None] = (None, None)  # the curves used, and the fit
        self._planner = Planner()
        self._behind: dict[tuple[str, int], tuple[LawFit | None, float]] = {}  # the last proposal
        self.hasty = False
        """Whether proposals must be quick, for runs that are shorter than a proposal takes. They
        then rest on a law that is fitted anew now and then only (`bimix_tune.haste`)."""
        self._warned: set[str] = set()  # studies whose foreign trials the user knows of

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in PROCESS_ONLY}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _fitted=(None, None), _planner=Planner(), _behind={})
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._reader = Reader(self._space)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the proportions in a study, in the order of the space."""
        return tuple(self._distributions)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All proportions that are free, and what the independent sampler samples jointly."""
        self._check_objectives(study)
        others = self._independent_sampler.infer_relative_search_space(study, trial)
        ours = {n: d for n, d in self._distributions.items() if not d.single()}
        return {**{n: d for n, d in others.items() if n not in self._distributions}, **ours}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One mixture, and the other parameters of the given space."""
        self._check_objectives(study)
        rest = {n: d for n, d in search_space.items() if n not in self._distributions}
        params: dict[str, Any] = {}
        if rest:
            params = self._independent_sampler.sample_relative(study, trial, rest)
            for name in rest.keys() - params.keys():
                params[name] = self._independent_sampler.sample_independent(
                    study, trial, name, rest[name]
                )
        if len(rest) < len(search_space):
            free = [n for n, d in self._distributions.items() if not d.single()]
            missing = [n for n in free if n not in search_space]
            if missing:
                raise MixtureError(
                    f"the values of {missing} are fixed by a sampler around this one, which cannot "
                    "know them: fix proportions by bounds in the space, or by Study.enqueue_trial"
                )
            with self._turn:  # threads see each other's mixtures
                mixture = self.propose(study, trial)
                named = dict(zip(self._space.names, mixture.tolist(), strict=True))
                study._storage.set_trial_system_attr(trial._trial_id, PROPOSED, named)
            params |= {PREFIX + n: r for n, r in named.items() if PREFIX + n in search_space}
        return params

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Parameters that are no proportions; a proportion never gets here in order."""
        self._check_objectives(study)
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
        """Pass on to the sampler of the other parameters; complain about half a mixture.

        Raises:
            MixtureError: The trial succeeded with some proportions but not all, or with ones that
                do not sum to one and no record of what was used instead. Its state is stored.
        """
        self._independent_sampler.after_trial(study, trial, state, values)
        if state != TrialState.FAIL:
            raise_unless_whole(trial, self._space)

    def reseed_rng(self) -> None:
        """Give the sampler of the other parameters a new seed; ours depends on the trial."""
        self._independent_sampler.reseed_rng()

    def propose(self, study: Study, trial: FrozenTrial) -> Array:
        """The proportions for a trial, (K,), in the order of the space."""
        rng = np.random.default_rng([self._seed, trial.number])
        in_haste = self.hasty and ENQUEUED not in trial.system_attrs
        plan = self._planner.plan(study.study_name) if in_haste else None
        if plan is not None:
            return self._hastily(plan, study, trial.number, rng)
        region = with_fixed(self._space, trial.system_attrs.get(ENQUEUED, {}))
        evidence, law = self._law_for(study, trial.number)
        ahead = self._ahead(study, trial)  # before `asked`: it must not miss who comes between
        asked = self.tried(study, trial.number, (*TRIED, TrialState.FAIL))
        pool = self._untried(asked)
        self._behind = {(study.study_name, trial.number): (law, self._tokens(evidence))}
        if law is None:
            return startup_mixture(region, asked, rng, pool, skip=ahead)
        tried = self.tried(study, trial.number)
        if self._trust_region:
            region = trust_region(region, tried)
        if in_haste and pool is None:
            plan = self._planner.take(self._thought(study, evidence, region, rng)())
            if plan is not None:
                return self._hastily(plan, study, trial.number, rng)
        drawn, objective, tokens = self.aim(evidence, law.draw(rng), rng)
        if pool is not None:
            return best_of(drawn, pool, region, tokens, objective)
        # A price on constraints is so steep that a rough optimum would be far beside the true one.
        rough = not evidence.constrained
        found = optimise(drawn, region, tokens, objective=objective, rough=rough)
        best = self._space.array(found)
        return apart(best, tried, region, drawn, tokens, objective, rng)

    def _hastily(self, plan: Plan, study: Study, number: int, rng: np.random.Generator) -> Array:
        """A proposal from a plan, (K,); the next plan is begun when it is due."""
        self._behind = {(plan.study, number): (plan.law, plan.tokens)}
        found = plan.proposal(rng)
        if self._planner.due:
            region = self._space
            if self._trust_region:
                region = trust_region(region, self.tried(study, number))
            self._planner.renew(self._thought(study, self._evidence(study), region, rng))
        return found

    def _thought(
        self, study: Study, evidence: Evidence, region: SearchSpace, rng: np.random.Generator
    ) -> Callable[[], Plan | None]:
        """What thinks out a plan, from what has been read of the study."""
        name, tokens = study.study_name, self._tokens(evidence)
        return lambda: think(
            name, evidence, partial(self._fit, name), region, tokens, self._objective, rng
        )

    def _ahead(self, study: Study, trial: FrozenTrial) -> int:
        """How many earlier trials are being asked for at this very moment, by other processes."""
        running = lessons(study, (TrialState.RUNNING,))
        return sum(t.number < trial.number and mixture_of(t, self._space) is None for t in running)

    def _untried(self, asked: Array) -> Array | None:
        """The candidates not asked for so far, all of them once none is left, (M, K)."""
        pool = self._candidates
        if pool is None or not len(asked):
            return pool
        left = nearest(pool, asked) > 1e-9
        return pool[left] if left.any() else pool

    def law_for(self, study: Study, number: int) -> tuple[LawFit | None, float]:
        """The law that proposes for a trial, None during start-up, and the tokens it is for."""
        if known := self._behind.get((study.study_name, number)):
            return known
        plan = self._planner.plan(study.study_name) if self.hasty else None
        if plan is not None:
            return plan.law, plan.tokens
        evidence, law = self._law_for(study, number)
        return law, self._tokens(evidence)

    def fitted(self, study: Study) -> tuple[LawFit | None, float]:
        """The law fitted to all finished trials of a study, and the tokens to optimise at.

        The law is None while no law can be fitted.
        """
        evidence, law = self.judged(study)
        return law, self._tokens(evidence)

    def judged(self, study: Study) -> tuple[Evidence, LawFit | None]:
        """What a study says, and the law fitted to it; None while no law can be fitted."""
        evidence = self._evidence(study)
        return evidence, self._fit(study.study_name, evidence)

    def aim(
        self, evidence: Evidence, law: LawFit, rng: np.random.Generator
    ) -> tuple[LawFit, ObjectiveLike, float]:
        """A law with weights for one proposal, what to minimise under it, and at which tokens."""
        return *evidence.aim(law, rng, self._objective), self._tokens(evidence)

    def tried(
        self, study: Study, number: int | None = None, states: tuple[TrialState, ...] = TRIED
    ) -> Array:
        """Mixtures of all trials (but one) that are running or ended in order, (N, K)."""
        trials = [t for t in lessons(study, states) if t.number != number]
        rows = [row for t in trials if (row := self._reader.row(study, t)) is not None]
        return np.array(rows).reshape(len(rows), len(self._space.names))

    def _tokens(self, evidence: Evidence) -> float:
        return self._target_tokens or evidence.tokens

    def _law_for(self, study: Study, number: int) -> tuple[Evidence, LawFit | None]:
        evidence = self._evidence(study)
        if len(self.tried(study, number)) < self._n_startup_trials:
            return evidence, None
        return evidence, self._fit(study.study_name, evidence)

    def _evidence(self, study: Study) -> Evidence:
        """What the study says; with one warning about trials that say nothing."""
        evidence = evidence_of(study, self._space, self._objectives, self._reader)
        with self._lock:
            known = study.study_name in self._warned
            if evidence.foreign:
                self._warned.add(study.study_name)
        if evidence.foreign and not known:
            warnings.warn(
                f"{evidence.foreign} trials are not learnt from: their proportions do not sum to "
                "one, and no user attribute 'mixture' says what was trained on",
                stacklevel=2,
            )
        return evidence

    def _fit(self, study: str, evidence: Evidence) -> LawFit | None:
        """The law fitted to what a study (by name) says, None while none can be."""
        curves = evidence.taught().curves
        key = (study, [(c.run, c.losses.tobytes()) for c in curves])
        with self._lock:
            if self._fitted[0] != key:
                try:
                    near = self._fitted[1] if len(curves) >= WARM_RUNS else None
                    if near is not None and near.space != evidence.space:
                        near = None  # a constraint has come, or it is another study
                    law = fit(curves, evidence.space, self._law, before=near, judge=False)
                    self._fitted = (key, law)
                except FitError as error:
                    if curves:
                        logger.warning("no law yet, the start-up design goes on: %s", error)
                    self._fitted = (key, None)
            return self._fitted[1]

    def _check_objectives(self, study: Study) -> None:
        count = len(study.directions)
        if self._objectives is not None and len(self._objectives) != count:
            raise ValueError(
                f"the sampler has {len(self._objectives)} `objectives`, but the study {count}"
            )
