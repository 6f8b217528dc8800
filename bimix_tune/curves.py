"""What a run leaves: the loss of each target at each checkpoint.

One `LossCurve` is one run, finished or not. Curves are stored as JSON lines, one run a line;
published tables of runs in CSV form are read too.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bimix_tune.atomic import write_atomic
from bimix_tune.errors import CurveError, MixtureError
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array

NATS_PER_TOKEN = "nats/token"
BITS_PER_BYTE = "bits/byte"
ROUNDING = 5e-3
"""Tables round proportions to three decimals; a sum off by less than this is divided out."""


@dataclass(frozen=True, eq=False)
class LossCurve:
    """Validation losses of one training run.

    Args:
        mixture: What the run was trained on.
        tokens: Training tokens seen at each checkpoint, (S,), strictly increasing.
        losses: Loss of each target at each checkpoint, (S, V); NaN where not measured. With one
            checkpoint or one target a flat list will do.
        targets: Names of the columns of ``losses``, (V,). None if they are the domains of
            the mixture, in its order.
        decayed: Which checkpoints were taken at the end of the learning-rate decay, (S,).
            They are lower than the constant-rate curve. None means none of them.
        seed: Seed of the run; runs of one seed share initial weights and data order.
        unit: ``"nats/token"`` or ``"bits/byte"``; one fit takes one unit.
        scale: Label of the model size, free text.
        run: Name of the run, free text.

    Raises:
        CurveError: Shapes disagree, tokens do not increase, target names repeat, or a loss is
            infinite or not positive.
    """

    mixture: Mixture
    tokens: Array
    losses: Array
    targets: tuple[str, ...]
    decayed: np.ndarray[Any, np.dtype[np.bool_]]
    seed: int = 0
    unit: str = NATS_PER_TOKEN
    scale: str = ""
    run: str = ""

    def __init__(
        self,
        mixture: Mixture,
        tokens: ArrayLike,
        losses: ArrayLike,
        targets: Sequence[str] | None = None,
        decayed: ArrayLike | None = None,
        seed: int = 0,
        unit: str = NATS_PER_TOKEN,
        scale: str = "",
        run: str = "",
    ) -> None:
        t = np.atleast_1d(np.array(tokens, float))
        names = tuple(mixture.names if targets is None else targets)
        y = np.array(losses, float)
        if y.ndim < 2 and 1 in (len(t), len(names)) and y.size == len(t) * len(names):
            y = y.reshape(len(t), len(names))
        d = np.zeros(len(t), bool) if decayed is None else np.atleast_1d(np.array(decayed, bool))
        label = f"run {run!r}" if run else "a curve"
        if not len(t) or np.any(np.diff(t) <= 0) or not np.all(t > 0) or not np.isfinite(t).all():
            raise CurveError(f"{label}: tokens must be positive and increase, but got {t.tolist()}")
        if y.shape != (len(t), len(names)):
            raise CurveError(
                f"{label}: losses must have shape (checkpoints, targets) = "
                f"({len(t)}, {len(names)}), but got {y.shape}"
            )
        if len(set(names)) != len(names):
            raise CurveError(f"{label}: target names must differ from each other, but got {names}")
        if d.shape != t.shape:
            raise CurveError(f"{label}: decayed must have shape {t.shape}, but got {d.shape}")
        if np.isinf(y).any() or (y <= 0).any():
            raise CurveError(
                f"{label}: losses must be positive and finite (NaN marks a missing one)"
            )
        if unit not in (NATS_PER_TOKEN, BITS_PER_BYTE):
            raise CurveError(
                f"{label}: unit must be {NATS_PER_TOKEN!r} or {BITS_PER_BYTE!r}, but got {unit!r}"
            )
        for array in (t, y, d):
            array.setflags(write=False)
        values = (mixture, t, y, names, d, int(seed), unit, scale, run)
        fields = ("mixture", "tokens", "losses", "targets", "decayed", "seed", "unit", "scale")
        for name, value in zip((*fields, "run"), values, strict=True):
            object.__setattr__(self, name, value)

    def final(self) -> dict[str, float]:
        """Losses at the last checkpoint by target."""
        return dict(zip(self.targets, self.losses[-1].tolist(), strict=True))

    def to_json(self) -> str:
        """One line of JSON; a missing loss is null."""
        rows = [[None if math.isnan(v) else v for v in row] for row in self.losses.tolist()]
        return json.dumps(
            {
                "run": self.run,
                "seed": self.seed,
                "scale": self.scale,
                "unit": self.unit,
                "mixture": dict(self.mixture),
                "targets": list(self.targets),
                "tokens": [int(t) if t == int(t) else t for t in self.tokens.tolist()],
                "decayed": self.decayed.tolist(),
                "losses": rows,
            }
        )

    @classmethod
    def from_json(cls, line: str) -> LossCurve:
        """Read a line of `to_json`.

        Raises:
            CurveError: A field is missing or wrong.
        """
        try:
            data = json.loads(line)
            mixture = Mixture(data["mixture"].keys(), data["mixture"].values())
            losses = np.array(data["losses"], dtype=float)  # null becomes NaN
            options = {k: data[k] for k in ("decayed", "seed", "unit", "scale", "run") if k in data}
            return cls(mixture, data["tokens"], losses, data.get("targets"), **options)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, (CurveError, MixtureError)):
                raise
            raise CurveError(f"not a loss curve: {type(error).__name__}: {error}") from error


def write_curves(path: str | Path, curves: Iterable[LossCurve]) -> None:
    """Write curves as JSON lines, atomically."""
    write_atomic(Path(path), "".join(c.to_json() + "\n" for c in curves))


def read_curves(path: str | Path) -> list[LossCurve]:
    """Finished runs from a file or folder.

    Accepted:
        - a ``.jsonl`` file of `LossCurve.to_json` lines, or a folder with ``curves.jsonl``;
        - a folder with ``runs.csv`` (``run_id``, ``r_<domain>`` ...) and ``losses.csv``
          (``run_id``, ``tokens``, ``loss_<target>`` ...);
        - a folder with olmix's ``ratios.csv`` and ``metrics.csv`` joined on ``run``;
        - one ``.csv`` with ``r_<domain>``, ``loss_<target>`` and optionally ``tokens``,
          ``run_id``.

    Tables of mixtures may have columns ``seed``, ``model_label`` (the scale) and ``unit`` (of the
    losses; without it they count as nats per token), tables of losses a column ``decayed`` (1 or
    true where the learning rate had decayed to its end; 0, false or empty elsewhere).

    Proportions that miss a sum of one by rounding (under 0.005) are divided by their sum.

    Raises:
        CurveError: Nothing readable is there, or a row is wrong; the message names the row.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "curves.jsonl").exists():
            return read_curves(path / "curves.jsonl")
        for first, second in (("runs.csv", "losses.csv"), ("ratios.csv", "metrics.csv")):
            if (path / first).exists() and (path / second).exists():
                return _read_tables(path / first, path / second)
        raise CurveError(
            f"{path} holds no runs: expected curves.jsonl, runs.csv + losses.csv, "
            "or ratios.csv + metrics.csv"
        )
    if not path.exists():
        raise CurveError(f"no such file or folder: {path}")
    if path.suffix == ".csv":
        return _read_tables(path, path)
    curves = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            try:
                curves.append(LossCurve.from_json(line))
            except (CurveError, MixtureError) as error:
                raise CurveError(f"{path}, line {number}: {error}") from error
    if not curves:
        raise CurveError(f"{path} holds no runs: it is empty")
    return curves


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CurveError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CurveError(f"{path} is not text (UTF-8): {error}") from error


