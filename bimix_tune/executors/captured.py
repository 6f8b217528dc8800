"""What a training prints and logs, kept for the run folder."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from types import TracebackType
from typing import Any

from bimix_tune.observing import output

KEPT_CHARACTERS = 64_000
"""Most that is kept between two looks, the last of it; what came before is dropped."""


_entered: list[Captured] = []
_streams: list[Any] = []
"""Standard output and standard error as they were before anything was entered."""
_changing = threading.Lock()


class Captured(logging.Handler):
    """Standard output, standard error and the log of this process, while it is entered.

    Everything still goes where it went before, so that a debugger works. Where several threads
    have entered one each, every one gets what its thread writes, and all of them what is written
    by a thread that has entered none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._parts: deque[str] = deque()
        self._kept = self._dropped = 0

    def __enter__(self) -> Captured:
        with _changing:
            if not _entered:
                _streams[:] = sys.stdout, sys.stderr
                sys.stdout, sys.stderr = (_Tee(stream) for stream in _streams)
            self._thread = threading.get_ident()
            _entered.append(self)
        logging.getLogger().addHandler(self)
        output.addHandler(self)
        output.setLevel(logging.INFO)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _changing:
            _entered.remove(self)
            if not _entered:
                sys.stdout, sys.stderr = _streams
        logging.getLogger().removeHandler(self)
        output.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a log record that is of this training."""
        if self not in _listeners(record.thread):
            return
        text = record.getMessage() if record.name == output.name else self.format(record)
        self.keep(text + "\n")

    def keep(self, text: str) -> None:
        """Keep some text, at the cost of the oldest."""
        self._parts.append(text[-KEPT_CHARACTERS:])
        self._kept += len(text)
        self._dropped += max(0, len(text) - KEPT_CHARACTERS)
        while self._kept - self._dropped > KEPT_CHARACTERS:
            self._dropped += len(self._parts.popleft())

    def take(self) -> str:
        """What has been kept since the last look."""
        parts, self._parts, dropped = self._parts, deque(), self._dropped
        self._kept = self._dropped = 0
        return (f"--- {dropped:,} characters are left out\n" if dropped else "") + "".join(parts)


def _listeners(thread: int | None) -> list[Captured]:
    """Who gets what a thread writes."""
    return [c for c in _entered if c._thread == thread] or list(_entered)


class _Tee:
    """A stream that also gives what is written to it to those who have entered."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        for captured in _listeners(threading.get_ident()):
            captured.keep(text)
        return int(self._stream.write(text) or len(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
