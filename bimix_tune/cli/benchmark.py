"""``bimix-tune benchmark``: measure the methods themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bimix_tune.atomic import write_atomic
from bimix_tune.benchmark import (
    RUNS,
    TASKS,
    DataSet,
    Result,
    choose,
    compare_laws,
    contenders,
    fetch_regmix,
    load_data,
    markdown,
    summarise,
    synthetic_data,
    write_page,
)
from bimix_tune.benchmark.asks import time_asks
from bimix_tune.benchmark.folders import holds_runs, write_meta
from bimix_tune.benchmark.recording import record_swarm
from bimix_tune.benchmark.summary import failures
from bimix_tune.cli.benchmark_tables import summary_tables
from bimix_tune.cli.cluster_benchmark import cluster_command
from bimix_tune.cli.counting import counting
from bimix_tune.cli.strategies_benchmark import strategies_command
from bimix_tune.cli.training_benchmark import training_command
from bimix_tune.config import CACHE, load_config
from bimix_tune.errors import ConfigError, MissingExtraError
from bimix_tune.planning import make_executor, prepare

benchmark = typer.Typer(
    help="Measure how good laws, strategies and trainers are.",
    no_args_is_help=True,
    add_completion=False,
)
benchmark.command("strategies")(strategies_command)
benchmark.command("training")(training_command)
benchmark.command("cluster")(cluster_command)
console = Console(highlight=False, markup=False, emoji=False)


@benchmark.command("laws")
def laws_command(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of data sets (runs.csv + losses.csv); default: what `fetch` has "
            "fetched, or else invented runs."
        ),
    ] = None,
    swarms: Annotated[
        str | None, typer.Option(help="Some data sets, or some of their scales; default all.")
    ] = None,
    laws: Annotated[
        str | None, typer.Option(help="Laws and peers, such as bimix,auto,mean; default all.")
    ] = None,
    tasks: Annotated[str, typer.Option(help="What to predict.")] = ",".join(TASKS),
    runs: Annotated[str, typer.Option(help="Numbers of runs to fit.")] = ",".join(map(str, RUNS)),
    draws: Annotated[int, typer.Option(help="Random draws of so many runs.")] = 10,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path(
        "runs/benchmark-laws"
    ),
    workers: Annotated[
        int | None,
        typer.Option(help="Ray workers of one thread; default: all CPUs; 0: this process."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to attach to: host:port or auto.")
    ] = None,
) -> None:
    """Compare how well laws predict runs that they were not fitted to.

    Three tasks: `final` (the losses of other runs), `extrapolate` (the same from the first 40 %
    of the tokens) and `scales` (big runs from a few of them and many small ones). Stopped, the
    same command continues.

    Example: `bimix-tune benchmark laws --data swarms --runs 8,16 --laws bimix,transfer,mean`
    """
    names, notes = contenders(None if laws is None else _split(laws))
    sets = _data(data, notes)
    if swarms is not None:
        sets = choose(sets, _split(swarms))
    for note in notes:
        _note(note)
    _describe(sets)
    plan = {"laws": names, "tasks": _split(tasks), "runs": [_integer(n) for n in _split(runs)]}
    plan |= {"draws": draws, "workers": workers, "address": address}
    try:
        results = _with_progress(sets, output, plan)
    except KeyboardInterrupt:
        console.print("stopped; what was measured is kept: the same command continues")
        raise typer.Exit(130) from None
    _show(results, output)


@benchmark.command("fetch")
def fetch_command(
    output: Annotated[
        Path | None, typer.Option(help="Folder of data sets; default: in the user's cache.")
    ] = None,
) -> None:
    """Download the published runs of RegMix (0.3 MB, MIT), checked by their SHA-256.

    Example: `bimix-tune benchmark fetch`
    """
    place = fetch_regmix(output or _cache(), lambda step: console.print(f"  {step}", style="dim"))
    console.print(f"data set: {place}", soft_wrap=True)


@benchmark.command("asks")
def asks_command(
    trials: Annotated[str, typer.Option(help="Finished trials in the study.")] = "50,200,1000",
    domains: Annotated[int, typer.Option(help="Domains.", min=2)] = 17,
    targets: Annotated[int, typer.Option(help="Targets, no more than domains.", min=1)] = 13,
    asks: Annotated[int, typer.Option(help="Asks of each sampler.", min=2)] = 15,
) -> None:
    """Time how long samplers think about one trial: ours beside Optuna's, by turns.

    Example: `bimix-tune benchmark asks --trials 50,200`
    """
    if targets > domains:
        raise ConfigError(f"--targets must be <= --domains, but got {targets} > {domains}")
    table = Table(title="Processor seconds for one ask", title_justify="left")
    for column in ("sampler", "trials", "first", "median", "mean", "GP / median"):
        table.add_column(column, justify="left" if column == "sampler" else "right")
    for count in [_integer(text, "--trials") for text in _split(trials)]:
        found = time_asks(count, domains=domains, targets=targets, asks=asks)
        peer = next(f.median for f in found if f.sampler == "Optuna GP")
        for f in found:
            cells = [f"{x:.3f}" for x in (f.first, f.median, f.mean)]
            table.add_row(f.sampler, str(count), *cells, f"{peer / f.median:.1f}")
    console.print(table)


@benchmark.command("record")
def record_command(
    file: Annotated[Path, typer.Argument(help="A run file; its section `search` is not used.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder of the swarm; default runs/<file name>/swarm.")
    ] = None,
    mixtures: Annotated[int, typer.Option(help="Different mixtures, sparse and dense.")] = 128,
    repeated: Annotated[int, typer.Option(help="Mixtures trained with all seeds.")] = 16,
    seeds: Annotated[int, typer.Option(help="Seeds of the repeated mixtures.")] = 3,
) -> None:
    """Train a swarm of mixtures to the end, to benchmark on. Stopped, it continues.

    The folder is a data set: `curves.jsonl` with all checkpoints of the runs, and `meta.json` with
    the search space and the training-free mixtures. Give it to the other commands by `--data`.

    Example: `bimix-tune benchmark record examples/swarm.yaml`
    """
    config = load_config(file)
    plan = prepare(config, file, lambda step: console.print(f"  {step}", style="dim"))
    folder = output or plan.folder / "swarm"
    write_meta(folder / "meta.json", plan.space, plan.baselines)
    numbers = {"mixtures": mixtures, "repeated": repeated, "seeds": seeds}
    scale = str(config.trainer.get("size", ""))
    try:
        with (
            make_executor(config, plan.trainer) as executor,
            counting(console, "runs") as monitor,
        ):
            record_swarm(
                plan.space,
                plan.trainer,
                executor,
                folder / "curves.jsonl",
                **numbers,
                scale=scale,
                monitor=monitor,
            )
    except KeyboardInterrupt:
        console.print("stopped; the runs that ended are kept: the same command continues")
        raise typer.Exit(130) from None
    console.print(f"swarm: {folder}", soft_wrap=True)


def _cache() -> Path:
    """Where `fetch` puts data sets."""
    return CACHE.expanduser() / "swarms"


def _data(folder: Path | None, notes: list[str]) -> list[DataSet]:
    if folder is not None:
        return load_data(folder)
    if _cache().is_dir() and any(map(holds_runs, _cache().iterdir())):
        return load_data(_cache())
    notes.append(
        "no --data: on invented runs, whose truth is BiMix with transfer; for published ones: "
        "bimix-tune benchmark fetch"
    )
    return [synthetic_data()]


def _describe(sets: Sequence[DataSet]) -> None:
    for d in sets:
        for swarm in d.swarms:
            k, v = len(swarm.space.names), len(swarm.space.target_names)
            console.print(f"  {swarm.name}: {len(swarm.curves)} runs, {k} domains, {v} targets")
        if d.pair is not None:
            small, big = len(d.pair.small.curves), len(d.pair.big.curves)
            console.print(f"  {d.pair.name}: {small} and {big} runs")


def _with_progress(sets: Sequence[DataSet], output: Path, plan: dict[str, Any]) -> list[Result]:
    with counting(console, "fits") as monitor:
        return compare_laws(sets, output, **plan, monitor=monitor, say=_note)


def _show(results: Sequence[Result], output: Path) -> None:
    """Tables on the terminal and in files, and the page."""
    summaries = summarise(results)
    write_atomic(output / "table.md", markdown(summaries))
    for table in summary_tables(summaries):
        console.print(table)
    for failure in failures(results):
        _note(failure)
    console.print(f"tables: {output / 'table.md'}", soft_wrap=True)
    try:
        console.print(f"report: {write_page(summaries, output / 'report.html')}", soft_wrap=True)
    except MissingExtraError as error:
        _note(str(error))


def _note(text: str) -> None:
    console.print(f"note: {text}", style="yellow", soft_wrap=True)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _integer(text: str, option: str = "--runs") -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{option} takes whole numbers such as 8,16, but got {text!r}") from None
