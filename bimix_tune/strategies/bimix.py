"""Our strategy: `BiMixSampler` and `BiMixPruner` in an Optuna study, and what they are without
some of their parts."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import optuna
from optuna.trial import TrialState

from bimix_tune.curves import LossCurve
from bimix_tune.laws import optimise
from bimix_tune.proposals import best_of, trust_region
from bimix_tune.pruner import BiMixPruner
from bimix_tune.sampler import BiMixSampler
from bimix_tune.simplex import Array
from bimix_tune.strategies.base import Setting, Strategy
from bimix_tune.trials import report_losses, suggest_mixture


class BiMix(Strategy):
    """The whole: start-up design, blend of laws, Thompson sampling, trust region, pruner."""

    law: ClassVar[str] = "auto"
    prunes: ClassVar[bool] = True
    trusts: ClassVar[bool] = True
    random_starts: ClassVar[int] = 0

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        space, pool = setting.space, setting.candidates
        self.sampler = BiMixSampler(
            space,
            target_tokens=setting.tokens,
            law=self.law,
            objective=setting.objective,
            candidates=None if pool is None else [space.mixture(r) for r in pool],
            trust_region=self.trusts,
            n_startup_trials=self.random_starts or None,
            seed=setting.seed,
        )
        pruner = BiMixPruner() if self.prunes else optuna.pruners.NopPruner()
        self.study = optuna.create_study(sampler=self.sampler, pruner=pruner)
        self._reported = 0

    def propose(self) -> Array:
        self.trial = self.study.ask()
        self._reported = 0
        return self.setting.space.array(suggest_mixture(self.trial, self.setting.space))

    def choose(self, points: Array) -> int:
        """What the sampler proposes is one of the candidates, but for rounding."""
        if len(self.curves) < self.random_starts:
            chosen = int(self.rng.integers(len(points)))
            self.study.enqueue_trial(
                dict(zip(self.sampler.parameters, points[chosen].tolist(), strict=True))
            )
            self.propose()
            return chosen
        return int(np.abs(points - self.propose()).max(axis=1).argmin())

    def stop(self, curve: LossCurve) -> bool:
        self._report(curve)
        return self.trial.should_prune()

    def learn(self, curve: LossCurve, complete: bool) -> None:
        self._report(curve)
        if complete:
            self.study.tell(self.trial, float(self.setting.values(curve)[-1]))
        else:
            self.study.tell(self.trial, state=TrialState.PRUNED)

    def recommend(self) -> Array:
        """The optimum of the fitted law, or the best run seen while there is no law."""
        law, tokens = self.sampler.fitted(self.study)
        if law is None:
            return super().recommend()
        space, objective = self.setting.space, self.setting.objective
        region = trust_region(space, self.sampler.tried(self.study)) if self.trusts else space
        if self.setting.candidates is not None:
            return best_of(law, self.setting.candidates, region, tokens, objective)
        return space.array(optimise(law, region, tokens, objective=objective))

    def _report(self, curve: LossCurve) -> None:
        """Checkpoints that the trial does not have yet."""
        for i in range(self._reported, len(curve.tokens)):
            losses = dict(zip(curve.targets, curve.losses[i].tolist(), strict=True))
            report_losses(
                self.trial,
                int(curve.tokens[i]),
                losses,
                decayed=bool(curve.decayed[i]),
                unit=curve.unit,
                objective=self.setting.objective,
            )
        self._reported = len(curve.tokens)


class BiMixRungOne(BiMix):
    """With the plain law only: no transfer between domains, no process."""

    law = "bimix"


class BiMixNoPruner(BiMix):
    """All runs go to their end."""

    prunes = False


class BiMixNoTrustRegion(BiMix):
    """Proposals anywhere in the space."""

    trusts = False


class BiMixRandomStart(BiMix):
    """Eight random candidates in place of the start-up design, as published comparisons begin."""

    random_starts = 8
