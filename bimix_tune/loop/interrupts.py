"""Ctrl-C between two steps of a search, never in the middle of one.

Python raises `KeyboardInterrupt` wherever it happens to be: inside a database driver in the
middle of a write, say, which then prints a page of complaints. A search spends its time waiting
for events, so it lets itself be interrupted there.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Holds back signals until a moment at which they do no harm.

    While `deferred` is open, the handlers of SIGINT and SIGTERM that were there before run
    inside `allowed` only, or when `deferred` ends. A second signal does not wait.
    """

    def __init__(self) -> None:
        self._allowed = False
        self._held: list[Callable[[], Any]] = []

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold signals back from here on. Elsewhere than in the main thread it does nothing,
        and a signal whose handler is no Python function keeps its effect."""
        before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            before = {s: h for s in SIGNALS if callable(h := signal.getsignal(s))}
        try:
            for signum, handler in before.items():
                signal.signal(signum, self._holding(handler))
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        self._release()

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let a signal take effect at once, one that was held back first of all."""
        self._allowed = True
        try:
            self._release()
            yield
        finally:
            self._allowed = False

    def sleep(self, seconds: float) -> None:
        """Wait, and let a signal take effect meanwhile."""
        with self.allowed():
            time.sleep(seconds)

    def _release(self) -> None:
        if self._held:
            handler = self._held.pop()
            self._held.clear()
            handler()

    def _holding(self, handler: Callable[[int, FrameType | None], Any]) -> Any:
        def hold(signum: int, frame: FrameType | None) -> None:
            if self._allowed or self._held:
                self._held.clear()
                handler(signum, frame)
            else:
                self._held.append(lambda: handler(signum, None))

        return hold
