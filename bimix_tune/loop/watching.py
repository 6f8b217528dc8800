"""The state of a search from its study alone, for a look from another process or machine."""

from __future__ import annotations

import time
from pathlib import Path

from optuna.storages import BaseStorage
from optuna.study import Study

from bimix_tune.errors import BimixError
from bimix_tune.laws import LawFit, optimise
from bimix_tune.loop import ledger, run_folder
from bimix_tune.loop.company import silence
from bimix_tune.loop.outcome import load_study
from bimix_tune.loop.result import CONFIRMATION, RunRecord
from bimix_tune.loop.state import SearchState
from bimix_tune.mixture import Mixture
from bimix_tune.proposals import trust_region
from bimix_tune.sampler import BiMixSampler

ENDED = "ended"
FIT_SHARE = 0.1
"""Most of the time that goes into fitting the law, however large the study."""


class Watcher:
    """Reads a study again and again; what has ended is read once.

    Args:
        folder: The run folder.
        storage: Optuna storage or its URL; None for SQLite in the folder.

    Raises:
        ConfigError: There is no search in the folder, or its storage cannot be opened.
    """

    def __init__(self, folder: Path, storage: str | BaseStorage | None = None) -> None:
        self.study, self.space = load_study(folder, storage)
        self._folder = folder
        attrs = self.study.user_attrs
        self._target = int(attrs[ledger.TARGET_TOKENS])
        self._tokens = int(attrs[ledger.SETTINGS]["tokens"])
        self.unit = str(attrs[ledger.SETTINGS]["unit"])
        self._sampler = BiMixSampler(self.space, target_tokens=self._target)
        self._records: dict[int, RunRecord] = {}
        self._law: LawFit | None = None
        self._optimum: tuple[Mixture, float, float] | None = None
        self._next_fit = 0.0
        self.ended = False

    def state(self) -> SearchState:
        """The state of the search now.

        Raises:
            ConfigError: The storage does not answer.
        """
        with run_folder.storage_errors(self._folder):
            phase, total = self.study.user_attrs.get(ledger.PLANNED, ("search", 0))
            records = ledger.records_of(self.study, self.space, self._records)
            if time.monotonic() >= self._next_fit:
                self._fit()
        self.ended = phase == ENDED
        mine = [r for r in records if phase in (ENDED, _phase(r))]
        return SearchState(
            phase,
            sum(r.state in ("COMPLETE", "PRUNED", "FAIL") for r in mine),
            total or len(mine),
            sum(r.state == "RUNNING" and r.slot != "" for r in records),  # not those ahead
            (),
            tuple(records),
            self._law,
            self._optimum,
            self._tokens,
            silence_of(self.study),
        )

    def _fit(self) -> None:
        """Fit the law to what has ended; the sampler does so only if that has changed."""
        began = time.monotonic()
        try:
            law, _ = self._sampler.law_for(self.study, -1)
            if law is not None and law is not self._law:
                region = trust_region(self.space, self._sampler.tried(self.study))
                mixture = optimise(law, region, self._target)
                mean, sd = law.objective([mixture], self._tokens)
                self._optimum = mixture, float(mean[0]), float(sd[0])
            self._law = law
        except BimixError:  # a picture without a law is better than none
            self._law = None
        self._next_fit = time.monotonic() + (time.monotonic() - began) / FIT_SHARE


def silence_of(study: Study) -> float | None:
    """See `SearchState.silent`."""
    phase, _ = study.user_attrs.get(ledger.PLANNED, ("search", 0))
    return None if phase == ENDED else silence(study)


def _phase(record: RunRecord) -> str:
    return "confirmation" if record.role == CONFIRMATION else "search"
