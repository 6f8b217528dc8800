"""Strategies and problems by the names that they are registered under.

The only place of the contest that knows of the registries, so that it can be tried without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bimix_tune import strategies
from bimix_tune.benchmark import problems
from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.benchmark.problems.catalogue import Make
from bimix_tune.benchmark.swarms import DataSet
from bimix_tune.errors import ConfigError, MissingExtraError
from bimix_tune.strategies.base import Setting, Strategy


def players(names: Sequence[str] | None = None) -> tuple[dict[str, type[Strategy]], list[str]]:
    """Classes of strategies by name, and a sentence for each whose library is not installed.

    Args:
        names: Some of them; None: all.

    Raises:
        ConfigError: A name is unknown, or none is left.
    """
    found: dict[str, type[Strategy]] = {}
    notes = []
    for name in dict.fromkeys(strategies.STRATEGIES if names is None else names):
        try:
            found[name] = strategies.strategy_class(name)
        except MissingExtraError as error:
            notes.append(f"{name} is left out: {error}")
    if not found:
        raise ConfigError("no strategy to compare: " + ("; ".join(notes) or "none was named"))
    return found, notes


def obstacle(name: str, setting: Setting) -> str | None:
    """Why a strategy cannot play in a setting; None: it can."""
    return strategies.available(name, setting)


def played_on(
    names: Sequence[str] | None, data: Sequence[DataSet], more: Mapping[str, Make] | None = None
) -> list[Problem]:
    """Problems by name, or all those that are at hand; see `bimix_tune.benchmark.problems`.

    Raises:
        ConfigError: A name is unknown.
    """
    return problems.problems(names, data, more)
