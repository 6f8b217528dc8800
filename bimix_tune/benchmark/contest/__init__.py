"""Matches of search strategies on problems whose answer is known.

`compare_strategies` plays them, `Summary` works out who is better and how sure that is, and
`markdown`, `write_page` and `write_parquet` show it. The page needs plotly, Parquet files need
pyarrow; both are imported then.
"""

from pathlib import Path

from bimix_tune import errors
from bimix_tune.atomic import write_atomic
from bimix_tune.benchmark.contest.campaign import SEEDS, compare_strategies
from bimix_tune.benchmark.contest.match import Game, Match, play
from bimix_tune.benchmark.contest.metrics import Ground, Standing, ground, standings
from bimix_tune.benchmark.contest.parquet import write_parquet
from bimix_tune.benchmark.contest.summary import Summary
from bimix_tune.benchmark.contest.tables import Sheet, failures, markdown, sheets

__all__ = [
    "SEEDS",
    "Game",
    "Ground",
    "Match",
    "Sheet",
    "Standing",
    "Summary",
    "compare_strategies",
    "failures",
    "ground",
    "markdown",
    "play",
    "sheets",
    "standings",
    "write_page",
    "write_parquet",
]


def write_page(summary: Summary, path: Path) -> Path:
    """Write the results as one page that a browser opens without a network.

    Raises:
        MissingExtraError: Plotly is not installed.
    """
    try:
        from bimix_tune.benchmark.contest.page import render
    except ImportError as error:
        if (error.name or "").split(".")[0] != "plotly":
            raise
        raise errors.missing_extra("plotly", "report", "writing report.html") from error
    write_atomic(path, render(summary))
    return path
