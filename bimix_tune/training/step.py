"""One optimiser step of a proxy: micro batches, gradients, clipping, AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bimix_tune.training.base import Checkpoint
from bimix_tune.training.cross_entropy import IGNORED
from bimix_tune.training.evaluate import Loss
from bimix_tune.training.kept import kept
from bimix_tune.training.parallel import own_rows, padded, place, shared, summed
from bimix_tune.training.parametrisation import parameter_groups
from bimix_tune.training.schedule import Steps

BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP = 1.0
"""AdamW's moments and decay, and the largest gradient norm: GPT-3 (Brown et al. 2020, app. B)."""


@dataclass(frozen=True)
class Proxy:
    """A model ready to train.

    Args:
        module: Holds the parameters, float32, on the device.
        loss: From inputs and labels, (B, S) each, to the cross-entropy summed over all tokens.
        device: Where it is.
        micro_batch: Sequences that go through the model at once.
        notes: What to record about the model; they may change while it trains.
        under_way: Takes and gives the checkpoints of its run, for a proxy that must know when it
            is trained.
    """

    module: nn.Module
    loss: Loss
    device: torch.device
    micro_batch: int
    notes: Mapping[str, str | float | int]
    under_way: Callable[[Iterator[Checkpoint]], Iterator[Checkpoint]] = iter


class Stepper:
    """Makes the optimiser steps of one run.

    Args:
        proxy: The model; its parameters change in place.
        steps: Sequence length, batch and schedule.
        learning_rate: Peak.
    """

    def __init__(self, proxy: Proxy, steps: Steps, learning_rate: float) -> None:
        self.optimiser = optimiser(proxy, learning_rate)
        self._proxy, self._steps, self._peak = shared(proxy), steps, learning_rate
        self._processes = place()[1]

    def __call__(self, step: int, batch: Tensor) -> Tensor:
        """Train on a batch.

        Args:
            step: Number of the step, from 0.
            batch: Windows of tokens on the device, int64, (B, S + 1); of the last step's, what
                is beyond the budget is ignored.

        Returns:
            Mean loss in nats per token, still on the device.
        """
        steps, device = self._steps, self._proxy.device
        tokens = steps.seen(step + 1) - steps.seen(step)
        inputs, labels = batch[:, :-1], batch[:, 1:].clone()
        labels.reshape(-1)[tokens:] = IGNORED
        inputs, labels = own_rows(inputs, 0), own_rows(labels, IGNORED)
        for group in self.optimiser.param_groups:
            group["lr"] = self._peak * group["factor"] * steps.factor(step)
        kept.give_back(weight.grad for weight in self._proxy.module.parameters())
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for at in range(0, len(inputs), self._proxy.micro_batch):
            part = slice(at, at + self._proxy.micro_batch)
            x, y = (
                padded(rows[part], self._proxy.micro_batch, filler).contiguous()
                for rows, filler in ((inputs, 0), (labels, IGNORED))
            )
            loss = self._proxy.loss(x, y) / tokens
            (loss * self._processes).backward()  # their gradients are averaged, not summed
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self._proxy.module.parameters(), CLIP)
        self.optimiser.step()
        return summed(total)


def optimiser(proxy: Proxy, learning_rate: float) -> torch.optim.Optimizer:
    """Fused AdamW with the rates of `parameter_groups`."""
    groups = parameter_groups(proxy.module, WEIGHT_DECAY)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=True)


def passes(steps: Steps, micro_batch: int) -> int:
    """How many micro batches a run has in this process, at most."""
    rows = -(-steps.batch // place()[1])
    return steps.count * -(-rows // micro_batch)
