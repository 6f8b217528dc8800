"""What a driver writes into a relational database, in one transaction, and what it reads.

Optuna commits every parameter and every attribute by itself: some thirty transactions for one
trial, each with its own wait for the disk. Here a round of the driver is one. The tables are
those of `optuna.storages.RDBStorage`, so that dashboards and other samplers read them as ever.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState


@dataclass
class Pending:
    """What is yet to be written of one trial; a later value of a key replaces an earlier one."""

    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    steps: dict[int, float] = field(default_factory=dict)
    end: tuple[TrialState, Sequence[float] | None] | None = None


def write(
    storage: RDBStorage,
    study_id: int,
    pending: Mapping[int, Pending],
    create: int = 0,
    mark: Mapping[str, Any] | None = None,
) -> tuple[list[FrozenTrial], set[int]]:
    """Write all of it, or nothing where an error is raised. Doing it twice does no harm.

    Args:
        storage: The database.
        study_id: Of the study, which other writers wait for meanwhile.
        pending: By trial id.
        create: Running trials to add.
        mark: User attributes that they get.

    Returns:
        The trials added, and the ids of those of ``pending`` that had ended in the database
        already, of which nothing was written.
    """
    import sqlalchemy
    from optuna.storages._rdb import models

    # Statements of tables, not of mapped classes: a third of the time.
    with storage.engine.begin() as connection:
        studies, trials = models.StudyModel.__table__, models.TrialModel.__table__
        one = studies.c.study_id == study_id
        # A write first: it makes other writers of the study wait, on every kind of database.
        connection.execute(sqlalchemy.update(studies).where(one).values(study_id=study_id))
        open_ = {i: pending[i] for i in _open(connection, trials, pending)}
        _write_rows(connection, models, open_)
        _end(connection, trials, open_)
        added = _create(connection, models, study_id, create, mark or {}) if create else []
    return added, pending.keys() - open_.keys()


def begin(storage: RDBStorage, trial_id: int) -> bool:
    """Let a trial that waits run; whether it did still wait.

    Optuna looks first and writes then, which two drivers can do at once where a database, SQLite
    for one, locks no rows.
    """
    import sqlalchemy
    from optuna.storages._rdb import models

    trials = models.TrialModel.__table__
    waits = (trials.c.trial_id == trial_id) & (trials.c.state == TrialState.WAITING)
    begun = {"state": TrialState.RUNNING, "datetime_start": datetime.now()}
    with storage.engine.begin() as connection:
        return bool(
            connection.execute(sqlalchemy.update(trials).where(waits).values(begun)).rowcount
        )


def _open(connection: Any, trials: Any, ids: Iterable[int]) -> list[int]:
    """Those of some trials that have not ended."""
    import sqlalchemy

    ids = list(ids)
    if not ids:
        return []
    query = sqlalchemy.select(trials.c.trial_id, trials.c.state).where(trials.c.trial_id.in_(ids))
    return [i for i, state in connection.execute(query) if not state.is_finished()]


def _end(connection: Any, trials: Any, pending: Mapping[int, Pending]) -> None:
    """End the trials that have an end."""
    import sqlalchemy

    now = datetime.now()
    ends = [
        {"i": i, "state": what.end[0], "datetime_complete": now}
        for i, what in pending.items()
        if what.end is not None
    ]
    if ends:
        one = trials.c.trial_id == sqlalchemy.bindparam("i")
        connection.execute(sqlalchemy.update(trials).where(one), ends)


def _create(
    connection: Any, models: Any, study_id: int, count: int, mark: Mapping[str, Any]
) -> list[FrozenTrial]:
    """Add running trials."""
    import sqlalchemy

    now, state = datetime.now(), TrialState.RUNNING
    trials = models.TrialModel.__table__
    own = trials.c.study_id == study_id
    known = sqlalchemy.select(sqlalchemy.func.count()).select_from(trials).where(own)
    first = connection.execute(known).scalar_one()
    numbers = range(first, first + count)
    options = {"study_id": study_id, "state": state, "datetime_start": now}
    connection.execute(sqlalchemy.insert(trials), [{"number": n, **options} for n in numbers])
    new = sqlalchemy.select(trials.c.number, trials.c.trial_id).where(own)
    new = new.where(trials.c.number >= first).order_by(trials.c.number)
    ids = [tuple(row) for row in connection.execute(new)]
    attrs = ((i, key, json.dumps(value)) for _, i in ids for key, value in mark.items())
    table = models.TrialUserAttributeModel.__table__
    _replace(connection, table, ("key", "value_json"), attrs)
    return [FrozenTrial(n, state, None, now, None, {}, {}, dict(mark), {}, {}, i) for n, i in ids]


def _write_rows(connection: Any, models: Any, pending: Mapping[int, Pending]) -> None:
    """Replace the rows of all tables but that of the trials themselves."""
    number = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
    objective = models.TrialValueModel.value_to_stored_repr
    _replace(
        connection,
        models.TrialParamModel.__table__,
        ("param_name", "param_value", "distribution_json"),
        (
            (i, name, value, distribution_to_json(distribution))
            for i, what in pending.items()
            for name, (value, distribution) in what.params.items()
        ),
    )
    for table, attrs in (
        (models.TrialUserAttributeModel.__table__, "user_attrs"),
        (models.TrialSystemAttributeModel.__table__, "system_attrs"),
    ):
        rows = (
            (i, key, json.dumps(value))
            for i, what in pending.items()
            for key, value in getattr(what, attrs).items()
        )
        _replace(connection, table, ("key", "value_json"), rows)
    _replace(
        connection,
        models.TrialIntermediateValueModel.__table__,
        ("step", "intermediate_value", "intermediate_value_type"),
        ((i, s, *number(v)) for i, what in pending.items() for s, v in what.steps.items()),
    )
    _replace(
        connection,
        models.TrialValueModel.__table__,
        ("objective", "value", "value_type"),
        (
            (i, m, *objective(v))
            for i, what in pending.items()
            for m, v in enumerate((what.end and what.end[1]) or ())
        ),
    )


def _replace(
    connection: Any, table: Any, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Put rows (trial id, key, ...) in the place of those with the same id and key."""
    import sqlalchemy

    new = [dict(zip(("trial_id", *columns), row, strict=True)) for row in rows]
    if new:
        key = columns[0]
        same = (table.c.trial_id == sqlalchemy.bindparam("i")) & (
            table.c[key] == sqlalchemy.bindparam("k")
        )
        old = [{"i": row["trial_id"], "k": row[key]} for row in new]
        connection.execute(sqlalchemy.delete(table).where(same), old)
        connection.execute(sqlalchemy.insert(table), new)


