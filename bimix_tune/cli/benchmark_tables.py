"""The results of a benchmark on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bimix_tune.benchmark.summary import COLUMNS, MEANING, NOTE, Summary, by_task


def summary_tables(summaries: Sequence[Summary]) -> Iterator[RenderableType]:
    """One table for each task and swarm, with a section for each n."""
    for task, swarms in by_task(summaries).items():
        yield Text.assemble("\n", (task, "bold"), f"  {MEANING[task]}")
        for swarm, sections in swarms.items():
            yield _table(f"{task}: {swarm}", sections)
    yield Text(NOTE, style="dim")


def _table(title: str, sections: dict[int, list[Summary]]) -> Table:
    """Without upright lines, so that it fits into 80 columns."""
    table = Table(title=Text(title), title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    table.add_column("runs", justify="right", no_wrap=True)
    for column in COLUMNS:
        name = column == "law"  # the only one that may wrap
        table.add_column(column, justify="left" if name else "right", no_wrap=not name)
    for n, rows in sections.items():
        for at, row in enumerate(rows):
            table.add_row("" if at else str(n), *(Text(cell) for cell in row.cells()))
        table.add_section()
    return table
