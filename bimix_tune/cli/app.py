"""Commands of ``bimix-tune``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import optuna
import typer
from rich.console import Console
from rich.text import Text

from bimix_tune import __version__
from bimix_tune.cli import tables
from bimix_tune.cli.benchmark import benchmark
from bimix_tune.cli.display import Display, absence
from bimix_tune.cli.law_commands import explain_command, fit_command, optimise_command
from bimix_tune.config import CorpusSection, RunConfig, check_storage, load_config
from bimix_tune.entropy import KINDS, domain_entropies, mixture_of_entropies
from bimix_tune.errors import BimixError, ConfigError
from bimix_tune.executors import Executor
from bimix_tune.loop import SearchResult, search
from bimix_tune.loop.ledger import records_of
from bimix_tune.loop.outcome import ENDED, load_study, outcome
from bimix_tune.loop.watching import Watcher, silence_of
from bimix_tune.masking import masked
from bimix_tune.planning import make_executor, make_observers, open_corpus, prepare
from bimix_tune.space import SearchSpace
from bimix_tune.strategies.baselines import baseline_mixtures

app = typer.Typer(
    help="Find the data mixture for pretraining a language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(benchmark, name="benchmark")
# Names, paths and causes of failures are text: `[/code]` is no style and `:books:` no emoji.
console = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)

RunFile = Annotated[Path, typer.Argument(help="A run file (YAML), such as examples/starter.yaml.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a search, such as runs/starter.")]
Storage = Annotated[
    str | None,
    typer.Option(help="Optuna storage URL, or '$NAME' of a variable that holds it."),
]
WATCH_SECONDS = 2.0


def say(message: str) -> None:
    """One step of the preparation."""
    console.print(f"  {message}", style="dim")


@app.command("search")
def search_command(
    file: RunFile,
    trials: Annotated[
        int | None, typer.Option(help="Runs of the search, baselines included.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/<file name>.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to attach to: host:port or auto.")
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Proxies trained at once; default all.")] = None,
    storage: Storage = None,
) -> None:
    """Run a mixture search, or continue one: train proxies, fit the law, recommend, confirm.

    Example: `bimix-tune search examples/starter.yaml`
    """
    changes: dict[str, Any] = {"search.trials": trials, "storage": storage}
    changes |= {"folder": str(folder) if folder else None, "executor.slots": slots}
    changes["executor.address"] = address
    config = load_config(file, {k: v for k, v in changes.items() if v is not None})
    try:
        result = _search(config, file)
    except KeyboardInterrupt:
        errors.print("stopped; what was finished is kept: the same command continues")
        raise typer.Exit(130) from None
    show(result)
    console.print(f"report: {_write_report(result)}", soft_wrap=True)


def _search(config: RunConfig, file: Path) -> SearchResult:
    """Prepare, then search with a live display."""
    began = time.monotonic()
    console.print(Text.assemble((f"bimix-tune {__version__}", "bold"), f"  {file}"))
    plan = prepare(config, file, say)
    if plan.corpus is not None:
        console.print(tables.corpus_table(plan.corpus))
    console.print(tables.mixtures_table(plan.baselines, "Training-free mixtures"))
    settings = config.search
    say(f"run folder {plan.folder}")
    with make_executor(config, plan.trainer) as executor:
        count = "one proxy" if executor.slots == 1 else f"{executor.slots} proxies"
        say(f"{count} at once, {plan.trainer.tokens:,} tokens each")
        dashboard = _dashboard(executor)
        if dashboard is not None:
            say(f"Ray dashboard {dashboard}")
        with Display(console, plan.trainer.unit, began, dashboard) as display:
            return search(
                plan.space,
                plan.trainer,
                folder=plan.folder,
                trials=settings.trials,
                worth=settings.worth,
                baselines=plan.baselines,
                executor=executor,
                storage=config.storage,
                settings=plan.settings,
                target_tokens=settings.target_tokens,
                repeats=settings.repeats,
                confirm_seeds=settings.confirm_seeds,
                rivals=settings.rivals,
                seed=settings.seed,
                monitor=display,
                observers=make_observers(config, plan.folder),
            )


def _dashboard(executor: Executor) -> str | None:
    """Where Ray shows its cluster, if this executor uses Ray and the cluster has a dashboard."""
    if type(executor).__module__ != "bimix_tune.executors.ray":
        return None
    from bimix_tune.executors.ray_metrics import dashboard_url

    return dashboard_url()


@app.command()
def status(
    folder: Folder,
    storage: Storage = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until the search ends, or Ctrl-C.")
    ] = False,
) -> None:
    """Show where a search stands, also while it runs in another process or on another machine.

    Example: `bimix-tune status runs/starter --watch`
    """
    url = check_storage(storage)
    if watch and not _watched(folder, url):
        return
    study, space = load_study(folder, url)
    records = records_of(study, space)
    counts: dict[str, int] = {}
    for record in records:
        counts[record.state] = counts.get(record.state, 0) + 1
    console.print(", ".join(f"{n} {state.lower()}" for state, n in sorted(counts.items())))
    if (silent := silence_of(study)) is not None:
        console.print(absence(silent), style="yellow")
    for record in records:
        if record.state == "FAIL":
            console.print(f"run {record.number} failed: {record.cause}", style="red")
    if any(record.state in ENDED for record in records):
        show(outcome(study, space, folder))
    else:
        console.print("no run has ended in order yet, so there is nothing to recommend")


def _watched(folder: Path, storage: str | None) -> bool:
    """Show a search until it ends; False if that was not waited for."""
    watcher = Watcher(folder, storage)
    try:
        with Display(console, watcher.unit) as display:
            while True:
                try:
                    display(watcher.state())
                except ConfigError as error:  # a database may be away for a while
                    console.print(masked(f"{error}; trying again"), style="yellow")
                if watcher.ended:
                    return True
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return False


@app.command()
def report(folder: Folder, storage: Storage = None) -> None:
    """Write the HTML report of a search, finished or not.

    Example: `bimix-tune report runs/starter`
    """
    study, space = load_study(folder, check_storage(storage))
    console.print(f"report: {_write_report(outcome(study, space, folder))}", soft_wrap=True)


app.command("fit")(fit_command)
app.command("optimise")(optimise_command)
app.command("explain")(explain_command)


@app.command()
def entropy(
    file: Annotated[str, typer.Argument(help="A run file, or: starter")] = "starter",
) -> None:
    """Print the entropies of a corpus and the training-free mixtures they give.

    Example: `bimix-tune entropy starter`
    """
    corpus = _corpus_of(file)
    entropies = {kind: domain_entropies(corpus, kind) for kind in KINDS}
    console.print(tables.entropy_table(entropies))
    mixtures = baseline_mixtures(SearchSpace(corpus.domains()))
    mixtures |= {kind: mixture_of_entropies(values) for kind, values in entropies.items()}
    console.print(tables.mixtures_table(mixtures, "Training-free mixtures"))


@app.command()
def corpus(
    file: Annotated[str, typer.Argument(help="A run file, or: starter")] = "starter",
) -> None:
    """Fetch and tokenise a corpus ahead of a search, and show what is in it.

    Example: `bimix-tune corpus examples/starter.yaml`
    """
    found = _corpus_of(file)
    console.print(tables.corpus_table(found))
    console.print(f"folder: {found.folder}", soft_wrap=True)


def show(result: SearchResult) -> None:
    """The end of a search on the terminal."""
    console.print(tables.recommendation_table(result))
    if result.settled is not None:
        console.print(f"the search has settled: {result.settled}")
    if result.fit is not None:
        console.print(f"law: {result.fit.status}")
        for note in result.fit.warnings:
            console.print(f"note: {note}", style="yellow")
    if result.confirmation is not None:
        console.print(tables.confirmation_table(result.confirmation, result.unit))
    from bimix_tune.report import verdict

    console.print(verdict(result).sentence, style="bold")


def _write_report(result: SearchResult) -> Path:
    from bimix_tune.report import write_report

    return write_report(result, result.folder / "report.html")


def _corpus_of(file: str) -> Any:
    if file == "starter":
        return open_corpus(CorpusSection(), Path(), say)
    section = load_config(file).corpus
    if section is None:
        raise ConfigError(f"{file} has no section `corpus`")
    return open_corpus(section, Path(file).parent, say)


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Notes(logging.Handler):
    """Shows warnings of this package above whatever is displayed."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(masked(f"note: {record.getMessage()}"), style="yellow", soft_wrap=True)


_notes = _Notes()


def _set_up_logging() -> None:
    """Warnings of this package are notes; of other libraries only errors are shown."""
    if not logging.getLogger().handlers:
        others = logging.StreamHandler()
        others.setLevel(logging.ERROR)
        logging.getLogger().addHandler(others)
    package = logging.getLogger("bimix_tune")
    package.setLevel(logging.WARNING)
    package.addHandler(_notes)


def main() -> None:
    """Entry point: errors that a user can mend are one message, without a traceback."""
    _set_up_logging()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.umask(os.umask(0) | 0o002)  # whatever a search writes, not everybody may change it
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except BimixError as error:
        message = masked(str(error))
        errors.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
        sys.exit(1)
