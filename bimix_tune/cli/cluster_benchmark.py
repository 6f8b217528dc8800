"""``bimix-tune benchmark cluster``: how fast the driver is, and what it survives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import optuna
import typer
from rich.console import Console
from rich.table import Table

from bimix_tune.benchmark.cluster.command import PARTS, run_parts
from bimix_tune.benchmark.cluster.parts import Figure

console = Console(highlight=False, markup=False, emoji=False)


def cluster_command(
    only: Annotated[
        str, typer.Option(help=f"Some parts, of {', '.join(PARTS)}; default all.")
    ] = "",
    output: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path(
        "runs/benchmark-cluster"
    ),
) -> None:
    """Measure the driver of a search: its speed, its memory, and what faults cost.

    Trainings are simulated. The times of `small`, `throughput` and `scaling` are the driver's
    own, as on a machine with a core for it alone; `kills` kills the driver of a search twenty
    times, and `faults` lets everything go wrong on Ray nodes within this machine: workers, nodes
    and the driver are killed, trainings hang, memory is filled (3 GB), a state is damaged, the
    database is away for a minute. A network that is cut needs root, and has a test of its own.

    Example: `bimix-tune benchmark cluster --only small,kills`
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [name.strip() for name in only.split(",") if name.strip()]
    found = run_parts(names, output, lambda text: console.print(f"  {text}", style="dim"))
    console.print(_table(found))
    console.print(f"figures: {output / 'cluster.json'}", soft_wrap=True)
    if any(figure.met is False for figure in found):
        raise typer.Exit(1)


def _table(figures: Sequence[Figure]) -> Table:
    table = Table(title="Driver and cluster", title_justify="left")
    for column in ("part", "measured", "value", "required", ""):
        table.add_column(column, justify="right" if column == "value" else "left")
    for f in figures:
        verdict = "" if f.met is None else "met" if f.met else "NOT MET"
        value = ("yes" if f.value else "no") if f.required == "yes" else f"{f.value:,.3g}"
        table.add_row(f.part, f.name, value, f.required, verdict)
    return table
