"""Raw results as two Parquet files, for data frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bimix_tune import errors
from bimix_tune.benchmark.contest.match import Match

ONCE = ("problem", "digest", "strategy", "runs", "seed", "code", "complete")
ENDS = ("best_seen", "own", "law", "failure")
PER_RUN = ("tokens", "measured", "regret", "seconds", "cpu_seconds")


def write_parquet(matches: Sequence[Match], folder: Path) -> tuple[Path, Path]:
    """Write ``matches.parquet``, a row for each match, and ``steps.parquet``, one for each run.

    Columns are the fields of `Match`; ``step`` counts the runs of a match from zero.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise errors.missing_extra("pyarrow", "train", "writing parquet") from error
    whole = {n: [getattr(m, n) for m in matches] for n in (*ONCE, *ENDS)}
    whole |= {"steps": [len(m.tokens) for m in matches], "notes": [list(m.notes) for m in matches]}
    notes = {"notes": pa.array(whole.pop("notes"), pa.list_(pa.string()))}
    steps = {n: [getattr(m, n) for m in matches for _ in m.tokens] for n in ONCE}
    steps["step"] = [step for m in matches for step in range(len(m.tokens))]
    steps |= {n: [value for m in matches for value in getattr(m, n)] for n in PER_RUN}
    shares = [list(row) for m in matches for row in m.proportions]
    mixtures = {"proportions": pa.array(shares, pa.list_(pa.float64()))}
    paths = folder / "matches.parquet", folder / "steps.parquet"
    parquet.write_table(pa.table(whole | notes), paths[0])
    parquet.write_table(pa.table(steps | mixtures), paths[1])
    return paths
