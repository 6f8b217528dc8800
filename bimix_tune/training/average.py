"""A moving average of weights: what a checkpoint of the constant part is judged by.

At a constant learning rate the weights wander about where they are heading. Their average is
nearer to it, as the end of the decay is, and wanders less from seed to seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

SPAN = 8
"""The average after t steps weighs step u like ``u^(SPAN - 1)`` and lags by ``t / (SPAN + 1)``:
a fixed share of the run so far. So it follows the fast falls of the start, needs no correction
there, and bends no curve by the budget of its run, as an average over a share of that would."""


class Average:
    """Averages parameters in their own type and on their device.

    Args:
        parameters: They are read after every step, and exchanged for their average by `applied`.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._parameters = [p.detach() for p in parameters]
        self.values = [p.clone() for p in self._parameters]

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from one.

        ``average += min(1, SPAN / step) (weights - average)``.
        """
        torch._foreach_lerp_(self.values, self._parameters, min(1.0, SPAN / step))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the parameters hold their average, in the same memory: a compiled
        step or a captured graph goes on unharmed, and afterwards every bit is as before."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for weights, average in zip(self._parameters, self.values, strict=True):
            kept = weights.clone()
            weights.copy_(average)
            average.copy_(kept)
