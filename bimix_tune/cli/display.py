"""Live progress of a search: one line for each finished run, and a panel that changes.

Where the output is no terminal (a log file, CI) the panel is left out and the lines remain.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bimix_tune.cli.tables import bar, percent
from bimix_tune.loop import RunRecord, SearchState

ENDED = ("COMPLETE", "PRUNED", "FAIL")


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if math.isnan(seconds):
        return "time left not known yet"
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s left"
    return f"about {seconds / 60:.0f} min left"


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how many are done, of how many; it is gone at the end."""
    columns = (TextColumn(f"  {what}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class Display:
    """Shows `SearchState`s; use as a context manager.

    Args:
        console: Where to.
        unit: Unit of the losses.
        began: When the command began, on the monotonic clock.
    """

    def __init__(self, console: Console, unit: str, began: float) -> None:
        self._console = console
        self._unit = unit
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._shown: set[int] | None = None
        self._told_first = False
        self._began = began

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, state: SearchState) -> None:
        """Show a state."""
        if self._shown is None:
            self._resumed(state)
        assert self._shown is not None
        for run in state.running:
            if run.objective is not None and not self._told_first:
                self._told_first = True
                seconds = time.monotonic() - self._began
                self._console.print(
                    f"first result after {seconds:.0f} s: run {run.trial.number} is at "
                    f"{run.objective:.4f} {self._unit} after {run.tokens:,} tokens",
                    highlight=False,
                )
        for record in state.records:
            if record.state in ENDED and record.number not in self._shown:
                self._shown.add(record.number)
                self._console.print(self._line(record), highlight=False)
        if self._console.is_terminal:
            self._live.update(self.panel(state))

    def _resumed(self, state: SearchState) -> None:
        """Do not list again what an earlier call finished."""
        done = {r.number for r in state.records if r.state in ENDED}
        self._shown = done
        if done:
            self._told_first = True
            self._console.print(f"continuing: {len(done)} runs are already done", highlight=False)

    def _line(self, record: RunRecord) -> Text:
        name = f"{record.role} {record.label}".strip()
        head = f"run {record.number:>3}  {name:<32}"
        if record.state == "FAIL":
            return Text(f"{head} failed: {record.cause}", style="red")
        loss = "" if record.objective is None else f"{record.objective:.4f}"
        if record.state == "PRUNED" and record.curve is not None:
            tokens = int(record.curve.tokens[-1])
            return Text(f"{head} {loss}  stopped early at {tokens:,} tokens", style="dim")
        expected = ""
        if record.predicted is not None:
            mean, sd = record.predicted
            expected = f"  (law said {mean:.4f} ± {sd:.4f})"
        return Text(f"{head} {loss}{expected}")

    def panel(self, state: SearchState) -> RenderableType:
        """The part that changes: where the search stands and what it believes."""
        head = f"{state.phase} {state.done}/{state.total}, {duration(state.eta)}"
        rows = Table.grid(padding=(0, 2))
        best = state.best
        if best is not None:
            name = best.label or best.role
            rows.add_row(
                "best so far", f"{best.objective:.4f} {self._unit}, run {best.number} ({name})"
            )
        if state.law is not None:
            rows.add_row("law", state.law.status)
        if state.optimum is not None:
            mixture, mean, sd = state.optimum
            shares = "  ".join(f"{n} {percent(r)}" for n, r in mixture.items())
            rows.add_row("predicted optimum", f"{mean:.4f} ± {sd:.4f}   {shares}")
        for run in state.running:
            share = run.tokens / state.tokens
            name = f"{run.role} {run.label}".strip()
            loss = "" if run.objective is None else f"{run.objective:.4f}"
            cells = f"{bar(share, 20)} {share:>4.0%}  {name}  {loss}"
            rows.add_row(f"run {run.trial.number}", cells)
        return Group(Text(head, style="bold"), rows)
