"""A run that was stopped early goes on once the law thinks better of it.

The pruner compares a run with others at equal tokens, when few have ended. The law, which is
fitted anew as runs end, knows its mixture too. A stopped run is queued again, with its mixture
and seed, where the law predicts that it would end below the best run there is,

    f_law(mixture, tokens) < min over complete runs of the measured objective,

and the trainer has its state, so that only its remaining tokens are trained. For each new law
it is one run, the best of them, and no run is continued twice: it is not stopped a second time.
The least of many measured values is low by luck, and the law's mean is not: so this asks for
more than it seems to.

It is rare. In 120 searches of 32 runs, on ten problems of ``bimix-tune benchmark strategies``, 13
of 2,212 stopped runs would have measured better than the best; 5 runs went on, one of them such a
one. Mean regret of the best run was 0.040 with it and 0.041 without, of the recommendation 0.049
with and without, for 0.4 % more tokens: the pruner loses so little that little can be won back.

Two wider rules were tried. The *pruner* would not stop 22 % of the stopped runs any more, but
because more runs have ended and it gives up less for each, not because they look better. 15 %
are at some time better by the law than all complete runs are by the law; continuing these doubled
the regret of the recommendation where the law is wrong (eight searches of ``non-monotone-7``).
"""

from __future__ import annotations

import logging

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bimix_tune.laws import LawFit
from bimix_tune.loop import ledger
from bimix_tune.mixture import Mixture
from bimix_tune.space import SearchSpace
from bimix_tune.training.base import Trainer
from bimix_tune.trials import CONTINUES, lessons, mixture_of

logger = logging.getLogger(__name__)


class SecondLook:
    """Looks at the stopped runs of a study whenever there is a new law.

    Args:
        study: The study.
        space: Of its mixtures.
        trainer: Nothing is continued unless it keeps states
            (`bimix_tune.training.base.KeepsStates`).
    """

    def __init__(self, study: Study, space: SearchSpace, trainer: Trainer) -> None:
        self._study, self._space, self._tokens = study, space, trainer.tokens
        self._resumes = getattr(trainer, "resumes", None)
        self._law: LawFit | None = None  # the one that was asked last

    def take(self, law: LawFit) -> None:
        """Queue the stopped run that the law thinks best of, if it would be the best of all."""
        if law is self._law or self._resumes is None:
            return
        self._law = law
        for trial, mixture in self._promising(law):
            if self._resumes(mixture, int(trial.user_attrs[ledger.SEED])):
                logger.info("run %d, which was stopped early, goes on", trial.number)
                ledger.continue_stopped(self._study, trial, mixture)
                return

    def _promising(self, law: LawFit) -> list[tuple[FrozenTrial, Mixture]]:
        """Stopped runs that are predicted to end below the best one, the best first."""
        ended = lessons(self._study, (TrialState.COMPLETE, TrialState.PRUNED))
        continued = {t.user_attrs.get(CONTINUES) for t in self._study.get_trials(deepcopy=False)}
        stopped = [
            (t, mixture)
            for t in ended
            if t.state == TrialState.PRUNED
            and t.number not in continued
            and (mixture := mixture_of(t, self._space)) is not None
        ]
        values = [t.value for t in ended if t.state == TrialState.COMPLETE and t.value is not None]
        if not stopped or not values:
            return []
        losses = law.predict([mixture for _, mixture in stopped], self._tokens)
        predicted = losses @ (self._space.weights / self._space.weights.sum())
        order = predicted.argsort(kind="stable")
        return [stopped[i] for i in order if predicted[i] < min(values)]
