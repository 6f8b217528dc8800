"""The study on disk is the single truth of a search; these functions read and mend it.

Every training is a trial, with its role in user attributes: the training-free baselines and the
confirmation runs are enqueued trials, the rest are the sampler's. Resuming is reading the study.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from bimix_tune.errors import MixtureError
from bimix_tune.loop.result import BASELINE, CONFIRMATION, PROPOSAL, RunRecord
from bimix_tune.loop.storage import DriverStorage
from bimix_tune.mixture import SAME_MIXTURE, Mixture
from bimix_tune.space import SearchSpace
from bimix_tune.trials import CONTINUES, ENQUEUED, HELD_BACK, PREFIX, curve_of, mixture_of

logger = logging.getLogger(__name__)

ROLE, LABEL, SEED, CAUSE, SECONDS = "role", "label", "seed", "cause", "seconds"
NOTES, PREDICTED, RETRY_OF = "notes", "predicted", "retry_of"
SETTINGS, TARGET_TOKENS, RECOMMENDED = "settings", "target_tokens", "recommended"
SLOT, STARTED, RETRIES, DRIVER = "slot", "started", "retries", "driver"
PLANNED = "planned"
"""Runs of the phase that a search is in: ``[phase, runs]``, the phase being "ended" at last."""
WITHDRAWN = "withdrawn"
"""Why a trial was given up before it was a run: it counts for nothing."""
CONTINUED = "continued"
"""Label of a run that was stopped early and goes on."""
LOST = "the driver stopped while this run was under way"
SETTLED = "settled"
"""Why a search ended before its last trial."""
Run = tuple[Mixture, str, str, int]
"""A run to be queued: its mixture, role, label and seed."""
USED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)


def requeue_lost(study: Study, lost: Sequence[FrozenTrial] | None = None) -> int:
    """Give trials that a dead driver left running successors with the same mixtures.

    A successor comes before the end of its predecessor is recorded, so that none is lost if this
    driver dies in between.

    Args:
        study: The study.
        lost: The trials; None for all that run.

    Returns:
        How many there were.
    """
    if lost is None:
        lost = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    replaced = superseded(study) if lost else set()
    for trial in lost:
        params = trial.system_attrs.get(ENQUEUED) or trial.params
        if not params:
            withdraw(study, trial.number, "the driver stopped before it had a mixture")
            continue
        if trial.number not in replaced:
            kept = {
                k: trial.user_attrs[k]
                for k in (ROLE, LABEL, SEED, HELD_BACK, CONTINUES, PREDICTED)
                if k in trial.user_attrs
            }
            study.enqueue_trial(params, user_attrs={**kept, RETRY_OF: trial.number})
        fail(study, trial.number, LOST)
    if lost:
        logger.info("%d runs that were under way are queued again", len(lost))
        flush(study)
    return len(lost)


def sign(study: Study, driver: str) -> None:
    """Let every trial that is begun from here bear the name of its driver."""
    if isinstance(study._storage, DriverStorage):
        study._storage.mark[DRIVER] = driver


def refresh(study: Study) -> None:
    """See what other drivers have written by now."""
    if isinstance(study._storage, DriverStorage):
        study._storage.refresh()


def flush(study: Study) -> None:
    """See to it that what was written is in the storage, where it is written in batches."""
    if isinstance(study._storage, DriverStorage):
        study._storage.flush()


def fail(study: Study, number: int, cause: str) -> None:
    """End a trial as failed, with the cause on record."""
    trial = study.get_trials(deepcopy=False)[number]
    # Optuna offers no public way to note something on a trial of another process.
    study._storage.set_trial_user_attr(trial._trial_id, CAUSE, cause)
    study.tell(number, state=TrialState.FAIL)


def withdraw(study: Study, number: int, reason: str) -> None:
    """End a trial that never became a run, so that it counts for nothing."""
    trial = study.get_trials(deepcopy=False)[number]
    study._storage.set_trial_user_attr(trial._trial_id, WITHDRAWN, reason)
    fail(study, number, reason)


def enqueue(study: Study, runs: Sequence[Run]) -> None:
    """Queue runs unless the study has them already (by role, label, seed and mixture).

    One that failed is queued once more each time the search is continued: its cause may have
    been mended.
    """
    for (mixture, role, label, seed), earlier in zip(runs, _trials_of(study, runs), strict=True):
        attrs: dict[str, Any] = {ROLE: role, LABEL: label, SEED: seed}
        if any(trial.state != TrialState.FAIL for trial in earlier):
            continue
        if earlier:
            attrs[RETRY_OF] = earlier[-1].number
        if role == CONFIRMATION:
            attrs[HELD_BACK] = True
        params = {PREFIX + name: share for name, share in mixture.items()}
        study.enqueue_trial(params, user_attrs=attrs)


def continue_stopped(study: Study, stopped: FrozenTrial, mixture: Mixture) -> None:
    """Queue a run that was stopped early again, with its seed, in the place of the stopped one.

    What was predicted for it stays: by now the law knows half of its curve.
    """
    attrs = {k: v for k, v in stopped.user_attrs.items() if k in (ROLE, SEED, PREDICTED)}
    params = {PREFIX + name: share for name, share in mixture.items()}
    number = stopped.number
    study.enqueue_trial(params, user_attrs={**attrs, LABEL: CONTINUED, CONTINUES: number})


def are_known(study: Study, runs: Sequence[Run]) -> bool:
    """Whether the study has these runs, whatever became of them."""
    return all(_trials_of(study, runs))


def _trials_of(study: Study, runs: Sequence[Run]) -> list[list[FrozenTrial]]:
    """For each run the trials of it that count, in order."""
    replaced, roles = superseded(study), {role for _, role, _, _ in runs}
    trials = [
        t
        for t in study.get_trials(deepcopy=False)
        if t.user_attrs.get(ROLE) in roles and t.number not in replaced
    ]
    return [[t for t in trials if _is_run(t, run)] for run in runs]


def _is_run(trial: FrozenTrial, run: Run) -> bool:
    mixture, *told = run
    params = trial.system_attrs.get(ENQUEUED, {})
    return [trial.user_attrs.get(key) for key in (ROLE, LABEL, SEED)] == told and all(
        math.isclose(params.get(PREFIX + n, math.nan), r, abs_tol=SAME_MIXTURE)
        for n, r in mixture.items()
    )


def superseded(study: Study) -> set[int]:
    """Numbers of the trials that do not count: they have a successor (see `requeue_lost`), are
    continued (unless that failed), or were withdrawn before they were runs."""
    return {n for t in study.get_trials(deepcopy=False) for n in ousted_by(t)}


def ousted_by(trial: FrozenTrial) -> list[int]:
    """Numbers of the trials that do not count because of what is noted on this one."""
    attrs, ousted = trial.user_attrs, list[int]()
    if WITHDRAWN in attrs:
        ousted.append(trial.number)
    if RETRY_OF in attrs:
        ousted.append(attrs[RETRY_OF])
    if CONTINUES in attrs and trial.state != TrialState.FAIL:
        ousted.append(attrs[CONTINUES])
    return ousted


def repeats(trial: FrozenTrial) -> bool:
    """Whether a trial stands for another one, on which budget is spent already."""
    return RETRY_OF in trial.user_attrs or CONTINUES in trial.user_attrs


def unended(study: Study, confirmation: bool) -> list[FrozenTrial]:
    """Runs of a phase that some driver has under way or still has to repeat."""
    open_ = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    return [
        t
        for t in open_
        if (t.user_attrs.get(ROLE) == CONFIRMATION) == confirmation
        and (t.state == TrialState.RUNNING or confirmation or repeats(t))
    ]


def is_queued(trial: Trial) -> bool:
    """Whether a trial came from the queue, not from the sampler."""
    return ENQUEUED in trial.storage.get_trial_system_attrs(trial._trial_id)


def waiting(study: Study) -> list[FrozenTrial]:
    """Trials in the queue."""
    return study.get_trials(deepcopy=False, states=(TrialState.WAITING,))


def records_of(
    study: Study, space: SearchSpace, ended: dict[int, RunRecord] | None = None
) -> list[RunRecord]:
    """All trials but the superseded, in the words of this project.

    Args:
        study: The study.
        space: Of its mixtures.
        ended: Remembers those that have ended between calls, by number.
    """
    gone = superseded(study)
    records = []
    for trial in study.get_trials(deepcopy=False):
        if trial.number not in gone:
            record = None if ended is None else ended.get(trial.number)
            record = record or record_of(trial, space)
            if ended is not None and trial.state.is_finished():
                ended[trial.number] = record
            records.append(record)
    return records


def record_of(trial: FrozenTrial, space: SearchSpace) -> RunRecord:
    """One trial as a record."""
    attrs = trial.user_attrs
    predicted = attrs.get(PREDICTED)
    steps = trial.intermediate_values
    fixed = trial.system_attrs.get(ENQUEUED, {})
    mixture = mixture_of(trial, space)
    if mixture is None and all(PREFIX + n in fixed for n in space.names):
        with suppress(MixtureError):  # enqueued by hand, and no mixture
            mixture = Mixture(space.names, [fixed[PREFIX + n] for n in space.names])
    return RunRecord(
        number=trial.number,
        role=attrs.get(ROLE, PROPOSAL),
        label=attrs.get(LABEL, ""),
        state=trial.state.name,
        mixture=mixture,
        curve=curve_of(trial, space),
        objective=steps[max(steps)] if steps else None,
        predicted=None if predicted is None else (predicted[0], predicted[1]),
        seed=int(attrs.get(SEED, 0)),
        seconds=float(attrs.get(SECONDS, math.nan)),
        cause=attrs.get(CAUSE, ""),
        notes=attrs.get(NOTES, {}),
        slot=attrs.get(SLOT, ""),
        started=float(attrs.get(STARTED, math.nan)),
        retries=tuple(attrs.get(RETRIES, ())),
    )


def is_prunable(attrs: Mapping[str, Any]) -> bool:
    """Whether a run, by its user attributes, may be stopped early: never one that others are
    compared with, nor one that was stopped before."""
    return attrs[ROLE] not in (BASELINE, CONFIRMATION) and CONTINUES not in attrs