def read(storage: RDBStorage, ids: Sequence[int]) -> list[FrozenTrial]:
    """Trials by their ids, in order, read table by table.

    Optuna makes an object of every row first: ten times the time and the memory.

    Args:
        storage: The database.
        ids: Trial ids, no more than a database takes in one query (a few hundred).
    """
    import sqlalchemy
    from optuna.storages._rdb import models
    from sqlalchemy.orm import Session

    with Session(storage.engine) as session, session.begin():
        ordered = session.query(models.TrialModel).where(models.TrialModel.trial_id.in_(ids))
        found = {row.trial_id: _bare(row) for row in ordered.order_by(models.TrialModel.trial_id)}

        def rows(model: Any, *columns: str) -> Iterable[Any]:
            table = model.__table__
            wanted = [table.c[name] for name in ("trial_id", *columns)]
            order = next(iter(table.primary_key.columns))
            query = sqlalchemy.select(*wanted).where(table.c.trial_id.in_(ids)).order_by(order)
            return session.connection().execute(query)

        values = models.TrialValueModel
        for i, m, value, kind in rows(values, "objective", "value", "value_type"):
            known = found[i].values or []
            known += [0.0] * (m + 1 - len(known))
            known[m] = values.stored_repr_to_value(value, kind)
            found[i].values = known
        for i, name, value, text in rows(
            models.TrialParamModel, "param_name", "param_value", "distribution_json"
        ):
            distribution = _distribution(text)
            found[i].distributions[name] = distribution
            found[i].params[sys.intern(name)] = distribution.to_external_repr(value)
        for i, key, text in rows(models.TrialUserAttributeModel, "key", "value_json"):
            found[i].user_attrs[sys.intern(key)] = parsed(text)
        for i, key, text in rows(models.TrialSystemAttributeModel, "key", "value_json"):
            found[i].system_attrs[sys.intern(key)] = parsed(text)
        steps = models.TrialIntermediateValueModel
        for i, s, value, kind in rows(
            steps, "step", "intermediate_value", "intermediate_value_type"
        ):
            found[i].intermediate_values[s] = steps.stored_repr_to_intermediate_value(value, kind)
    return list(found.values())


def _bare(row: Any) -> FrozenTrial:
    """A trial without what is in other tables."""
    times = row.datetime_start, row.datetime_complete
    return FrozenTrial(row.number, row.state, None, *times, {}, {}, {}, {}, {}, row.trial_id)


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def parsed(text: str) -> Any:
    """A value from JSON, whose keys (names of domains and targets) are in memory once."""
    return json.loads(text, object_pairs_hook=_interned)


def _interned(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {sys.intern(key): value for key, value in pairs}
