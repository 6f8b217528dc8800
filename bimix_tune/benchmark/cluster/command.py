"""The parts of the benchmark by name, and their figures on disk."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bimix_tune.atomic import write_atomic
from bimix_tune.benchmark.cluster import faults, kills, memory, speed
from bimix_tune.benchmark.cluster.parts import Figure
from bimix_tune.errors import ConfigError, did_you_mean

Say = Callable[[str], None]


def _killed(say: Say) -> Iterator[Figure]:
    folder = Path(tempfile.mkdtemp())  # kept where something went wrong
    yield from kills.killed_search(folder / "run", 20, say=say)
    shutil.rmtree(folder)


def _faulty(say: Say) -> Iterator[Figure]:
    folder = Path(tempfile.mkdtemp())
    yield from faults.faults(folder, say=say)
    shutil.rmtree(folder)


PARTS: dict[str, Callable[[Say], Iterator[Figure]]] = {
    "small": lambda say: speed.small(),
    "throughput": lambda say: speed.throughput(),
    "scaling": lambda say: speed.scaling(),
    "memory": lambda say: memory.memory(),
    "kills": _killed,
    "faults": _faulty,
}


def run_parts(names: Sequence[str], output: Path, say: Say) -> list[Figure]:
    """Measure parts, one after the other; each is written down when it has been measured.

    Args:
        names: Of `PARTS`; none for all.
        output: Folder of ``cluster.json``; figures of other parts that it has are kept.
        say: Told what happens.

    Raises:
        ConfigError: There is no such part.
    """
    for name in names:
        if name not in PARTS:
            raise ConfigError(f"unknown part {name!r}" + did_you_mean(name, PARTS))
    file = output / "cluster.json"
    found = []
    for name in names or PARTS:
        say(f"measuring {name}")
        figures = list(PARTS[name](say))
        found += figures
        others = [f for f in read_figures(file) if f.part != name]
        rows = [dataclasses.asdict(f) for f in (*others, *figures)]
        write_atomic(file, json.dumps(rows, indent=1) + "\n")
    return found


def read_figures(file: Path) -> list[Figure]:
    """The figures of an earlier call; none if there is no file.

    Raises:
        ConfigError: The file is something else.
    """
    if not file.exists():
        return []
    try:
        return [Figure(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{file} holds no figures of this benchmark: {error}") from error
