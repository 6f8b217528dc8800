"""What a training prints and logs, kept for the run folder."""

from __future__ import annotations

import logging
import sys
from collections import deque
from types import TracebackType
from typing import Any

from bimix_tune.observing import output

KEPT_CHARACTERS = 64_000
"""Most that is kept between two looks, the last of it; what came before is dropped."""


class Captured(logging.Handler):
    """Standard output, standard error and the log of this process, while it is entered.

    Everything still goes where it went before, so that a debugger works.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._parts: deque[str] = deque()
        self._kept = self._dropped = 0

    def __enter__(self) -> Captured:
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Tee(stream, self.keep) for stream in self._streams)
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
        sys.stdout, sys.stderr = self._streams
        logging.getLogger().removeHandler(self)
        output.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a log record."""
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


class _Tee:
    """A stream that also keeps what is written to it."""

    def __init__(self, stream: Any, keep: Any) -> None:
        self._stream, self._keep = stream, keep

    def write(self, text: str) -> int:
        self._keep(text)
        return int(self._stream.write(text) or len(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
