"""Results as tables of text, for the terminal and for a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bimix_tune.benchmark.training_speed.record import Speed


@dataclass(frozen=True)
class Sheet:
    """A table.

    Args:
        title: What it shows.
        head: Names of the columns; the first two are text, the others numbers.
        rows: Cells.
        note: How to read it.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def sheets(results: Sequence[Speed]) -> Iterator[Sheet]:
    """Of cases without a failure: how fast, and what else."""
    whole = [r for r in results if not r.failure]
    devices = list(dict.fromkeys((r.device, r.machine) for r in whole))
    for device, machine in devices:
        here = [r for r in whole if (r.device, r.machine) == (device, machine)]
        yield _speeds(here, device, machine)
        yield _rest(here)


def _speeds(results: Sequence[Speed], device: str, machine: str) -> Sheet:
    seconds = "processor second of one thread" if device == "cpu" else "second"
    unit = "tokens/cpu-s" if device == "cpu" else "tokens/s"
    on_gpu = any(r.kernels for r in results)
    kernels = ("kernels a step",) if on_gpu else ()
    head = ("case", "trainer", unit, "ours is faster", "GEMM peak", "ready after", *kernels)
    rows = [
        (
            f"{r.case}, {r.batch_tokens} tokens" if not at else "",
            name,
            f"{r.rate(name):,.0f}",
            "" if name == r.ours else str(r.ratio(r.ours, name)),
            f"{r.share_of_peak(name):.0%}",
            f"{r.warm[name]:.1f} s",
            *([str(r.kernels[name])] if on_gpu else []),
        )
        for r in results
        for at, name in enumerate(r.seconds)
    ]
    note = (
        f"On {machine}. Tokens for each {seconds}; how many times as fast the first trainer is: "
        "median over rounds in turn, with the 95 % interval of the median. GEMM peak: share of "
        "the speed that torch.matmul reaches in that precision. Ready after: start, compilation "
        "and warm-up, which are not in the ratio."
    )
    return Sheet("Speed of training", head, tuple(rows), note)


def _rest(results: Sequence[Speed]) -> Sheet:
    precisions = results[0].precisions
    head = ("case", "losses agree", *(f"{p} difference" for p in precisions))
    head += ("evaluation, saving", "first step after", "imports", "build", "step")
    rows = [
        (
            r.case,
            "no" if r.disagreements() else "yes",
            *(f"{r.difference(p):.0e}" for p in precisions),
            f"{r.overhead:.1%}",
            f"{sum(r.start.values()):.1f} s",
            *(f"{r.start[part]:.1f} s" for part in ("imports", "build", "first step")),
        )
        for r in results
    ]
    note = (
        "Difference: the greatest relative one of a step's loss between the two trainers. "
        "Evaluation, saving: share of the time of a short run. First step after: from the start "
        "of a new process, with warm caches."
    )
    return Sheet("The same training, and the rest of a run", head, tuple(rows), note)


def markdown(results: Sequence[Speed]) -> str:
    """All sheets as a text file."""
    parts = []
    for sheet in sheets(results):
        lines = [f"### {sheet.title}", "", _line(sheet.head)]
        lines.append("|" + "|".join("---" if at < 2 else "---:" for at in range(len(sheet.head))))
        lines[-1] += "|"
        lines += [_line(row) for row in sheet.rows]
        parts.append("\n".join([*lines, "", sheet.note]))
    parts += [f"{r.case}: {r.failure}" for r in results if r.failure]
    parts += [text for r in results if not r.failure for text in r.disagreements()]
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
