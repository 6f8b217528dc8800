"""Problems by name."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.benchmark.problems.pool import Pool, objectives, slug
from bimix_tune.benchmark.problems.starter import starter_swarm
from bimix_tune.benchmark.problems.surrogate import Surrogate
from bimix_tune.benchmark.problems.synthetic import SYNTHETIC, Synthetic
from bimix_tune.benchmark.swarms import DataSet, Swarm
from bimix_tune.errors import ConfigError, did_you_mean

Make = Callable[[], Problem]
"""Makes a problem; nothing is read or fitted before."""

STARTER_POOLS = ("mean", "python", "worst", "ood")
STARTER_SURROGATES = ("mean", "worst", "ood")


def problems(
    names: Sequence[str] | None = None,
    data: Sequence[DataSet] = (),
    more: Mapping[str, Make] | None = None,
) -> list[Problem]:
    """Problems by name, ready to be run.

    Args:
        names: Names of `problem_names`, or ``path/to/file.py:NAME`` for a problem of one's own,
            NAME being an instance of `Problem` or a class that needs no arguments; None: all of
            `problem_names`.
        data: Recorded swarms. Each gives ``<data set>-mean``, ``-worst`` and so on, and
            ``<data set>-surrogate-mean``; see `of_data`.
        more: Problems that only run if they are named, such as real trainings.

    Raises:
        ConfigError: A name is unknown, or a file holds no such problem.
    """
    usual, named = _usual(data), dict(more or {})
    known = usual | _by_scale(data) | named
    found = []
    for name in usual if names is None else names:
        if name not in known and ":" in name:
            found.append(_from_file(name))
        elif name in known:
            found.append(known[name]())
        else:
            raise ConfigError(f"no problem {name!r}" + did_you_mean(name, known))
    return found


def problem_names(data: Sequence[DataSet] = ()) -> list[str]:
    """The names of all problems that run unless some are chosen."""
    return list(_usual(data))


def _usual(data: Sequence[DataSet]) -> dict[str, Make]:
    made: dict[str, Make] = {}
    for objective in STARTER_POOLS:
        made[f"starter-{objective}"] = partial(_starter, Pool, objective)
    for objective in STARTER_SURROGATES:
        made[f"starter-surrogate-{objective}"] = partial(_starter, Surrogate, objective)
    made |= {name: partial(_synthetic, *kind) for name, kind in SYNTHETIC.items()}
    for d in data:
        if d.swarms:
            made |= of_data(d.swarms[0], slug(d.name))
    return made


def _by_scale(data: Sequence[DataSet]) -> dict[str, Make]:
    """Those of all scales of a data set, and of single targets."""
    made: dict[str, Make] = {}
    for d in data:
        for swarm in d.swarms:
            made |= of_data(swarm, slug(swarm.name), every=True)
        if d.swarms:
            made |= of_data(d.swarms[0], slug(d.name), every=True)
    return made


def of_data(swarm: Swarm, label: str, every: bool = False) -> dict[str, Make]:
    """Problems of recorded runs by name.

    Args:
        swarm: The runs. Of a data set with several scales it is the smallest one, which goes by
            the name of the data set; the others have their scale in the name, and must be asked
            for.
        label: Begins the names.
        every: Also those that do not run unless named: single targets and all surrogates.
    """
    pools = objectives(swarm)
    surrogates = ["mean"]
    if every:
        pools = [*pools, *swarm.space.target_names]
        surrogates = pools
    made: dict[str, Make] = {f"{label}-{slug(o)}": partial(Pool.of, swarm, label, o) for o in pools}
    for o in surrogates:
        made[f"{label}-surrogate-{slug(o)}"] = partial(Surrogate.of, swarm, label, o)
    return made


def _starter(kind: type[Pool] | type[Surrogate], objective: str) -> Problem:
    return kind.of(starter_swarm(), "starter", objective)


def _synthetic(kind: type[Synthetic], domains: int) -> Problem:
    return kind.of(domains)


def _from_file(place: str) -> Problem:
    """The problem that ``path/to/file.py:NAME`` means.

    The file's module stays in `sys.modules`, so that its problem pickles in this process.
    """
    file, _, name = place.rpartition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"no problem {place!r}: no such file {path}")
    module_name = f"bimix_tune_problem_{slug(str(path.resolve())).replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"no problem {place!r}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    offered = {n: value for n, value in vars(module).items() if _is_problem(value)}
    if name not in offered:
        raise ConfigError(f"no problem {name!r} in {path}" + did_you_mean(name, offered))
    found = offered[name]
    try:
        return found() if isinstance(found, type) else found
    except TypeError as error:
        raise ConfigError(f"{place} cannot be made without arguments: {error}") from error


def _is_problem(value: Any) -> bool:
    if isinstance(value, type):
        return issubclass(value, Problem) and not inspect.isabstract(value)
    return isinstance(value, Problem)
