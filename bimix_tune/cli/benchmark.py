"""``bimix-tune benchmark``: measure the methods themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bimix_tune.atomic import write_atomic
from bimix_tune.benchmark import (
    Result,
    Swarm,
    compare_laws,
    contenders,
    load_swarms,
    synthetic_swarm,
)
from bimix_tune.benchmark.summary import COLUMNS, NOTE, Summary, by_swarm, markdown, summarise
from bimix_tune.errors import ConfigError

benchmark = typer.Typer(
    help="Measure how good laws are on finished runs.", no_args_is_help=True, add_completion=False
)
console = Console(highlight=False, markup=False, emoji=False)


@benchmark.callback()
def _group() -> None:
    """Measure how good laws are on finished runs."""


@benchmark.command("laws")
def laws_command(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of swarms (runs.csv + losses.csv); default: an invented one."),
    ] = None,
    laws: Annotated[
        str | None, typer.Option(help="Laws and peers, such as bimix,auto,mean; default all.")
    ] = None,
    runs: Annotated[str, typer.Option(help="Numbers of runs to fit.")] = "8,16,32",
    draws: Annotated[int, typer.Option(help="Random draws of so many runs.")] = 10,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path(
        "runs/benchmark-laws"
    ),
    workers: Annotated[int, typer.Option(help="Processes of one thread each.")] = 1,
) -> None:
    """Compare how well laws predict runs that they were not fitted to.

    Stopped, the same command continues.

    Example: `bimix-tune benchmark laws --data swarms --runs 8,16 --laws bimix,transfer,mean`
    """
    names, notes = contenders(None if laws is None else _split(laws))
    swarms = [synthetic_swarm()] if data is None else load_swarms(data)
    if data is None:
        notes.append("no --data: on an invented swarm, whose truth is BiMix with transfer")
    for note in notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    for swarm in swarms:
        k, v = len(swarm.space.names), len(swarm.space.target_names)
        console.print(f"  {swarm.name}: {len(swarm.curves)} runs, {k} domains, {v} targets")
    counts = [_integer(n) for n in _split(runs)]
    try:
        results = _with_progress(swarms, output, names, counts, draws, workers)
    except KeyboardInterrupt:
        console.print("stopped; what was measured is kept: the same command continues")
        raise typer.Exit(130) from None
    summaries = summarise(results)
    write_atomic(output / "table.md", markdown(summaries))
    for table in _tables(summaries):
        console.print(table)
    console.print(f"tables: {output / 'table.md'}", soft_wrap=True)


def _with_progress(
    swarms: Sequence[Swarm],
    output: Path,
    laws: Sequence[str],
    runs: Sequence[int],
    draws: int,
    workers: int,
) -> list[Result]:
    columns = (TextColumn("  fits"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("fits", total=None)
        return compare_laws(
            swarms,
            output,
            laws=laws,
            runs=runs,
            draws=draws,
            workers=workers,
            monitor=lambda done, total: progress.update(bar, completed=done, total=total),
        )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--runs takes whole numbers such as 8,16, but got {text!r}") from None


def _tables(summaries: Sequence[Summary]) -> Iterator[RenderableType]:
    """One table for each swarm, with a section for each n."""
    for swarm, sections in by_swarm(summaries).items():
        table = Table(title=swarm, title_justify="left", header_style="bold")
        table.add_column("runs", justify="right")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "law" else "right")
        for n, rows in sections.items():
            for at, row in enumerate(rows):
                table.add_row("" if at else str(n), *row.cells())
            table.add_section()
        yield table
    yield Text(NOTE, style="dim")
