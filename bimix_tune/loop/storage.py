"""The storage of a study as a driver wants it: read from memory, written once a round.

A driver looks at all trials a dozen times for each proposal, and writes some thirty values of each
trial. `DriverStorage` stands between Optuna and the storage proper and

- keeps a copy of the trials in memory, brought up to date about once a second;
- gathers what is written to the driver's own running trials until `DriverStorage.flush`, which
  writes it in one transaction (`bimix_tune.loop.bulk`);
- waits, and tries again, while the storage does not answer. Trainings go on meanwhile.

What only the storage can decide is asked of it at once: numbers of new trials, and who gets a
trial of the queue.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import time
from collections.abc import Callable, Container, Sequence
from datetime import datetime
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bimix_tune.errors import ExecutorError
from bimix_tune.loop import bulk
from bimix_tune.loop.bulk import Pending

logger = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = 300.0
"""Seconds that a storage may not answer before the search stops."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
REFRESH_SECONDS = 1.0
"""What others write is seen so much later at most."""
CHUNK = 250
"""Trials read at once."""


class DriverStorage(BaseStorage):
    """One driver's view of one study.

    Args:
        backend: Any storage of Optuna's.
        wait: Called with the seconds to wait before a storage that failed is tried again.
    """

    def __init__(self, backend: BaseStorage, *, wait: Callable[[float], None] = time.sleep) -> None:
        inner = getattr(backend, "_backend", None)  # Optuna's cache would be a second copy
        self.backend: Any = inner if isinstance(inner, RDBStorage) else backend
        self._wait = wait
        self.patience = PATIENCE
        self.written = -float("inf")
        """When `flush` last wrote something, on the monotonic clock."""
        self.mark: dict[str, Any] = {}
        """User attributes of every trial that this driver begins."""
        self._study_id: int | None = None
        self._trials: dict[int, FrozenTrial] = {}  # by number, in order
        self._numbers: dict[int, int] = {}  # by id
        self._open: set[int] = set()  # numbers of the trials that have not ended
        self._mine: set[int] = set()  # ids of the running ones that only this driver writes to
        self._pending: dict[int, Pending] = {}
        self._read_to = -1  # greatest id of a trial that was there when all were read last
        self._reserved: list[FrozenTrial] = []
        self._distributions: dict[str, BaseDistribution] = {}
        self._constant: dict[tuple[str, int], Any] = {}
        self._read_at = -float("inf")

    # In batches

    def flush(self, create: int = 0) -> None:
        """Write what has been gathered; and add trials, which the next asks will get.

        Args:
            create: How many trials to add.

        Raises:
            ExecutorError: The storage has not answered for `PATIENCE` seconds.
        """
        if (self._pending or create) and self._study_id is not None:
            added, gone = self._patiently(lambda: self._write(create))
            self._reserved += added
            for trial_id in gone:  # ended by another driver, which took this one for dead
                self._take(self._trial(trial_id))
            self._pending.clear()
            self.written = time.monotonic()
            self._mine &= {self._trials[n]._trial_id for n in self._open}

    @property
    def unwritten(self) -> bool:
        """Whether there is something for `flush` to write."""
        return bool(self._pending)

    def refresh(self) -> None:
        """See what others have written by now."""
        self._read(self._study_id)

    def owns(self, number: int) -> bool:
        """Whether a trial is running and has not been taken away by another driver."""
        trial = self._trials.get(number)
        return trial is not None and trial._trial_id in self._mine

    @property
    def reserved(self) -> list[FrozenTrial]:
        """Trials added that have not been asked for yet."""
        return self._reserved

    def _write(self, create: int) -> tuple[list[FrozenTrial], set[int]]:
        assert self._study_id is not None
        if isinstance(self.backend, RDBStorage):
            return bulk.write(self.backend, self._study_id, self._pending, create, self.mark)
        gone = {i for i, what in self._pending.items() if not self._write_one(i, what)}
        added = []
        for _ in range(create):
            trial_id = self.backend.create_new_trial(self._study_id)
            for key, value in self.mark.items():
                self.backend.set_trial_user_attr(trial_id, key, value)
            added.append(self.backend.get_trial(trial_id))
        return added, gone

    def _write_one(self, trial_id: int, what: Pending) -> bool:
        """One trial by Optuna's own methods; whether it was still open."""
        storage = self.backend
        try:
            for name, (value, distribution) in what.params.items():
                storage.set_trial_param(trial_id, name, value, distribution)
            for key, value in what.user_attrs.items():
                storage.set_trial_user_attr(trial_id, key, value)
            for key, value in what.system_attrs.items():
                storage.set_trial_system_attr(trial_id, key, value)
            for step, value in what.steps.items():
                storage.set_trial_intermediate_value(trial_id, step, value)
            if what.end is not None:
                storage.set_trial_state_values(trial_id, *what.end)
        except UpdateFinishedTrialError:
            return False
        return True

    def _patiently(self, act: Callable[[], T]) -> T:
        """Do something with the storage, again and again while it does not answer."""
        began, pause = time.monotonic(), FIRST_PAUSE
        while True:
            try:
                return act()
            except Exception as error:
                if not passing(error):
                    raise
                cause = str(error.__cause__ or error).splitlines()[0]
                if time.monotonic() - began >= self.patience:
                    waited, self.patience = self.patience, 0.0
                    raise ExecutorError(
                        f"the storage did not answer for {waited:g} s ({cause}); what it holds is "
                        "kept: the same command continues"
                    ) from error
                logger.warning("the storage does not answer, trying again: %s", cause)
                self._wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    # The copy

    def _read(self, study_id: int | None) -> None:
        """Bring the copy up to date."""
        if study_id is None:
            return
        if study_id != self._study_id:
            self._study_id, self._read_at = study_id, -float("inf")
            self._trials, self._numbers, self._read_to = {}, {}, -1
            self._open, self._mine, self._pending = set(), set(), {}
        self._patiently(self._read_changed)
        self._read_at = time.monotonic()

    def _read_changed(self) -> None:
        assert self._study_id is not None
        own = {t._trial_id for t in self._reserved} | self._mine | self._pending.keys()
        if not isinstance(self.backend, RDBStorage):
            for trial in self.backend.get_all_trials(self._study_id, deepcopy=False):
                number = trial.number
                if (number not in self._trials or number in self._open) and (
                    trial._trial_id not in own
                ):
                    self._take(trial)
            return
        # Not from the greatest id known: that may be of an own trial, begun after another's.
        new = self._new_ids(self._read_to)
        wanted = {self._trials[n]._trial_id for n in self._open}.union(new) - own
        wanted -= {i for i in new if i in self._numbers and self._numbers[i] not in self._open}
        ids = sorted(wanted)
        for start in range(0, len(ids), CHUNK):
            for trial in bulk.read(self.backend, ids[start : start + CHUNK]):
                self._take(trial)
        self._read_to = max([self._read_to, *new])

    def _new_ids(self, last: int) -> list[int]:
        """Ids of the trials after the last one known."""
        import sqlalchemy
        from optuna.storages._rdb import models

        trials = models.TrialModel.__table__
        query = sqlalchemy.select(trials.c.trial_id).where(
            trials.c.study_id == self._study_id, trials.c.trial_id > last
        )
        with self.backend.engine.connect() as connection:
            return [row[0] for row in connection.execute(query)]

    def _take(self, trial: FrozenTrial) -> FrozenTrial:
        """Put a trial into the copy, sharing its distributions with the others."""
        trial = copy.copy(trial)
        trial.distributions = {
            n: known if (known := self._distributions.setdefault(n, d)) == d else d
            for n, d in trial.distributions.items()
        }
        return self._put(trial)

    def _trial(self, trial_id: int) -> FrozenTrial:
        """A trial as the storage has it."""
        trial: FrozenTrial = self._patiently(lambda: self.backend.get_trial(trial_id))
        return trial

    def _put(self, trial: FrozenTrial) -> FrozenTrial:
        number = trial.number
        late = number not in self._trials and self._trials and number < next(reversed(self._trials))
        self._trials[number] = trial
        if late:
            self._trials = dict(sorted(self._trials.items()))
        self._numbers[trial._trial_id] = number
        (self._open.discard if trial.state.is_finished() else self._open.add)(number)
        if trial.state != TrialState.RUNNING:
            self._mine.discard(trial._trial_id)
        return trial

    def _changed(self, trial_id: int) -> tuple[FrozenTrial, Pending]:
        """The trial, replaced by a copy that may be changed, and what is to be written of it."""
        trial = self._trials[self._numbers[trial_id]]
        self.check_trial_is_updatable(trial_id, trial.state)
        trial = copy.copy(trial)
        self._trials[trial.number] = trial
        return trial, self._pending.setdefault(trial_id, Pending())

    # What Optuna asks for, of trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self._of(study_id)
        if template_trial is None:
            if not self._reserved:
                self.flush(create=1)
            trial = self._put(self._reserved.pop(0))
            self._mine.add(trial._trial_id)
            return trial._trial_id
        self.flush()
        new = self._patiently(lambda: self.backend.create_new_trial(study_id, template_trial))
        self._take(self._trial(new))
        return int(new)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        trial, pending = self._changed(trial_id)
        known = self._distributions.setdefault(param_name, distribution)
        distribution = known if known == distribution else distribution
        value = distribution.to_external_repr(param_value_internal)
        trial.params = {**trial.params, param_name: value}
        trial.distributions = {**trial.distributions, param_name: distribution}
        pending.params[param_name] = param_value_internal, distribution

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        if not state.is_finished():
            return self._begin(trial_id, state)
        trial, pending = self._changed(trial_id)
        trial.state, trial.datetime_complete = state, datetime.now()
        trial.values = None if values is None else list(values)
        pending.end = state, values
        self._put(trial)
        return True

    def _begin(self, trial_id: int, state: TrialState) -> bool:
        """Take a trial out of the queue, unless another driver has it."""
        self.flush()
        done = self._patiently(lambda: self._take_out(trial_id, state))
        if done:
            trial = self._take(self._trial(trial_id))
            self._mine.add(trial._trial_id)
            for key, value in self.mark.items():
                self.set_trial_user_attr(trial_id, key, value)
        return done

    def _take_out(self, trial_id: int, state: TrialState) -> bool:
        if isinstance(self.backend, RDBStorage):
            return bulk.begin(self.backend, trial_id)
        return bool(self.backend.set_trial_state_values(trial_id, state))

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        trial, pending = self._changed(trial_id)
        trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}
        pending.steps[step] = intermediate_value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial, pending = self._changed(trial_id)
        value = bulk.parsed(json.dumps(value))
        trial.user_attrs = {**trial.user_attrs, sys.intern(key): value}
        pending.user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial, pending = self._changed(trial_id)
        value = bulk.parsed(json.dumps(value))
        trial.system_attrs = {**trial.system_attrs, sys.intern(key): value}
        pending.system_attrs[key] = value

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id not in self._numbers:
            self._read(self._study_id)
        if trial_id not in self._numbers:
            raise KeyError(f"no trial with id {trial_id} in the study")
        trial = copy.copy(self._trials[self._numbers[trial_id]])  # Optuna writes into its own
        trial.params, trial.distributions = dict(trial.params), dict(trial.distributions)
        trial.user_attrs, trial.system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
        trial.intermediate_values = dict(trial.intermediate_values)
        return trial

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        self._of(study_id)
        if trial_number not in self._trials:
            self._read(study_id)
        if trial_number not in self._trials:
            raise KeyError(f"no trial with number {trial_number} in the study")
        return self._trials[trial_number]._trial_id

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        self._of(study_id)
        if time.monotonic() - self._read_at > REFRESH_SECONDS and self.patience:
            self._read(study_id)
        if states is not None and not any(s in states for s in TrialState if s.is_finished()):
            found = [self._trials[number] for number in sorted(self._open)]
        else:
            found = list(self._trials.values())
        trials = found if states is None else [t for t in found if t.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _of(self, study_id: int) -> None:
        if study_id != self._study_id:
            self._read(study_id)

    # What Optuna asks for, of studies

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        return int(self.backend.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        self.backend.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._patiently(lambda: self.backend.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._patiently(lambda: self.backend.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        return int(self.backend.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        return str(self._of_study("name", self.backend.get_study_name_from_id, study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._of_study("directions", self.backend.get_study_directions, study_id)

    def _of_study(self, what: str, read: Callable[[int], T], study_id: int) -> T:
        """What does not change of a study, read once."""
        if (what, study_id) not in self._constant:
            self._constant[what, study_id] = self._patiently(lambda: read(study_id))
        return self._constant[what, study_id]  # type: ignore[no-any-return]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._patiently(lambda: self.backend.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._patiently(lambda: self.backend.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[Any]:
        return list(self.backend.get_all_studies())


def passing(error: BaseException) -> bool:
    """Whether an error of a storage may pass: it is not there, is locked, or its disk is full."""
    import sqlalchemy.exc

    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    kinds = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)
    return isinstance(error, (*kinds, sqlalchemy.exc.TimeoutError, OSError))
