"""The workers of a `RayExecutor`: started, listened to, replaced, and as many as there is room.

Every worker has one question open at all times, `RayWorker.news`. Its answer brings messages,
and shows that the process can be reached; an error says that it is gone. Nothing here waits
for a worker without a limit: one that is cut off from the network never answers, and Ray says
so only after minutes.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bimix_tune.errors import ExecutorError
from bimix_tune.executors.base import Job
from bimix_tune.executors.ray_cluster import ray
from bimix_tune.executors.ray_recipe import Node, WorkerRecipe, live_nodes
from bimix_tune.executors.ray_worker import Down, Message, Up
from bimix_tune.observing import happened

_log = logging.getLogger(__name__)

FETCH_SECONDS = 30.0  # for an answer that Ray has announced
ASK_SECONDS = 2.0  # how long a worker may wait for something to tell
AGAIN_SECONDS = 0.5  # before a worker that Ray calls unavailable is asked again
ADJUST_SECONDS = 2.0  # between two looks at the nodes of the cluster
KILL_SECONDS = 5.0  # for all workers to be killed on closing
STARTS = 3  # failed starts in a row after which a slot is given up


@dataclass
class Clock:
    """When a job began and when it last went on, as far as is known."""

    started: float
    progressed: float


@dataclass(eq=False)
class Slot:
    """One worker and what it does.

    Args:
        actor: Its handle.
        group: The placement group that it is in, if any.
        failures: How often a worker in this place failed to start, in a row.
    """

    actor: Any
    group: Any = None
    failures: int = 0
    answer: Any = None  # to the question that is open
    asked: float = 0.0  # when it was opened
    ask_at: float = 0.0  # when to ask again, while none is open
    known: float = 0.0  # all that the worker told until then has been read
    confirmed: int = 0  # messages
    heard: float | None = None  # when it last answered; None while it has not been placed
    up: Up | None = None
    jobs: deque[Job] = field(default_factory=deque)  # those under way, one ready to follow
    clocks: dict[int, Clock] = field(default_factory=dict)  # of those under way, by id
    stopping: set[int] = field(default_factory=set)
    recalled: int | None = None
    gone: bool = False

    @property
    def name(self) -> str:
        """See `Started`."""
        return self.up.name if self.up else "a worker that is starting"

    @property
    def node(self) -> str:
        """The id of its node, once it is up."""
        return self.up.node if self.up else ""

    @property
    def room(self) -> int:
        """How many jobs it has under way at once."""
        return self.up.room if self.up else 1

    @property
    def under_way(self) -> list[Job]:
        """Jobs that it is training: it begins them in the order in which it got them."""
        return list(self.jobs)[: self.room]

    def lane(self, number: int) -> str:
        """The name of a place for one job; see `Started`."""
        return f"{self.name}/{number}" if self.room > 1 else self.name

    def begin(self) -> None:
        """Start the clocks of jobs that are now under way."""
        now = time.monotonic()
        ids = [job.id for job in self.under_way]
        self.clocks = {i: self.clocks.get(i) or Clock(now, now) for i in ids}

    def order(self, method: str, *args: Any) -> None:
        """Have a method run by the worker, in the order of the calls, and go on."""
        getattr(self.actor, method).options(concurrency_group="orders").remote(*args)


class Fleet:
    """All workers.

    Args:
        recipe: How to start one.
        limit: How many; None means as many as the cluster has room for.
        heartbeat: Seconds without an answer after which a worker counts as lost.
    """

    def __init__(self, recipe: WorkerRecipe, limit: int | None, heartbeat: float) -> None:
        self._recipe, self._limit, self._heartbeat = recipe, limit, heartbeat
        self._nodes: dict[str, Node] = {}
        self._given_up = 0
        self._adjusted = float("-inf")
        self.slots: list[Slot] = []
        self.adjust()

    @property
    def ready(self) -> list[Slot]:
        """Workers that can take jobs now, and whose node stays."""
        return [slot for slot in self.slots if slot.up and not self.is_leaving(slot.node)]

    @property
    def reached(self) -> bool:
        """Whether any worker has been placed."""
        return any(slot.heard is not None for slot in self.slots)

    def is_leaving(self, node: str) -> bool:
        """Whether a node has left the cluster or is about to."""
        return node not in self._nodes or self._nodes[node].leaving

    def look(self) -> None:
        """Note which nodes there are."""
        nodes = {node.id: node for node in live_nodes()}
        if nodes.keys() != self._nodes.keys():
            self._given_up = 0  # a new node may be whole where another is not
            for node in nodes.keys() ^ self._nodes.keys():
                what = "node up" if node in nodes else "node down"
                happened.info(what, extra={"fields": {"node": node}})
        self._nodes = nodes

    def adjust(self) -> None:
        """Follow the cluster as it grows and shrinks."""
        if time.monotonic() - self._adjusted < ADJUST_SECONDS:
            return
        self._adjusted = time.monotonic()
        self.look()
        staying = [s for s in self.slots if not (s.up and self.is_leaving(s.node))]
        places = self._limit or self._recipe.places(self._nodes.values())
        wanted = places - self._given_up
        for _ in range(wanted - len(staying)):
            self.slots.append(self._start())
        unplaced = [slot for slot in staying if slot.heard is None]
        idle = [s for s in self.slots if s.up and s not in staying and not s.jobs]
        for slot in [*unplaced[: max(0, len(staying) - wanted)], *idle]:
            self._drop(slot)

    def poll(self, timeout: float) -> Iterator[tuple[Slot, Message | Exception]]:
        """Wait for news of any worker; yield all that there are, errors of lost workers too."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.answer is None and slot.ask_at <= now:
                self._ask(slot)
        answers = {slot.answer: slot for slot in self.slots if slot.answer is not None}
        if not answers:
            time.sleep(min(timeout, AGAIN_SECONDS))
            return
        refs = list(answers)
        if not ray.wait(refs, timeout=timeout)[0]:
            return
        for ref in ray.wait(refs, num_returns=len(refs), timeout=0)[0]:
            yield from self._take(answers[ref])

    def silent(self) -> list[Slot]:
        """Workers that have not answered for the heartbeat."""
        late = time.monotonic() - self._heartbeat
        return [slot for slot in self.slots if slot.heard is not None and slot.heard < late]

    def replace(self, slot: Slot) -> None:
        """Kill a worker and start another in its place."""
        if not slot.gone:
            self.slots[self.slots.index(slot)] = self._start()
            self._bury(slot)

    def close(self) -> None:
        """Kill all workers."""
        threads = [self._bury(slot) for slot in self.slots]
        until = time.monotonic() + KILL_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self.slots.clear()

    def _start(self, failures: int = 0) -> Slot:
        slot = Slot(*self._recipe.start(), failures)
        self._ask(slot)
        return slot

    def _ask(self, slot: Slot) -> None:
        """Open the next question; the first one is answered at once."""
        wait = 0.0 if slot.heard is None else min(ASK_SECONDS, self._heartbeat / 4)
        slot.asked = time.monotonic()
        news = slot.actor.news.options(concurrency_group="news")
        slot.answer = news.remote(slot.confirmed, wait)

    def _take(self, slot: Slot) -> Iterator[tuple[Slot, Message | Exception]]:
        """Read the answer of a worker and ask it again."""
        if slot.gone:
            return
        answer, slot.answer = slot.answer, None
        try:
            messages = ray.get(answer, timeout=min(FETCH_SECONDS, self._heartbeat))
        except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError):
            _log.debug("%s is unavailable", slot.name, exc_info=True)
            slot.ask_at = time.monotonic() + AGAIN_SECONDS
        except Exception as error:  # noqa: BLE001 - whatever it was, the worker is lost
            yield from self._lost(slot, error)
        else:
            slot.heard, slot.known = time.monotonic(), slot.asked
            slot.confirmed += len(messages)
            self._ask(slot)
            for message in messages:
                if slot.gone:
                    return
                if isinstance(message, Up):
                    happened.info("worker up", extra={"fields": {"slot": message.name}})
                    slot.up, slot.failures = message, 0
                elif isinstance(message, Down):
                    yield from self._lost(slot, RuntimeError(message.cause))
                else:
                    yield slot, message

    def _lost(self, slot: Slot, error: Exception) -> Iterator[tuple[Slot, Exception]]:
        """A worker is gone: tell of one that was up, try again or give up one that was not."""
        _log.debug("%s is lost", slot.name, exc_info=error)
        if slot.up:
            yield slot, error
        elif slot.failures + 1 < STARTS:
            self.slots[self.slots.index(slot)] = self._start(slot.failures + 1)
            self._bury(slot)
        else:
            self._given_up += 1
            self._drop(slot)
            if not self.slots:
                raise ExecutorError(
                    f"the Ray workers cannot start ({essence(error)}); bimix-tune and what "
                    "the trainer needs must be installed on every node"
                ) from error

    def _drop(self, slot: Slot) -> None:
        self.slots.remove(slot)
        self._bury(slot)

    def _bury(self, slot: Slot) -> threading.Thread:
        """Kill a worker, in a thread: Ray may wait for a node that is cut off."""
        slot.gone = True
        happened.info("worker down", extra={"fields": {"slot": slot.name}})
        thread = threading.Thread(target=_kill, args=(slot.actor, slot.group), daemon=True)
        thread.start()
        return thread


def _kill(actor: Any, group: Any) -> None:
    with contextlib.suppress(Exception):  # it may be dead, or its node gone
        ray.kill(actor, no_restart=True)
    if group is not None:
        with contextlib.suppress(Exception):
            ray.util.remove_placement_group(group)


def essence(error: BaseException) -> str:
    """What happened, in one line: Ray's messages go on for a page.

    The last line that names an error, else the one that says why an actor is dead (without the
    guesses that follow), else the first.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b: ", line)]
    dead = [line for line in lines if re.match("The actor (is dead|died) because ", line)]
    said = (named[-1:] or dead or lines)[0].partition(" Some common causes")[0]
    return f"{type(error).__name__}: {said}"
