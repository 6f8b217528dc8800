"""The result of a search as one page that a browser opens without a network.

`write_report` writes it; `verdict` is its first sentence, for a terminal. Plotly is imported
only when a page is written.
"""

from __future__ import annotations

from pathlib import Path

from bimix_tune import errors
from bimix_tune.atomic import write_atomic
from bimix_tune.loop.result import SearchResult
from bimix_tune.report.verdict import Verdict, verdict

__all__ = ["Verdict", "verdict", "write_report"]


def write_report(result: SearchResult, path: Path) -> Path:
    """Write the report of a search.

    Args:
        result: The search; whatever it lacks (fit, confirmation, losses) the page says so.
        path: The HTML file to write, replaced in one step.

    Returns:
        The path.

    Raises:
        MissingExtraError: Plotly is not installed.
    """
    try:
        from bimix_tune.report.page import render
    except ImportError as error:
        if (error.name or "").split(".")[0] != "plotly":
            raise
        raise errors.missing_extra("plotly", "report", "writing a report") from error
    write_atomic(path, render(result))
    return path
