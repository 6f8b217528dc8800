"""Results on disk: JSON lines, each written in one piece, so that a benchmark can be continued."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bimix_tune.errors import CurveError

Key = tuple[str, str, str, str, int, int, str]


@dataclass(frozen=True)
class Result:
    """One law fitted to one draw of runs; the scores are those of `scores.Scores`.

    Args:
        swarm: Name of the swarm.
        data: Its digest.
        n: Number of runs fitted.
        draw: Number of the draw.
        law: Name of the law or peer.
        task: One of `bimix_tune.benchmark.TASKS`.
        code: Digest of the code of the contenders.
        error: Mean relative error; NaN, as the other scores, where there is none.
        r2: Of the objective.
        spearman: Of the objective.
        regret: In units of the range.
        coverage: Of the 95 % interval.
        width: Of the 95 % interval, in standard deviations of the objective over runs.
        seconds: Processor time of the fit.
        failure: Why the fit failed, or empty.
    """

    swarm: str
    data: str
    n: int
    draw: int
    law: str
    task: str = "final"
    code: str = ""
    error: float = math.nan
    r2: float = math.nan
    spearman: float = math.nan
    regret: float = math.nan
    coverage: float = math.nan
    width: float = math.nan
    seconds: float = math.nan
    failure: str = ""

    @property
    def key(self) -> Key:
        """What was measured, on which data, by which code."""
        return (self.task, self.swarm, self.data, self.code, self.n, self.draw, self.law)

    def to_json(self) -> str:
        """One line; NaN is null."""
        values = dataclasses.asdict(self)
        plain = {k: None if v != v else v for k, v in values.items()}
        return json.dumps(plain, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Result:
        """Read a line of `to_json`."""
        values = json.loads(line)
        plain: dict[str, Any] = {k: math.nan if v is None else v for k, v in values.items()}
        return cls(**plain)


class Line(Protocol):
    """What can be a line of a file."""

    def to_json(self) -> str:
        """One line."""
        ...


class Record(Line, Protocol):
    """What a line of a file of results says."""

    @property
    def key(self) -> Hashable:
        """Which job it is the result of."""
        ...


F = TypeVar("F", bound=Record)


def append_result(path: Path, result: Line) -> None:
    """Add a line in a single write."""
    line = (result.to_json() + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that a crash left without its end."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)


def read_lines(path: Path, read: Callable[[str], F]) -> list[F]:
    """Results of an earlier call; none if there is no such file.

    Args:
        path: The file.
        read: Reads a line.

    Raises:
        CurveError: A line is no result; the message names it.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(read(line))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise CurveError(
                f"{path}, line {number} is no result of a benchmark ({error}): "
                "remove the file, or choose another output folder"
            ) from error
    return found


def read_results(path: str | Path) -> list[Result]:
    """Results of `compare_laws`, as `read_lines` reads them."""
    return read_lines(Path(path), Result.from_json)
