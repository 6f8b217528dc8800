"""How well laws predict runs that they have not seen, on swarms of finished runs.

Each law, and other people's models beside them (`bimix_tune.benchmark.peers`), is fitted to a
few runs and judged by others, in the three tasks of `bimix_tune.benchmark.tasks`; all get the
same draws. `write_page` shows the results; it needs plotly, which is imported then.
"""

from pathlib import Path

from bimix_tune import errors
from bimix_tune.atomic import write_atomic
from bimix_tune.benchmark.fitters import contenders
from bimix_tune.benchmark.folders import choose, load_data, synthetic_data, synthetic_swarm
from bimix_tune.benchmark.law_comparison import RUNS, compare_laws
from bimix_tune.benchmark.regmix import fetch_regmix
from bimix_tune.benchmark.results import Result, read_results
from bimix_tune.benchmark.summary import Summary, markdown, summarise
from bimix_tune.benchmark.swarms import DataSet, ScalePair, Swarm, data_set
from bimix_tune.benchmark.tasks import TASKS

__all__ = [
    "RUNS",
    "TASKS",
    "DataSet",
    "Result",
    "ScalePair",
    "Summary",
    "Swarm",
    "choose",
    "compare_laws",
    "contenders",
    "data_set",
    "fetch_regmix",
    "load_data",
    "markdown",
    "read_results",
    "summarise",
    "synthetic_data",
    "synthetic_swarm",
    "write_page",
]


def write_page(summaries: list[Summary], path: Path) -> Path:
    """Write the results as one page that a browser opens without a network.

    Raises:
        MissingExtraError: Plotly is not installed.
    """
    try:
        from bimix_tune.benchmark.page import render
    except ImportError as error:
        if (error.name or "").split(".")[0] != "plotly":
            raise
        raise errors.missing_extra("plotly", "report", "writing report.html") from error
    write_atomic(path, render(summaries))
    return path
