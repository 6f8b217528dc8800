"""``bimix-tune benchmark training``: how fast proxies train, beside `transformers.Trainer`.

A machine with GPUs often has PyTorch and no way to install more. There, in a copy of the
repository, ``python -m bimix_tune.cli.training_benchmark`` takes the same options and needs neither
Optuna nor Ray nor pydantic.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bimix_tune.atomic import write_atomic
from bimix_tune.benchmark.training_speed import (
    CASES,
    ROUNDS,
    Sheet,
    Speed,
    markdown,
    sheets,
    time_training,
)
from bimix_tune.cli.counting import counting
from bimix_tune.errors import BimixError, TrainingError, missing_extra
from bimix_tune.quantities import parse_count

console = Console(highlight=False, markup=False, emoji=False)


def training_command(
    cases: Annotated[
        str | None,
        typer.Option(
            help=f"Some of {', '.join(CASES)}; default all on a GPU, on a CPU those that "
            "take minutes."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each trainer.", min=1)] = ROUNDS,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch_tokens: Annotated[
        str | None, typer.Option(help="Tokens of a step; default: what suits the case.")
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(
            help="Instead, time so many proxies together beside one at a time; default case 0.1M."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path(
        "runs/benchmark-training"
    ),
) -> None:
    """Time our trainer beside `transformers.Trainer` at the same training, by turns.

    Both begin with the same weights and read the same text; the losses of all steps must agree.
    On a CPU one thread and its processor time count. The text is made up, nothing is downloaded.
    Stopped, the same command continues with the next case.

    Example: `bimix-tune benchmark training --cases 2k,4k --device cpu`
    """
    names = None if cases is None else [part.strip() for part in cases.split(",") if part.strip()]
    tokens = None if batch_tokens is None else parse_count(batch_tokens, "--batch-tokens")
    if members is not None:
        _time_members(members, names, rounds, device, tokens)
        return
    try:
        with counting(console, "cases") as monitor:
            results = time_training(
                output,
                names,
                rounds=rounds,
                device=device,
                batch_tokens=tokens,
                monitor=monitor,
            )
    except KeyboardInterrupt:
        console.print("stopped; the cases that ended are kept: the same command continues")
        raise typer.Exit(130) from None
    _show(results, output)


def _time_members(
    members: int, names: list[str] | None, rounds: int, device: str, tokens: int | None
) -> None:
    """Time an ensemble and print the result.

    Raises:
        TrainingError: The two sides do not train alike.
    """
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch", "train", "timing trainings")
    from bimix_tune.benchmark.training_speed.members import company_sheet, time_members

    results = time_members(members, names, rounds=rounds, device=device, batch_tokens=tokens)
    sheet = company_sheet(results)
    console.print(Text(f"\n{sheet.title}", style="bold"))
    console.print(_table(sheet))
    console.print(Text(sheet.note, style="dim"))
    if wrong := [r.case for r in results if not r.agrees]:
        raise TrainingError(f"together and alone do not train alike: {', '.join(wrong)}")


def _show(results: list[Speed], output: Path) -> None:
    """Tables on the terminal and in a file, then what went wrong.

    Raises:
        TrainingError: The trainers do not train alike, or a case failed.
    """
    write_atomic(output / "table.md", markdown(results))
    for sheet in sheets(results):
        console.print(Text(f"\n{sheet.title}", style="bold"))
        console.print(_table(sheet))
        console.print(Text(sheet.note, style="dim"))
    console.print(f"\ntables: {output / 'table.md'}", soft_wrap=True)
    wrong = [f"case {r.case}: {r.failure}" for r in results if r.failure]
    wrong += [text for r in results if not r.failure for text in r.disagreements()]
    if wrong:
        raise TrainingError("; ".join(wrong))


def _table(sheet: Sheet) -> Table:
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for at, column in enumerate(sheet.head):
        table.add_column(Text(column), justify="left" if at < 2 else "right")
    for row in sheet.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


if __name__ == "__main__":
    try:
        typer.run(training_command)
    except BimixError as error:
        sys.exit(f"error: {error}")
