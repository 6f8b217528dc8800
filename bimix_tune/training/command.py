"""Any program as a trainer: it reads a mixture and prints its losses.

The program gets a JSON file of proportions by domain, and prints a line of JSON for each
evaluation: ``{"tokens": 1000, "losses": {"web": 3.2}, "decayed": false}``. Whatever else it
prints is ignored. A run is over when the program itself has ended; what it started and left
running ends with it, also where a run is stopped.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bimix_tune.curves import BITS_PER_BYTE, NATS_PER_TOKEN
from bimix_tune.errors import ConfigError, DivergedError, TrainingError
from bimix_tune.mixture import Mixture
from bimix_tune.observing import output
from bimix_tune.options import names
from bimix_tune.training.base import Checkpoint

SIGN_OF_LIFE = 1.0
"""Seconds of silence after which a checkpoint without losses is yielded."""
DRAIN = 1.0
"""Seconds to read what an ended program wrote, should a process that it left hold its output."""
LAST_LINES = 20
"""Lines of the program's error output that an error message repeats."""


@dataclass(frozen=True, kw_only=True)
class CommandTrainer:
    """Runs an external training program.

    Args:
        command: Program and arguments, as a list or as one line that is split like a shell
            does (no shell runs it). ``{mixture}`` becomes the path of the JSON file,
            ``{seed}`` and ``{tokens}`` become numbers.
        tokens: Training tokens of a complete run; the program must report losses there last.
        targets: Names of the losses that it reports.
        unit: Unit of the losses, ``"bits/byte"`` or ``"nats/token"``.
        grace: Seconds that a stopped program has to end before it is killed.

    Raises:
        ConfigError: The command is empty, has an open quote or never mentions ``{mixture}``, or
            another option is out of its range.
    """

    command: str | Sequence[str]
    tokens: int
    targets: tuple[str, ...]
    unit: str = NATS_PER_TOKEN
    grace: float = 10.0

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command) if isinstance(self.command, str) else self.command
        except ValueError as error:
            raise ConfigError(f"command {self.command!r} cannot be split: {error}") from error
        object.__setattr__(self, "command", tuple(str(word) for word in words))
        object.__setattr__(self, "targets", names("targets", self.targets))
        if not any("{mixture}" in word for word in self.command):
            raise ConfigError(
                f"command must contain {{mixture}}, the path of the file with the proportions, "
                f"but got {list(self.command)}"
            )
        if self.tokens < 1 or self.grace < 0 or not self.targets:
            raise ConfigError(
                "a command needs tokens >= 1, grace >= 0 and at least one target, but got "
                f"tokens={self.tokens!r}, grace={self.grace!r}, targets={self.targets!r}"
            )
        if self.unit not in (BITS_PER_BYTE, NATS_PER_TOKEN):
            raise ConfigError(
                f"unit must be {BITS_PER_BYTE!r} or {NATS_PER_TOKEN!r}, but got {self.unit!r}"
            )

    def run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """Run the program; see `bimix_tune.training.base.Trainer.run`.

        Raises:
            TrainingError: The program cannot start, fails, breaks the format, or ends early.
            DivergedError: It reports a loss that is not finite.
        """
        with tempfile.TemporaryDirectory(prefix="bimix-tune-") as folder:
            path = Path(folder) / "mixture.json"
            path.write_text(json.dumps(dict(mixture), indent=2), encoding="utf-8")
            program = _Program(self._words(path, seed), self.grace)
            try:
                yield from self._checkpoints(program, mixture)
            finally:
                program.end()

    def _words(self, path: Path, seed: int) -> list[str]:
        values = {"{mixture}": str(path), "{seed}": str(seed), "{tokens}": str(self.tokens)}
        words = list(self.command)
        for name, value in values.items():
            words = [word.replace(name, value) for word in words]
        return words

    def _checkpoints(self, program: _Program, mixture: Mixture) -> Iterator[Checkpoint]:
        began, seen = time.monotonic(), 0
        for line in program.lines():
            report = _report(line) if line is not None else None
            seconds = time.monotonic() - began
            if report is None:
                if line is None:
                    yield Checkpoint(seen, seconds=seconds)
                continue
            losses = self._losses(report, mixture)
            tokens = int(report["tokens"])
            if (losses and tokens <= seen) or tokens > self.tokens:
                raise TrainingError(
                    f"the program reported losses at {tokens} tokens after {seen} of "
                    f"{self.tokens}: tokens must increase up to the budget"
                )
            seen = tokens
            yield Checkpoint(tokens, losses, bool(report.get("decayed", False)), seconds)
        if seen != self.tokens:
            raise TrainingError(
                f"the program ended in order, but its last report is at {seen} of {self.tokens} "
                "tokens: print a line of JSON with tokens and losses at the end"
            )

    def _losses(self, report: dict[str, Any], mixture: Mixture) -> dict[str, float]:
        losses = report.get("losses") or {}
        if losses and set(losses) != set(self.targets):
            raise TrainingError(
                f"the program reported losses of {sorted(losses)}, but the targets are "
                f"{sorted(self.targets)}"
            )
        for name, loss in losses.items():
            if not isinstance(loss, int | float):
                raise TrainingError(f"the loss of {name!r} must be a number, but got {loss!r}")
            if not math.isfinite(loss):
                raise DivergedError(
                    f"loss of {name!r} became {loss} after {report['tokens']} tokens on {mixture!r}"
                )
        return {name: float(losses[name]) for name in self.targets if losses}


def _report(line: str) -> dict[str, Any] | None:
    """The report in a line of output, or None if it is something else."""
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    tokens = value.get("tokens") if isinstance(value, dict) else None
    if isinstance(tokens, int | float) and math.isfinite(tokens):
        return dict(value)
    if line.strip():
        output.info("%s", line.rstrip())
    return None


class _Program:
    """A running program in a process group of its own; threads read its output and await it."""

    def __init__(self, words: Sequence[str], grace: float) -> None:
        self._grace = grace
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: deque[str] = deque(maxlen=LAST_LINES)
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise TrainingError(f"the program {words[0]!r} cannot start: {error}") from error
        self._readers = [
            threading.Thread(target=self._read_output, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self._process.stderr,), daemon=True),
        ]
        for thread in (*self._readers, threading.Thread(target=self._await_end, daemon=True)):
            thread.start()

    def _read_output(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                self._lines.put(line)

    def _await_end(self) -> None:
        """Mark the end of the output, which the end of the pipe need not be."""
        self._process.wait()
        self._readers[0].join(DRAIN)
        self._lines.put(None)

    def _read_errors(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                self._errors.append(line.rstrip())
                output.info("%s", line.rstrip())

    def lines(self) -> Iterator[str | None]:
        """Lines of output as they come, and None for each `SIGN_OF_LIFE` of silence.

        Raises:
            TrainingError: The program ended by an error.
        """
        while True:
            try:
                line = self._lines.get(timeout=SIGN_OF_LIFE)
            except queue.Empty:
                yield None
                continue
            if line is None:
                break
            yield line
        code = self._process.wait()
        if code:
            self._readers[1].join(DRAIN)
            ended = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            last = "\n".join(self._errors) or "(it wrote nothing to its error output)"
            raise TrainingError(f"the program {ended}; its last words:\n{last}")

    def end(self) -> None:
        """Terminate the program if it still runs, then kill what is left of its group."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=self._grace)
        self._signal(signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join(DRAIN)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
