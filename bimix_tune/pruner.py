"""Stop a run whose predicted end cannot beat the best one known.

The prediction learns *across* runs at equal tokens: over the complete runs, the final
objective is regressed on the objective at the checkpoint in hand. Early losses rank final ones
well (rank correlation 0.9 and more from a fifth of the training on), while extrapolating each
run's own tail destroys the ranking.

The rule: stop when the probability of becoming the best is below ``(1 - confidence) / (n + 1)``,
where ``1 / (n + 1)`` is what it would be if the early value said nothing. With calibrated
probabilities p this bounds what is lost: the share of future best runs that are stopped is
``E[p; stopped] / E[p] <= 1 - confidence``. And where early and final values do not go together,
or runs are few, the prediction is wide, p stays near ``1 / (n + 1)``, and nothing is stopped.
"""

from __future__ import annotations

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from bimix_tune.simplex import Array
from bimix_tune.trials import lessons


class BiMixPruner(BasePruner):
    """Prune when the best known objective is out of reach at a stated confidence.

    Works with any sampler whose objective reports intermediate values (`report_losses` does)
    at the same steps in every trial.

    Args:
        confidence: Of the runs that would become the best, at least this share is let run.
        n_startup_trials: Complete trials needed before anything is pruned, at least 4.
        n_warmup_tokens: Nothing is pruned before this many tokens.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        confidence: float = 0.95,
        n_startup_trials: int = 6,
        n_warmup_tokens: int = 0,
    ) -> None:
        if not 0.5 < confidence < 1:
            raise ValueError(f"`confidence` must be between 0.5 and 1, but got {confidence=}")
        if n_startup_trials < 4:
            raise ValueError(f"`n_startup_trials` must be at least 4, but got {n_startup_trials=}")
        self._confidence = confidence
        self._n_startup_trials = n_startup_trials
        self._n_warmup_tokens = n_warmup_tokens

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial should stop at its last reported step."""
        step = trial.last_step
        if step is None or step < self._n_warmup_tokens:
            return False
        done = [
            t
            for t in lessons(study, (TrialState.COMPLETE,))
            if step in t.intermediate_values and t.value is not None
        ]
        if len(done) < self._n_startup_trials:
            return False
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        early = sign * np.array([t.intermediate_values[step] for t in done])
        final = sign * np.array([t.value for t in done])
        now = sign * trial.intermediate_values[step]
        return probability_best(early, final, now) <= (1 - self._confidence) / (len(done) + 1)


def probability_best(early: Array, final: Array, now: float) -> float:
    """Probability that a run ends below the least final value seen.

    Simple linear regression ``final = a + b early``; the prediction of a new point has the
    Student t distribution with n - 2 degrees of freedom, centre ``a + b now`` and variance
    ``s^2 (1 + 1/n + (now - mean)^2 / S_xx)`` (e.g. Seber & Lee, Linear Regression Analysis, 5.3.1).

    Args:
        early: Objective of complete runs at the step in hand, (n,), n >= 4, lower is better.
        final: Their final objective, (n,).
        now: Objective of the run in question at the step in hand.

    Returns:
        A probability; 1 where the regression says nothing (constant or falling).
    """
    keep = np.isfinite(early) & np.isfinite(final)
    early, final = early[keep], final[keep]
    n = len(early)
    if n < 4 or np.ptp(early) == 0 or not np.isfinite(now):
        return 1.0
    centred = early - early.mean()
    sxx = float(centred @ centred)
    slope = float(centred @ final) / sxx
    if slope <= 0:
        return 1.0
    residual = final - final.mean() - slope * centred
    ahead = now - float(early.mean())
    sd = float(np.sqrt(residual @ residual / (n - 2) * (1 + 1 / n + ahead**2 / sxx)))
    gap = float(final.mean()) + slope * ahead - float(final.min())
    if sd == 0:
        return float(gap <= 0)
    return float(stats.t.cdf(-gap / sd, n - 2))
