"""A run folder and the study in it: one driver at a time, and only under the settings it had."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study
from optuna.trial import TrialState

from bimix_tune.errors import ConfigError, ExecutorError
from bimix_tune.loop.ledger import SETTINGS
from bimix_tune.loop.storage import DriverStorage
from bimix_tune.masking import masked

LOCK_SECONDS = 30.0
"""Longest wait for a reader or another writer of an SQLite file."""


@contextmanager
def only_driver(folder: Path) -> Iterator[None]:
    """Hold a run folder for one driver; the lock ends with the process, however it ends.

    Raises:
        ConfigError: The folder cannot be made.
        ExecutorError: Another process drives a search in this folder.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the run folder {folder} cannot be made: {error.strerror}") from error
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ExecutorError(
            f"another process is running a search in {folder}; wait for it or stop it, "
            "or give this search a folder of its own"
        ) from error
    try:
        yield
    finally:
        lock.release()


def storage_of(folder: Path, storage: str | BaseStorage | None) -> str | BaseStorage:
    """The storage of a run folder: its own SQLite file unless another one is given.

    Raises:
        ConfigError: The folder's path cannot be part of a database URL.
    """
    if storage is None and set("?%") & set(str(folder)):
        raise ConfigError(
            f"a run folder must have no '?' and no '%' in its path, but got {str(folder)!r}"
        )
    return storage or f"sqlite:///{folder / 'study.db'}"


def driver_storage(
    folder: Path, storage: str | BaseStorage | None, wait: Callable[[float], None]
) -> DriverStorage:
    """The storage of a run folder, as the driver of a search uses it."""
    found = storage_of(folder, storage)
    return DriverStorage(_database(found) if isinstance(found, str) else found, wait=wait)


def _database(url: str, tries: int = 5) -> RDBStorage:
    """Open a database; again, where another driver makes its tables at this very moment."""
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    patient = {"connect_args": {"timeout": LOCK_SECONDS}} if url.startswith("sqlite") else {}
    while True:
        try:
            return RDBStorage(url, engine_kwargs=patient)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            tries -= 1
            made = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not made or not tries:
                raise
            time.sleep(0.5)


def name_of(folder: Path, storage: str | BaseStorage | None) -> str:
    """The study's name: the folder's where studies share a storage; else one that lets the
    folder be renamed."""
    return "bimix-tune" if storage is None else folder.resolve().name


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn what a database says of itself into one sentence.

    Raises:
        ConfigError: The storage is missing, broken, or of a kind that cannot be opened.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        reason = masked(str(error).splitlines()[0])
        raise ConfigError(f"the storage of {folder} cannot be opened: {reason}") from error


def open_study(
    folder: Path,
    storage: str | BaseStorage | None,
    settings: Mapping[str, Any],
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Study:
    """Create the study of a run folder, or continue it.

    Args:
        folder: The run folder; its name is the study's in a storage that is not its own.
        storage: Optuna storage or its URL; None for SQLite in the folder.
        settings: What the losses depend on (space, trainer). A study continues only under the
            settings that it was begun with, since losses under others do not compare.
        sampler: Proposes mixtures.
        pruner: Stops runs early.
        wait: Called with seconds to wait for a storage that does not answer.

    Raises:
        ConfigError: The study was begun with other settings, or its storage cannot be used.
    """
    with storage_errors(folder):
        study = optuna.create_study(
            study_name=name_of(folder, storage),
            storage=driver_storage(folder, storage, wait),
            load_if_exists=True,
            sampler=sampler,
            pruner=pruner,
            direction="minimize",
        )
    settings = json.loads(json.dumps(settings, default=lambda value: type(value).__name__))
    known = study.user_attrs.get(SETTINGS)
    learnt = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    if known is None or not learnt:  # a wrong setting that let no run end may be mended
        study.set_user_attr(SETTINGS, settings)
    elif known != settings:
        changed = sorted(k for k in {*known, *settings} if known.get(k) != settings.get(k))
        raise ConfigError(
            f"the search in {folder} was begun with another {', '.join(changed)}; "
            "its losses would not compare: choose another folder, or undo the change"
        )
    return study
