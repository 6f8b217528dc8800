"""Proxies that train beside each other in one process and compute their gradients together.

The kernels of a very small proxy are so short that starting them takes longer than they do. So
the members of an ensemble wait for each other before each pass, one of them makes it for all on
a `StackedLlama`, and each goes on with its own gradients: everything else, from the data to
clipping, AdamW, evaluation and saving, is that of a run alone, and so is its state on disk. To a
training its `Member` is a loss like any other.

Every run needs a thread of its own. Only one of them works at any time, so that together they
take the one core that is theirs; and none waits for a run that has ended, or that is suspended
because nobody asks for its next checkpoint.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bimix_tune.training.base import Checkpoint
from bimix_tune.training.cross_entropy import IGNORED
from bimix_tune.training.evaluate import Loss
from bimix_tune.training.model import Llama
from bimix_tune.training.stacked import StackedLlama

WORTH = 1.05
"""Gain from which members go together: waiting for each other costs a few hundredths."""


@dataclass(frozen=True)
class Seconds:
    """What a step takes.

    Args:
        alone: Of one member.
        together: Of all members at once; as long if some of them are missing.
    """

    alone: float
    together: float

    def gain(self, members: int) -> float:
        """How many times as fast so many members are together as one after the other."""
        return members * self.alone / self.together


@dataclass(frozen=True)
class Call:
    """A member's wish for gradients: its parameters, and inputs and labels, (B, S) each."""

    parameters: tuple[Tensor, ...]
    inputs: Tensor
    labels: Tensor


Answer = tuple[Tensor, list[Tensor]]
"""Loss of a member and the gradients of its parameters."""


def gradients(module: StackedLlama, loss: Loss, calls: Sequence[Call]) -> list[Answer]:
    """Answer the calls of up to K members by one pass.

    Args:
        module: Takes the parameters of all members; nothing in it outlasts the pass.
        loss: Its losses, (K,), from inputs and labels, (K, B, S) each.
        calls: Of different members.
    """
    missing = module.members - len(calls)
    inputs, labels = (
        torch.stack([*rows, *(torch.full_like(rows[0], filler) for _ in range(missing))])
        for rows, filler in (([c.inputs for c in calls], 0), ([c.labels for c in calls], IGNORED))
    )
    stacks = list(module.parameters())
    with torch.no_grad():
        for stack, *own in zip(stacks, *(call.parameters for call in calls), strict=True):
            torch.stack(own, out=stack[: len(own)])
    losses = loss(inputs, labels)
    found = torch.autograd.grad(losses.sum(), stacks)
    return [(losses[k].detach(), [g[k] for g in found]) for k in range(len(calls))]


class Answered(torch.autograd.Function):
    """A loss whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, known: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.known = known
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *torch._foreach_mul(ctx.known, upstream[0])


class Ensemble:
    """Where members meet.

    Args:
        answer: Answers the calls of up to ``members`` members.
        members: How many go together at most.
        seconds: What that takes; None if it cannot be done here.
        verdict: That in words.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Call]], list[Answer]],
        members: int,
        seconds: Seconds | None,
        verdict: str,
    ) -> None:
        self._answer, self._members = answer, members
        self.seconds, self.verdict = seconds, verdict
        self._changed = threading.Condition()
        self._busy = False  # it is somebody's turn
        self._present: set[object] = set()
        self._waiting: dict[object, Call] = {}
        self._answers: dict[object, Answer | BaseException | None] = {}

    def pays(self, members: int) -> bool:
        """Whether so many members are faster together."""
        return self.seconds is not None and self.seconds.gain(members) >= WORTH

    @contextmanager
    def present(self, member: object) -> Iterator[None]:
        """Work on a run, when it is its turn; from now on the others wait for its calls."""
        with self._changed:
            self._present.add(member)
            self._changed.wait_for(lambda: not self._busy)
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._present.discard(member)
                self._waiting.pop(member, None)
                self._pass_turn()

    def meet(self, member: object, call: Call) -> Answer | None:
        """Wait until all who are present call, and get the answer; None: compute it alone.

        Raises:
            BaseException: What the common pass raised; all who took part get it.
        """
        with self._changed:
            if member not in self._present:
                return None
            self._waiting[member] = call
            self._pass_turn()
            self._changed.wait_for(lambda: not self._busy and self._may_go(member))
            self._busy = True
            waiting: dict[object, Call] = {}
            if member not in self._answers:
                waiting, self._waiting = self._waiting, {}
        self._answers.update(self._answered(waiting))
        answer = self._answers.pop(member)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _may_go(self, member: object) -> bool:
        """Whether there is an answer, or everything to find one."""
        return member in self._answers or len(self._waiting) == len(self._present)

    def _pass_turn(self) -> None:
        self._busy = False
        self._changed.notify_all()

    def _answered(self, waiting: dict[object, Call]) -> dict[object, Answer | BaseException | None]:
        found: dict[object, Answer | BaseException | None] = dict.fromkeys(waiting)
        for at in range(0, len(waiting), self._members):
            members = list(waiting)[at : at + self._members]
            if self.pays(len(members)):
                try:
                    answers = self._answer([waiting[member] for member in members])
                    found.update(zip(members, answers, strict=True))
                except BaseException as error:  # noqa: BLE001 - raised again by each of them
                    found.update(dict.fromkeys(members, error))
        return found


class Member:
    """The loss of a proxy that trains beside others.

    Args:
        ensemble: Where it meets them.
        module: Holds its parameters.
        alone: Its loss where no gradient is wanted, or where going together does not pay.
    """

    def __init__(self, ensemble: Ensemble, module: Llama, alone: Loss) -> None:
        self._ensemble, self._alone = ensemble, alone
        self._parameters = tuple(module.parameters())

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, summed over all tokens; inputs and labels (B, S)."""
        answer = None
        if torch.is_grad_enabled():
            answer = self._ensemble.meet(self, Call(self._parameters, inputs, labels))
        if answer is None:
            return self._alone(inputs, labels)
        value: Tensor = Answered.apply(*answer, *self._parameters)
        return value

    def under_way(self, checkpoints: Iterator[Checkpoint]) -> Iterator[Checkpoint]:
        """The checkpoints of its run, present only while they are being made."""
        while True:
            with self._ensemble.present(self):
                checkpoint = next(checkpoints, None)
            if checkpoint is None:
                return
            yield checkpoint
