"""The published runs of RegMix as a data set: 512 of 1M, 256 of 60M and 64 of 1B parameters.

Liu et al., ICLR 2025 (github.com/sail-sg/regmix, MIT): mixtures of 17 domains of the Pile and
13 validation losses in nats per token, each at the end of a run. Every table is pinned by its
commit, size and SHA-256. The hashes of the pair of 1M tables were computed from their content;
those of the others come from a list of hashes that third parties published, which agrees in
the 1M pair and in the sizes of all. The 256 test runs of 1M are left out: their mixtures are
those of 60M.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bimix_tune.errors import CurveError

SOURCE = "https://raw.githubusercontent.com/sail-sg/regmix"
COMMIT = "b004d3a3f39846dcec6b3740da22bcd1ba95a5d0"
PATIENCE = 60.0
"""Seconds without an answer after which a download fails."""
MIXTURE, LOSS = "train_the_pile_", "metric/the_pile_"
"""How columns begin; those of losses end in ``_val_loss``."""


@dataclass(frozen=True)
class Table:
    """A file that is fully known in advance: its path in the repository, bytes and SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Scale:
    """Runs of one model size.

    Args:
        label: Parameters.
        tokens: Training tokens of each run: 1B (1M, 60M) or 25B (1B), from
            ``model_training/README.md``, and for 60M from the paper.
        mixtures: Proportions by run.
        losses: Losses by run.
    """

    label: str
    tokens: int
    mixtures: Table
    losses: Table


SCALES = (
    Scale(
        "1M",
        1_000_000_000,
        Table(
            "data/train_mixture_1m.csv",
            46412,
            "04a32ef4ab594376bf90e11404c033668f887c351d6a03ad3744824c7296a2d8",
        ),
        Table(
            "data/train_pile_loss_1m.csv",
            121898,
            "49a959aa07ce5c20831d5abe3a7896ff0cd90a398bd407c8913fd5588be0465a",
        ),
    ),
    Scale(
        "60M",
        1_000_000_000,
        Table(
            "data/test_mixture_60m.csv",
            23537,
            "197267b7d6f15367e2f46c881e564c35b0d34e51b1754bb09d07e650cf8e1ce8",
        ),
        Table(
            "data/test_pile_loss_60m.csv",
            61827,
            "8fe69d59ab7dd4fae4736459f4265ec93c7ed1ad1eca407346052560edc72b5b",
        ),
    ),
    Scale(
        "1B",
        25_000_000_000,
        Table(
            "data/test_mixture_1B.csv",
            6393,
            "dd38052949c0a5f84165bdcb3ae3a331c7f07efd9bb83848bd579dfc4ce75a2c",
        ),
        Table(
            "data/test_pile_loss_1B.csv",
            10639,
            "b2451e2b7fa15400688edc39e4d32f21ccbe0fb356e07d62a0e9ccddf247114f",
        ),
    ),
)


def fetch_regmix(folder: str | Path, say: Callable[[str], None] | None = None) -> Path:
    """Download the tables and write them as ``<folder>/regmix``, in the form of `load_data`.

    Nothing is written before every table has arrived as it was pinned. What is there already
    is left as it is.

    Args:
        folder: A folder of data sets.
        say: Is told what is downloaded.

    Returns:
        The folder of the data set.

    Raises:
        CurveError: A table cannot be had, or is not the pinned one.
    """
    target = Path(folder) / "regmix"
    if _is_complete(target):
        return target
    contents = {}
    for table in (t for scale in SCALES for t in (scale.mixtures, scale.losses)):
        if say is not None:
            say(f"downloading {table.path}")
        contents[table.path] = _download(table)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as name:
        made = Path(name) / "regmix"
        made.mkdir()
        _write(made, contents)
        shutil.rmtree(target, ignore_errors=True)
        made.replace(target)
    return target


def _is_complete(folder: Path) -> bool:
    """Whether all files of this commit are there; ``meta.json`` names it."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    there = all((folder / name).is_file() for name in ("runs.csv", "losses.csv"))
    return there and isinstance(meta, dict) and meta.get("commit") == COMMIT


def _download(table: Table) -> str:
    """The pinned content of a table."""
    url = f"{SOURCE}/{COMMIT}/{table.path}"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            content: bytes = answer.read(table.size + 1)
    except (OSError, ValueError) as error:
        raise CurveError(
            f"{url} cannot be downloaded ({error}); check the network, and HTTPS_PROXY if there "
            "is a proxy"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if len(content) != table.size or found != table.sha256:
        raise CurveError(
            f"{url} is not the pinned table: SHA-256 {found} in place of {table.sha256}; "
            "nothing was written; try again, or suspect what is between here and GitHub"
        )
    return content.decode("utf-8")


def _write(folder: Path, contents: dict[str, str]) -> None:
    """``runs.csv``, ``losses.csv`` and ``meta.json`` of all scales."""
    with (
        (folder / "runs.csv").open("w", newline="", encoding="utf-8") as runs_file,
        (folder / "losses.csv").open("w", newline="", encoding="utf-8") as losses_file,
    ):
        runs, losses = csv.writer(runs_file), csv.writer(losses_file)
        for position, scale in enumerate(SCALES):
            mixtures, domains = _rows(contents[scale.mixtures.path], MIXTURE, "")
            measured, targets = _rows(contents[scale.losses.path], LOSS, "_val_loss")
            if position == 0:
                runs.writerow(["run_id", "model_label", *(f"r_{d}" for d in domains)])
                losses.writerow(["run_id", "tokens", *(f"loss_{t}" for t in targets)])
                own = {f"loss_{t}": t if t in domains else None for t in targets}
            for index, shares in mixtures.items():
                run = f"{scale.label}-{index}"
                runs.writerow([run, scale.label, *shares])
                losses.writerow([run, scale.tokens, *measured[index]])
    about = {"source": SOURCE, "commit": COMMIT, "licence": "MIT", "own": own}
    (folder / "meta.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _rows(text: str, prefix: str, suffix: str) -> tuple[dict[str, list[str]], list[str]]:
    """Rows by their index, and the names of the columns."""
    head, *rows = csv.reader(io.StringIO(text, newline=""))
    names = [c.removeprefix(prefix).removesuffix(suffix) for c in head[1:]]
    return {row[0]: row[1:] for row in rows if row}, names
