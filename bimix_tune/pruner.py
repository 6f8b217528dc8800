"""The rule of `bimix_tune.early_stopping` as an Optuna pruner."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bimix_tune.early_stopping import FEWEST_RUNS, Course, Verdict, verdict
from bimix_tune.trials import HELD_BACK, lessons


class BiMixPruner(BasePruner):
    """Prune a trial whose expected improvement on the best one is not worth its tokens.

    Works with any sampler and any objective that reports intermediate values (`report_losses`
    does). Trials need not report at the same steps. Studies of several objectives are not pruned,
    nor are trials held back to judge a search by.

    Args:
        confidence: Share of the gain over a typical complete trial that the study is to keep, in
            expectation, whenever it grows to 2.7 times its trials: what stopping may cost.
        n_startup_trials: Complete trials needed before anything is pruned, at least 5.
        n_warmup_tokens: Nothing is pruned before this many tokens.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        confidence: float = 0.9,
        n_startup_trials: int = 6,
        n_warmup_tokens: int = 0,
    ) -> None:
        if not 0.5 < confidence < 1:
            raise ValueError(f"`confidence` must be between 0.5 and 1, but got {confidence=}")
        if n_startup_trials < FEWEST_RUNS:
            raise ValueError(
                f"`n_startup_trials` must be at least {FEWEST_RUNS}, but got {n_startup_trials=}"
            )
        self._confidence = confidence
        self._n_startup_trials = n_startup_trials
        self._n_warmup_tokens = n_warmup_tokens
        self._courses: dict[Hashable, Course] = {}  # of trials that have ended

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial should stop at its last reported step."""
        return self.verdict(study, trial).stop

    def verdict(self, study: Study, trial: FrozenTrial) -> Verdict:
        """What is expected of the trial at its last reported step."""
        step = trial.last_step
        if step is None or step < self._n_warmup_tokens:
            return Verdict()
        if len(study.directions) > 1 or trial.user_attrs.get(HELD_BACK):
            return Verdict()
        sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
        ended = [
            self._course(study, other, sign)
            for other in lessons(study, (TrialState.COMPLETE, TrialState.PRUNED))
            if other.number != trial.number
        ]
        now = sign * trial.intermediate_values[step]
        return verdict(step, now, ended, self._confidence, self._n_startup_trials)

    def _course(self, study: Study, trial: FrozenTrial, sign: float) -> Course:
        """The course of a trial that has ended, read once."""
        key = study._study_id, trial._trial_id, trial.datetime_complete
        if key not in self._courses:
            self._courses[key] = _course(trial, sign)
        return self._courses[key]


def _course(trial: FrozenTrial, sign: float) -> Course:
    points = sorted(trial.intermediate_values.items())
    steps = np.array([step for step, _ in points], dtype=float)
    values = sign * np.array([value for _, value in points], dtype=float)
    whole = trial.state == TrialState.COMPLETE and trial.value is not None
    return Course(steps, values, sign * float(trial.value or 0.0) if whole else None)
