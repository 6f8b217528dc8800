"""Commands of ``bimix-tune``."""

from __future__ import annotations

import json
import logging
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
from bimix_tune.atomic import write_atomic
from bimix_tune.cli import tables
from bimix_tune.cli.benchmark import benchmark
from bimix_tune.cli.display import Display
from bimix_tune.config import (
    CorpusSection,
    RunConfig,
    check_storage,
    load_config,
    make_executor,
    open_corpus,
    prepare,
)
from bimix_tune.curves import read_curves
from bimix_tune.entropy import KINDS, domain_entropies, mixture_of_entropies
from bimix_tune.errors import BimixError, ConfigError, did_you_mean
from bimix_tune.laws import LawFit, fit, optimise
from bimix_tune.loop import SearchResult, search
from bimix_tune.loop.ledger import records_of
from bimix_tune.loop.outcome import ENDED, load_study, outcome
from bimix_tune.quantities import parse_count
from bimix_tune.space import SearchSpace, load_space
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
    str | None, typer.Option(help="Optuna storage URL, if the search was given one.")
]


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
        with Display(console, plan.trainer.unit, began) as display:
            return search(
                plan.space,
                plan.trainer,
                folder=plan.folder,
                trials=settings.trials,
                baselines=plan.baselines,
                executor=executor,
                storage=config.storage,
                settings=plan.settings,
                target_tokens=settings.target_tokens,
                confirm_seeds=settings.confirm_seeds,
                rivals=settings.rivals,
                seed=settings.seed,
                monitor=display,
            )


@app.command()
def status(folder: Folder, storage: Storage = None) -> None:
    """Show where a search stands, also while it runs in another process.

    Example: `bimix-tune status runs/starter`
    """
    study, space = load_study(folder, check_storage(storage))
    records = records_of(study, space)
    counts: dict[str, int] = {}
    for record in records:
        counts[record.state] = counts.get(record.state, 0) + 1
    console.print(", ".join(f"{n} {state.lower()}" for state, n in sorted(counts.items())))
    for record in records:
        if record.state == "FAIL":
            console.print(f"run {record.number} failed: {record.cause}", style="red")
    if any(record.state in ENDED for record in records):
        show(outcome(study, space, folder))
    else:
        console.print("no run has ended in order yet, so there is nothing to recommend")


@app.command()
def report(folder: Folder, storage: Storage = None) -> None:
    """Write the HTML report of a search, finished or not.

    Example: `bimix-tune report runs/starter`
    """
    study, space = load_study(folder, check_storage(storage))
    console.print(f"report: {_write_report(outcome(study, space, folder))}", soft_wrap=True)


@app.command("fit")
def fit_command(
    path: Annotated[Path, typer.Argument(help="Folder, .jsonl or .csv of finished runs.")],
    space: Annotated[
        str | None, typer.Option(help="Search space (name or YAML); default: from the runs.")
    ] = None,
    law: Annotated[str, typer.Option(help="auto, or the name of a law.")] = "auto",
    scale: Annotated[str | None, typer.Option(help="Use the runs of this scale only.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the fitted law here (JSON).")] = None,
) -> None:
    """Fit a mixing law to finished runs and say how well it predicts left-out ones.

    Losses in tables count as nats per token unless a column `unit` says bits/byte; a column
    `decayed` marks losses at the end of the learning-rate decay.

    Example: `bimix-tune fit runs/starter --output law.json`
    """
    found = _fit(path, space, law, scale)
    console.print(tables.law_summary(found))
    if output is not None:
        write_atomic(output, json.dumps(found.to_dict(), indent=1) + "\n")
        console.print(f"law: {output}", soft_wrap=True)


@app.command("optimise")
def optimise_command(
    path: Annotated[Path, typer.Argument(help="A law (.json), or runs to fit one to.")],
    tokens: Annotated[str, typer.Option(help="Training tokens of the run to come: 1e9, 100B ...")],
    space: Annotated[
        str | None, typer.Option(help="Search space with the bounds; default: the law's own.")
    ] = None,
    max_epochs: Annotated[
        float | None, typer.Option(help="Cap on repeating a domain; needs its tokens.")
    ] = None,
) -> None:
    """Print the mixture that a law predicts to be best.

    Example: `bimix-tune optimise law.json --tokens 100B`
    """
    count = parse_count(tokens, "--tokens")
    if count < 1:
        raise ConfigError(f"--tokens must be >= 1, but got {tokens}")
    law = _load_law(path) if path.suffix == ".json" else _fit(path, space, "auto")
    bounds = law.space if space is None else load_space(space)
    if max_epochs is not None:
        bounds = bounds.cap_epochs(count, max_epochs)
    mixture = optimise(law, bounds, count)
    mean, sd = law.objective([mixture], count)
    shown = {"optimum": mixture, "natural": bounds.natural(), "uniform": bounds.uniform()}
    console.print(tables.mixtures_table(shown, "Mixtures"))
    console.print(f"predicted objective {mean[0]:.4f} ± {sd[0]:.4f} {law.unit} (one sd)")
    console.print_json(json.dumps(dict(mixture)))


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


def _fit(path: Path, space: str | None, law: str, scale: str | None = None) -> LawFit:
    curves = read_curves(path)
    if scale is not None:
        known = sorted({c.scale for c in curves})
        curves = [c for c in curves if c.scale == scale]
        if not curves:
            raise ConfigError(f"no run of scale {scale!r} in {path}" + did_you_mean(scale, known))
    if space is not None:
        return fit(curves, load_space(space), law)
    names = list(curves[0].mixture.names)
    targets = [{"name": t, "domain": t if t in names else None} for t in curves[0].targets]
    return fit(curves, SearchSpace.from_dict({"domains": names, "targets": targets}), law)


def _load_law(path: Path) -> LawFit:
    try:
        return LawFit.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"no law {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} holds no law written by `bimix-tune fit`: {error}") from error


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: errors that a user can mend are one message, without a traceback."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except BimixError as error:
        errors.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)
