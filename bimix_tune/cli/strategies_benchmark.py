"""``bimix-tune benchmark strategies``: which strategy finds the best mixture, and how soon."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bimix_tune.atomic import write_atomic
from bimix_tune.benchmark.contest import (
    SEEDS,
    Match,
    Sheet,
    Summary,
    compare_strategies,
    failures,
    ground,
    markdown,
    sheets,
    write_page,
    write_parquet,
)
from bimix_tune.benchmark.contest.metrics import REFERENCE
from bimix_tune.benchmark.contest.registry import obstacle, played_on, players
from bimix_tune.benchmark.folders import load_data
from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.benchmark.problems.pool import Pool
from bimix_tune.benchmark.problems.starter import starter_swarm
from bimix_tune.benchmark.problems.training import Training
from bimix_tune.benchmark.swarms import DataSet
from bimix_tune.cli.counting import counting
from bimix_tune.config import load_config
from bimix_tune.errors import MissingExtraError
from bimix_tune.planning import prepare
from bimix_tune.training.torch_trainer import TorchTrainer

console = Console(highlight=False, markup=False, emoji=False)
OUTPUT = Path("runs/benchmark-strategies")
TRAINING = "training"
"""The problem made of real trainings."""
CAUSES = 10
"""Failures that are listed on the terminal."""


def strategies_command(
    problems: Annotated[
        str | None, typer.Option(help="Problems by name; default all that need no data.")
    ] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Strategies by name; default all that can play.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Matches of a strategy on a problem.")] = SEEDS,
    runs: Annotated[
        int | None, typer.Option(help="Runs of a match; default what each problem says.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of recorded runs, which become problems too."),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(
            help="A run file: its real trainings become the problem `training`, judged by two "
            "more trainings of each mixture; for few runs and seeds."
        ),
    ] = None,
    reference: Annotated[
        str, typer.Option(help="Strategy whose final quality the others are to reach.")
    ] = REFERENCE,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = OUTPUT,
    workers: Annotated[
        int | None,
        typer.Option(help="Ray workers of one thread; default: all CPUs; 0: this process."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to attach to: host:port or auto.")
    ] = None,
) -> None:
    """Compare how soon strategies find good mixtures, on problems whose answer is known.

    Stopped, the same command continues; with more seeds or other names it adds to what is there.

    Example: `bimix-tune benchmark strategies --strategies random,bimix-tune --seeds 5`
    """
    sets = [] if data is None else load_data(data)
    more = {} if training is None else {TRAINING: lambda: _training(training, sets, output)}
    grounds = played_on(None if problems is None else _split(problems), sets, more)
    classes, notes = players(None if strategies is None else _split(strategies))
    for note in notes:
        _note(note)

    def say(text: str) -> None:
        notes.append(text)
        _note(text)

    options: dict[str, Any] = {"problems": problems, "strategies": strategies, "seeds": seeds}
    options |= {
        "runs": runs,
        "data": data,
        "training": training,
        "reference": reference,
        "output": output,
    }
    plan: dict[str, Any] = {"strategies": classes, "obstacle": obstacle, "seeds": seeds}
    plan |= {"runs": runs, "workers": workers, "address": address, "say": say}
    _describe(grounds)
    try:
        matches = _with_progress(grounds, output, plan)
    except KeyboardInterrupt:
        console.print("stopped; the matches that ended are kept: the same command continues")
        raise typer.Exit(130) from None
    places = [ground(p) for p in grounds if any(m.problem == p.name for m in matches)]
    _show(Summary(matches, places, reference, tuple(notes), _command(options)), output)


def _training(file: Path, data: list[DataSet], output: Path) -> Training:
    """Real trainings, on the scale of the swarm of the first data set, or else of the starter's."""
    config = load_config(file)
    plan = prepare(config, file, lambda step: console.print(f"  {step}", style="dim"))
    swarms = [swarm for d in data for swarm in d.swarms]
    if swarms:
        pool = Pool.of(swarms[0], data[0].name, "mean")
    else:
        pool = Pool.of(starter_swarm(), "starter", "mean")
    trainer = plan.trainer
    if isinstance(trainer, TorchTrainer):  # no match goes on from where another one stopped a run
        trainer = dataclasses.replace(trainer, states=None)
    return Training.of(pool, trainer, output / "judgements", TRAINING)


def _describe(problems: list[Problem]) -> None:
    for p in problems:
        k, v = len(p.space.names), len(p.space.target_names)
        size = "" if p.candidates is None else f", {len(p.candidates)} candidates"
        console.print(f"  {p.name}: {p.kind}, {k} domains, {v} targets{size}")


def _with_progress(problems: list[Problem], output: Path, plan: dict[str, Any]) -> list[Match]:
    with counting(console, "matches") as monitor:
        return compare_strategies(problems, output, **plan, monitor=monitor)


def _show(summary: Summary, output: Path) -> None:
    """Tables on the terminal and in files, the page, and the raw results."""
    write_atomic(output / "table.md", markdown(summary))
    for sheet in sheets(summary):
        console.print(Text(f"\n{sheet.title}", style="bold"))
        for part in sheet.parts(console.width - 2):
            console.print(_table(part))
        console.print(Text(sheet.note, style="dim"))
    causes = failures(summary)
    for cause in causes[:CAUSES]:
        _note(cause)
    if len(causes) > CAUSES:
        _note(f"and {len(causes) - CAUSES} more causes of failures: see table.md")
    console.print(f"\ntables: {output / 'table.md'}", soft_wrap=True)
    try:
        for path in write_parquet(summary.matches, output):
            console.print(f"raw results: {path}", soft_wrap=True)
    except MissingExtraError as error:
        _note(str(error))
    try:
        console.print(f"report: {write_page(summary, output / 'report.html')}", soft_wrap=True)
    except MissingExtraError as error:
        _note(str(error))


def _table(sheet: Sheet) -> Table:
    """A sheet for the terminal, the best cells bold."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for at, (column, width) in enumerate(zip(sheet.head, sheet.widths, strict=True)):
        table.add_column(Text(column), justify="right" if at else "left", width=width)
    for i, row in enumerate(sheet.rows):
        cells = [Text(c, style="bold" if (i, j) in sheet.best else "") for j, c in enumerate(row)]
        table.add_row(*cells)
    return table


def _command(options: dict[str, Any]) -> str:
    """The command line that gives the same results."""
    given = {k: str(v) for k, v in options.items() if v is not None}
    parts = [part for name, value in given.items() for part in (f"--{name}", value)]
    return shlex.join(["bimix-tune", "benchmark", "strategies", *parts])


def _note(text: str) -> None:
    console.print(f"note: {text}", style="yellow", soft_wrap=True)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
