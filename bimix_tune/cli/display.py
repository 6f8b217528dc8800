"""Live progress of a search: one line for each finished run, and a panel that changes.

Where the output is no terminal (a log file, CI) the panel is left out and the lines remain.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bimix_tune.cli.tables import bar, percent
from bimix_tune.loop import RunRecord, SearchState
from bimix_tune.loop.utilisation import utilisation

ROWS = 8
"""Most runs under way, hosts and causes that are listed."""
CAUSE_WIDTH = 90
PLAIN_SECONDS = 60.0
"""Between two lines that say where a search stands, where there is no terminal."""
LEVELS = "▁▂▃▄▅▆▇█"
ENDED = ("COMPLETE", "PRUNED", "FAIL")


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if math.isnan(seconds):
        return "time left not known yet"
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s left"
    return f"about {seconds / 60:.0f} min left"


class Display:
    """Shows `SearchState`s; use as a context manager.

    Args:
        console: Where to.
        unit: Unit of the losses.
        began: When the command began, on the monotonic clock; None for a search that is only
            watched.
        dashboard: Address of a dashboard of the cluster, if there is one.
    """

    def __init__(
        self, console: Console, unit: str, began: float | None = None, dashboard: str | None = None
    ) -> None:
        self._console = console
        self._unit = unit
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown: set[int] | None = None
        self._told_first = began is None
        self._began = time.monotonic() if began is None else began
        self._watching = began is None
        self._dashboard = dashboard
        self._headed = time.monotonic()
        self._silent = False

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
        is_silent = state.silent is not None
        if self._console.is_terminal:
            self._live.update(self.panel(state), refresh=True)
        elif time.monotonic() - self._headed > PLAIN_SECONDS or self._silent != is_silent:
            self._headed, self._silent = time.monotonic(), is_silent
            self._console.print(head(state), highlight=False)

    def _resumed(self, state: SearchState) -> None:
        """Do not list again what an earlier call finished."""
        done = {r.number for r in state.records if r.state in ENDED}
        self._shown = done
        if done:
            self._told_first = True
            what = "watching" if self._watching else "continuing"
            self._console.print(f"{what}: {len(done)} runs are already done", highlight=False)

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
        rows = Table.grid(padding=(0, 2))
        live = {run.trial.number: run.tokens for run in state.running}
        running = [r for r in state.records if r.state == "RUNNING"]
        if state.silent is not None:
            rows.add_row("cut short", f"{len(running)} runs, which will be queued again")
            running = []
        else:
            for row in _slots(state, live):
                rows.add_row(*row)
        for name, causes in _troubles(state.records).items():
            rows.add_row(name, _counted(causes))
        if self._dashboard:
            rows.add_row("Ray dashboard", self._dashboard)
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
        for run in running[:ROWS]:
            seen = 0 if run.curve is None else int(run.curve.tokens[-1])
            share = max(seen, live.get(run.number, 0)) / state.tokens
            name = f"{run.role} {run.label}".strip()
            loss = "" if run.objective is None else f"{run.objective:.4f}"
            loss = loss if run.slot or seen else "ready for the next slot"
            rows.add_row(f"run {run.number}", f"{bar(share, 20)} {share:>4.0%}  {name}  {loss}")
        if len(running) > ROWS:
            rows.add_row("", f"and {len(running) - ROWS} more")
        return Group(Text(head(state), style="bold"), rows)


def head(state: SearchState) -> str:
    """Where a search stands, in a line."""
    if state.phase == "ended":
        return f"ended after {state.done} runs"
    rest = duration(state.eta) if state.silent is None else absence(state.silent)
    return f"{state.phase} {state.done}/{state.total}, {rest}"


def absence(seconds: float) -> str:
    """That no driver is there, since when, and what to do."""
    since = timedelta(seconds=round(seconds))
    return f"no driver for {since}: resume with the same `bimix-tune search` command"


def _slots(state: SearchState, live: Mapping[int, int]) -> Iterator[tuple[str, str]]:
    """How busy the slots are: one row for all, and one for each host with a mark per slot."""
    now = time.time()
    found = utilisation(state.records, now, live)
    if not found.busy:
        return
    speed = f"{found.tokens_per_second:,.0f} tokens/s"
    count = max(state.slots, found.running)
    yield "slots", f"{found.running} of {count} with a run, {found.mean:.0%} busy lately, {speed}"
    hosts: dict[str, list[float]] = {}
    for slot, share in found.busy.items():
        hosts.setdefault(slot.partition("/")[0], []).append(share)
    for host, shares in list(hosts.items())[:ROWS]:
        marks = "".join(LEVELS[min(int(share * 8), 7)] for share in shares)
        yield f"  {host}", f"{marks} {sum(shares) / len(shares):.0%}"
    if len(hosts) > ROWS:
        yield "", f"and {len(hosts) - ROWS} more hosts"


def _troubles(records: Iterable[RunRecord]) -> dict[str, Counter[str]]:
    """Causes of retries and of failures, counted."""
    found: dict[str, Counter[str]] = {"retried": Counter(), "failed": Counter()}
    for record in records:
        found["retried"].update(record.retries)
        if record.state == "FAIL":
            found["failed"][record.cause] += 1
    return {name: causes for name, causes in found.items() if causes}


def _counted(causes: Counter[str]) -> str:
    """The most frequent causes, a line each."""
    lines = []
    for cause, count in causes.most_common(ROWS):
        flat = " ".join(cause.split()) or "no cause is known"
        short = flat if len(flat) <= CAUSE_WIDTH else flat[: CAUSE_WIDTH - 1] + "…"
        lines.append(f"{count} x {short}")
    more = len(causes) - len(lines)
    return "\n".join([*lines, *([f"and {more} other causes"] if more else [])])
