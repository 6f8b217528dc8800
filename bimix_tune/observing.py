"""What happens in a search, as events, and whoever wants to be told.

An observer is called with each event and closed at the end. It sees a search and cannot hurt it:
one that raises is reported once and switched off.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bimix_tune.errors import one_line
from bimix_tune.mixture import Mixture

happened = logging.getLogger("bimix_tune.happened")
"""Where executors tell what is no run's: workers that come and go. Only a search log listens."""
happened.propagate = False

output = logging.getLogger("bimix_tune.output")
"""Where trainers put what other programs print. Only the log of a run listens."""
output.propagate = False

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunAsked:
    """A run was proposed or taken from the queue."""

    run: int
    role: str
    label: str
    mixture: Mixture
    seed: int


@dataclass(frozen=True)
class RunStarted:
    """A run began on a slot; after a fault it begins again, maybe on another one."""

    run: int
    slot: str


@dataclass(frozen=True)
class RunCheckpoint:
    """A run reported losses, ``objective`` being the weighted mean that is minimised."""

    run: int
    tokens: int
    losses: Mapping[str, float]
    objective: float


@dataclass(frozen=True)
class RunOutput:
    """A run printed or logged something."""

    run: int
    text: str


@dataclass(frozen=True)
class RunRetried:
    """A run broke off and is queued again."""

    run: int
    cause: str


@dataclass(frozen=True)
class RunEnded:
    """A run ended.

    Args:
        run: Its trial number.
        state: ``"COMPLETE"``, ``"PRUNED"`` or ``"FAIL"``.
        tokens: Training tokens that it has seen.
        objective: The last one reported, or None.
        seconds: Wall time since it was started.
        cause: Why it failed, or nothing.
    """

    run: int
    state: str
    tokens: int
    objective: float | None
    seconds: float
    cause: str = ""


@dataclass(frozen=True)
class SlotsChanged:
    """The executor has another number of slots."""

    total: int


@dataclass(frozen=True)
class LawFitted:
    """The law was fitted to all runs that have ended."""

    status: str


SearchEvent = (
    RunAsked
    | RunStarted
    | RunCheckpoint
    | RunOutput
    | RunRetried
    | RunEnded
    | SlotsChanged
    | LawFitted
)


class Observer(Protocol):
    """Is told the events of a search, in order; both methods must return soon."""

    def __call__(self, event: SearchEvent) -> None:
        """Take note of an event."""

    def close(self) -> None:
        """The search is over: write what is left."""


class Observers:
    """Several observers as one that never raises.

    Args:
        observers: Who is told.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._active = list(observers)

    def __call__(self, event: SearchEvent) -> None:
        """Tell all; one that fails is switched off."""
        for observer in tuple(self._active):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - it may be anybody's
                self._active.remove(observer)
                _report(observer, error)

    def close(self) -> None:
        """Close all that are still told."""
        while self._active:
            observer = self._active.pop(0)
            try:
                observer.close()
            except Exception as error:  # noqa: BLE001 - ditto
                _report(observer, error)


def _report(observer: Observer, error: Exception) -> None:
    name = getattr(observer, "name", type(observer).__name__)
    _logger.warning("%s failed and is switched off: %s", name, one_line(error))
