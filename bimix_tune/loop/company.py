"""Several drivers on one study: which of them live, and which one leads.

Each driver writes a sign of life into the study every few seconds, and a last one when it ends in
order; one alone does so too, for those who watch. A driver that has not for `GRACE_SECONDS` is
dead: its runs are queued again, for any driver to take. What must happen once (queueing baselines,
lost runs and the confirmation) is done by the leader: the living driver that leads already, else
the one that began first. Optuna's own heartbeats work with `Study.optimize` only, not with ask
and tell.

Clocks of the machines must agree to within half of the grace.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from bimix_tune.loop.ledger import DRIVER, refresh
from bimix_tune.loop.storage import passing

logger = logging.getLogger(__name__)

PREFIX = "driver:"
"""Of the study's user attributes with signs of life: ``[seconds since 1970, leads]``; the last one
of a driver that ended in order has None for ``leads``."""
BEAT_SECONDS = 10.0
GRACE_SECONDS = 60.0
SETTLE_SECONDS = 2.0
"""Drivers that begin at one moment see each other after so long."""


class Company:
    """This driver among those of its study.

    Args:
        study: The study.
        alone: Whether there can be no other driver; then this one leads.
    """

    def __init__(self, study: Study, alone: bool) -> None:
        self.id = f"{datetime.now(UTC):%Y%m%d-%H%M%S.%f}-{socket.gethostname()}-{os.getpid()}"
        self.id += f"-{uuid4().hex[:6]}"  # ids sort by the time of beginning
        self.alone = alone
        self._study = study
        self._leads = alone
        self._began = self._looked = -float("inf")
        self._over = threading.Event()

    @contextmanager
    def present(self) -> Iterator[None]:
        """Give signs of life while this is open, also while a training keeps the driver busy."""
        self._began = time.monotonic()
        self._study.set_user_attr(PREFIX + self.id, [time.time(), self.alone])
        thread = threading.Thread(target=self._beat, name="signs of life", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self._say(None)

    def leads(self) -> bool:
        """Whether this driver does what must happen once."""
        now = time.monotonic()
        if not self.alone and now - self._looked > 1.0 and now - self._began > SETTLE_SECONDS:
            self._looked = now
            others = {i: leads for i, leads in self.living().items() if i != self.id}
            leaders = [i for i, leads in others.items() if leads]
            first = min([self.id, *(leaders if self._leads or leaders else others)]) == self.id
            leads = first and (self._leads or not leaders)
            if leads != self._leads:
                self._leads = leads
                self._study.set_user_attr(PREFIX + self.id, [time.time(), leads])
        return self._leads

    def living(self) -> dict[str, bool]:
        """The drivers that live, by id, and whether they lead."""
        found = {self.id: self._leads}
        for driver, (at, leads) in _signs(self._study).items():
            if leads is not None and time.time() - at < GRACE_SECONDS:
                found.setdefault(driver, leads)
        return found

    def lost(self) -> list[FrozenTrial]:
        """Running trials of drivers that live no more."""
        living = self.living()
        long_ago = datetime.now().timestamp() - GRACE_SECONDS

        def is_lost(trial: FrozenTrial) -> bool:
            driver = trial.user_attrs.get(DRIVER)
            if driver is not None:
                return driver not in living
            # Between its first moment and its first attribute a trial has no driver.
            start = trial.datetime_start
            return start is None or start.timestamp() < long_ago

        # Only now: a driver that ended in order wrote down its runs before it was gone.
        refresh(self._study)
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return running if self.alone else [t for t in running if is_lost(t)]

    def own(self) -> list[FrozenTrial]:
        """Running trials of this driver."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [t for t in running if self.alone or t.user_attrs.get(DRIVER) == self.id]

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._say(self._leads)

    def _say(self, leads: bool | None) -> None:
        """One sign of life; one that the storage does not take is left out."""
        beat = [time.time(), leads]
        storage: Any = self._study._storage
        try:
            storage.backend.set_study_user_attr(self._study._study_id, PREFIX + self.id, beat)
        except Exception as error:
            if not passing(error):
                raise
            logger.debug("no sign of life could be written", exc_info=True)


def silence(study: Study) -> float | None:
    """Seconds since the last sign of life of any driver, from `GRACE_SECONDS` on; else None."""
    last = max((at for at, _ in _signs(study).values()), default=math.inf)
    seconds = time.time() - last
    return seconds if seconds >= GRACE_SECONDS else None


def _signs(study: Study) -> dict[str, tuple[float, bool | None]]:
    """The last sign of life of each driver, by its id."""
    attrs = study.user_attrs.items()
    return {k.removeprefix(PREFIX): (v[0], v[1]) for k, v in attrs if k.startswith(PREFIX) and v}