_ID_COLUMNS = ("run_id", "run")
_OTHER_COLUMNS = {*_ID_COLUMNS, "name", "index", "step", "tokens", "seed", "split", "mix_id"}
_OTHER_COLUMNS |= {"model_label", "model_params", "unit", "decayed", ""}
_BOOLEANS = {"": False, "0": False, "false": False, "1": True, "true": True}


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(_text(path), newline="")))
    except csv.Error as error:
        raise CurveError(f"{path} is no table of comma-separated values: {error}") from error
    for number, row in enumerate(rows, 2):
        if None in row:
            raise CurveError(f"{path}, row {number}: more cells than the header has")
    return rows


def _columns(row: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Value columns by name: those with the prefix, or, without any, all that are no label."""
    marked = {k.removeprefix(prefix): k for k in row if k and k.startswith(prefix)}
    return marked or {k: k for k in row if k not in _OTHER_COLUMNS}


def _number(column: str, text: str | None) -> float:
    if text in (None, ""):
        return math.nan
    try:
        return float(text)
    except ValueError as error:
        raise CurveError(f"column {column!r} holds {text!r}, not a number") from error


def _mixture(row: Mapping[str, str]) -> Mixture:
    shares = {n: _number(c, row[c]) for n, c in _columns(row, "r_").items()}
    total = sum(shares.values())
    if not abs(total - 1) < ROUNDING:
        raise CurveError(f"proportions sum to {total:.6g}, not to 1")
    return Mixture.normalised(shares)


def _read_tables(runs: Path, losses: Path) -> list[LossCurve]:
    """Join a table of mixtures with a table of losses (which may be the same file)."""
    run_rows, loss_rows = _rows(runs), _rows(losses)
    if not run_rows or not loss_rows:
        raise CurveError(f"{runs if not run_rows else losses} holds no rows")
    key = next((c for c in _ID_COLUMNS if c in run_rows[0]), None)
    if runs != losses and (key is None or key not in loss_rows[0]):
        raise CurveError(f"{runs} and {losses} need a common column run_id or run")
    if runs == losses:
        for prefix, what in (("r_", "domain"), ("loss_", "target")):
            if not any(k.startswith(prefix) for k in run_rows[0]):
                found = list(run_rows[0])
                raise CurveError(f"{runs} has no columns {prefix}<{what}>; found {found}")
    columns = _columns(loss_rows[0], "loss_")
    grouped: dict[str, _Points] = defaultdict(dict)
    for number, row in enumerate(loss_rows, 2):
        with _naming(losses, number):
            _add_point(grouped[row[key] if key else str(number - 2)], row, columns)
    curves: dict[str, LossCurve] = {}
    for number, row in enumerate(run_rows, 2):
        name = row[key] if key else str(number - 2)
        with _naming(runs, number):
            if name in curves and runs != losses:
                raise CurveError(f"run {name!r} occurs twice")
            if name in grouped and name not in curves:
                curves[name] = _curve(row, name, grouped[name], tuple(columns))
    return list(curves.values())


_Points = dict[float, tuple[list[float], bool]]


@contextlib.contextmanager
def _naming(path: Path, number: int) -> Iterator[None]:
    """Put the place in a table in front of what is wrong there."""
    try:
        yield
    except ValueError as error:
        raise CurveError(f"{path}, row {number}: {error}") from error


def _add_point(points: _Points, row: Mapping[str, str], columns: Mapping[str, str]) -> None:
    """Take up one row of losses. Without a column ``tokens`` it is a checkpoint at 1 token."""
    tokens = _number("tokens", row.get("tokens") or "1")
    if tokens in points:
        raise CurveError(f"the run has two rows of losses at {tokens:g} tokens")
    points[tokens] = [_number(c, row[c]) for c in columns.values()], _decayed(row)


def _decayed(row: Mapping[str, str]) -> bool:
    text = (row.get("decayed") or "").strip().lower()
    if text not in _BOOLEANS:
        raise CurveError(f"column 'decayed' must hold 0, 1, true or false, but holds {text!r}")
    return _BOOLEANS[text]


def _curve(
    row: Mapping[str, str], name: str, points: _Points, targets: tuple[str, ...]
) -> LossCurve:
    """One run of a table."""
    tokens = sorted(points)
    return LossCurve(
        _mixture(row),
        tokens,
        [points[t][0] for t in tokens],
        targets,
        [points[t][1] for t in tokens],
        seed=int(row.get("seed") or 0),
        unit=row.get("unit") or NATS_PER_TOKEN,
        scale=row.get("model_label") or "",
        run=name,
    )
