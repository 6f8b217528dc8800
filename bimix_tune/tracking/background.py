"""An observer on a thread of its own: whatever it waits for, the search does not."""

from __future__ import annotations

import contextlib
import queue
import threading

from bimix_tune.errors import BimixError
from bimix_tune.observing import Observer, SearchEvent

WAITING_EVENTS = 10_000
"""Events that may wait for a slow observer before it is given up."""
CLOSE_SECONDS = 30.0
"""Longest wait for what is left at the end of a search."""


class Background:
    """Passes events on to another observer, in order.

    Args:
        observer: Who is told.
        name: What it is called in a warning.
    """

    def __init__(self, observer: Observer, name: str) -> None:
        self.name = f"the tracker {name!r}"
        self._observer = observer
        self._events: queue.Queue[SearchEvent | None] = queue.Queue(WAITING_EVENTS)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __call__(self, event: SearchEvent) -> None:
        """Queue an event.

        Raises:
            Exception: Whatever the observer raised before.
            queue.Full: It is too slow.
        """
        if self._error is not None:
            raise self._error
        self._events.put_nowait(event)

    def close(self) -> None:
        """Wait for the rest to be told, but not for ever.

        Raises:
            Exception: Whatever the observer raised.
            BimixError: It takes too long.
        """
        with contextlib.suppress(queue.Full):
            self._events.put(None, timeout=CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)
        if self._error is not None:
            raise self._error
        if self._thread.is_alive():
            raise BimixError(f"it has not taken everything within {CLOSE_SECONDS:g} s")

    def _work(self) -> None:
        try:
            while (event := self._events.get()) is not None:
                self._observer(event)
            self._observer.close()
        except Exception as error:  # noqa: BLE001 - told to the search with its next event
            self._error = error
