"""``log.jsonl`` and ``logs/`` in the run folder: what happened, for programs and for people.

The log has one JSON object per event and is only ever appended to, line by line, so it can be
followed while the search runs. Curves are in the study; the log has what the study does not keep:
the order of things, retries, workers that come and go, and warnings.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bimix_tune.masking import masked
from bimix_tune.observing import (
    LawFitted,
    RunAsked,
    RunCheckpoint,
    RunEnded,
    RunOutput,
    RunRetried,
    RunStarted,
    SearchEvent,
    SlotsChanged,
    happened,
)

RUN_LOG_CHARACTERS = 1_000_000
"""Most that is kept of what one run printed; what became of it is always kept."""
_NAMES = {
    RunAsked: "asked",
    RunStarted: "started",
    RunCheckpoint: "checkpoint",
    RunRetried: "retried",
    SlotsChanged: "slots",
    LawFitted: "fit",
}
_FATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON; passwords in URLs are masked."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": at, "level": record.levelname, "event": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return masked(json.dumps(line, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


class _File(logging.FileHandler):
    """Keeps the error of a failed write, where logging would print it on the terminal."""

    error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.error is None:
            try:
                super().emit(record)
            except OSError as error:  # the file cannot be opened
                self.error = error

    def handleError(self, record: logging.LogRecord) -> None:
        self.error = sys.exc_info()[1]


class SearchLog:
    """Writes the events of a search, and the warnings of this package; an `Observer`.

    Args:
        path: The file; appended to if it exists.
    """

    name = "the search log"

    def __init__(self, path: Path) -> None:
        with suppress(OSError):  # then the first event says so
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _File(path, encoding="utf-8", delay=True)
        self._file.setFormatter(JsonFormatter())
        self._log = logging.Logger("search", logging.INFO)  # of this search alone
        self._log.addHandler(self._file)
        self._shared = (logging.getLogger("bimix_tune"), happened)
        for logger in self._shared:
            logger.addHandler(self._file)
        happened.setLevel(logging.INFO)
        driver = f"{socket.gethostname()}:{os.getpid()}"
        self._log.info("search", extra={"fields": {"driver": driver}})

    def __call__(self, event: SearchEvent) -> None:
        """Write one line; output of runs has files of its own."""
        if isinstance(event, RunOutput):
            return
        what = _FATES[event.state] if isinstance(event, RunEnded) else _NAMES[type(event)]
        fields = {k: v for k, v in vars(event).items() if k not in ("losses", "state")}
        self._log.info(what, extra={"fields": fields})
        if self._file.error is not None:
            self._detach()
            raise self._file.error

    def close(self) -> None:
        """Close the file."""
        self._detach()
        self._file.close()

    def _detach(self) -> None:
        for logger in self._shared:
            logger.removeHandler(self._file)


class RunLogs:
    """What each run printed, and the traceback of its failure; an `Observer`.

    A run that says nothing and does not fail has no file. The text came with the run's events, so
    no file system needs to be shared with the machine that it ran on.

    Args:
        folder: For files such as ``run-0012.log``.
    """

    name = "the logs of the runs"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[int, int] = {}  # characters, by run under way
        self._slots: dict[int, str] = {}

    def __call__(self, event: SearchEvent) -> None:
        """Append what belongs to a run."""
        if isinstance(event, RunStarted):
            self._slots[event.run] = event.slot
        elif isinstance(event, RunOutput):
            self._output(event)
        elif isinstance(event, RunRetried):
            self._append(event.run, self._mark(event.run, f"broke off: {event.cause}"))
        elif isinstance(event, RunEnded):
            if event.state == "FAIL":
                self._append(event.run, self._mark(event.run, f"failed: {event.cause}"))
            self._written.pop(event.run, None)
            self._slots.pop(event.run, None)

    def close(self) -> None:
        """Nothing is held open."""

    def _output(self, event: RunOutput) -> None:
        before = self._written.get(event.run, 0)
        room = RUN_LOG_CHARACTERS - before
        self._written[event.run] = before + len(event.text)
        if room > 0:
            text = event.text[:room]
            cut = "" if len(text) == len(event.text) else "\n--- the rest is left out"
            self._append(event.run, text.removesuffix("\n") + cut + "\n")

    def _mark(self, run: int, what: str) -> str:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        where = f" on {self._slots[run]}" if run in self._slots else ""
        return f"--- {at}{where}: {what}\n"

    def _append(self, run: int, text: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"run-{run:04d}.log").open("a", encoding="utf-8") as file:
            file.write(masked(text))
