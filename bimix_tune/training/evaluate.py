"""Validation losses on windows that are the same for every run.

All runs of a search read the same validation text, so the luck of its choice cancels when two
mixtures are compared; neither the seed nor the mixture moves a window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bimix_tune.training.parallel import place, summed

FORWARD_COST = 0.6
"""Time of evaluating a token over that of training on one, at most: 0.31 to 0.50 were measured on a
CPU core where both run as they are written, and a compiled step is a quarter faster than that."""
EVALUATION_SHARE = 0.08
"""Greatest share of a run's time that evaluations may take; saving may take another hundredth.
Less would be false economy: after 300k tokens of 0.4M parameters, reading 2560 tokens of each of 7
targets blurs the mean difference of two mixtures by 0.02 to 0.03 bits per byte (10k: half of that),
where the noise of a seed is 0.012."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From inputs and labels, (B, S) each, to the cross-entropy in nats, summed over all tokens."""


def affordable_tokens(wanted: int, tokens: int, targets: int, evaluations: int) -> tuple[int, int]:
    """Validation tokens per target that keep evaluation within `EVALUATION_SHARE` of the time.

    The last evaluation may take half of that time and the n earlier ones the other half, since
    it is the last one that decides between mixtures:
    ``E <= EVALUATION_SHARE / 2 * T / (FORWARD_COST * targets * n)``. Long runs can afford all that
    is wanted, and stay below it.

    Args:
        wanted: The number asked for.
        tokens: Training tokens T of the run.
        targets: Number of targets.
        evaluations: Number of evaluations in the run, n + 1.

    Returns:
        Tokens of each early evaluation and of the last one.
    """
    limit = EVALUATION_SHARE / 2 * tokens / (FORWARD_COST * targets)
    early, last = (max(1, min(wanted, int(limit / n))) for n in (max(1, evaluations - 1), 1))
    return early, last


def fixed_windows(tokens: NDArray[np.unsignedinteger], length: int, count: int) -> NDArray[Any]:
    """Windows spread evenly over a validation text, (W, length + 1) with W <= count.

    Args:
        tokens: The text, (N,) with N > length.
        length: Tokens predicted in a window.
        count: Windows wanted; fewer come where the text is shorter.
    """
    available = (len(tokens) - 1) // length
    count = max(1, min(count, available))
    starts = np.linspace(0, len(tokens) - 1 - length, count).astype(np.int64)
    return tokens[starts[:, None] + np.arange(length + 1)].astype(np.int64)


class Evaluator:
    """Measures the loss of every target.

    Args:
        texts: Validation tokens by target, each (N,).
        length: Tokens of a sequence.
        tokens: Validation tokens to read per target.
        factors: What turns nats per token into the unit of the losses, by target.
        device: Where the model is.
        micro_batch: Sequences to read at once.
    """

    def __init__(
        self,
        texts: Mapping[str, NDArray[np.unsignedinteger]],
        length: int,
        tokens: int,
        factors: Mapping[str, float],
        device: torch.device,
        micro_batch: int,
    ) -> None:
        count = max(1, tokens // length)
        rank, processes = place()
        windows = {name: fixed_windows(text, length, count) for name, text in texts.items()}
        self._windows = {
            name: torch.from_numpy(rows[rank::processes]).to(device)
            for name, rows in windows.items()
        }
        self._tokens = torch.tensor([rows[:, 1:].size for rows in windows.values()])
        self._factors, self._device = factors, device
        self._micro_batch = micro_batch

    def losses(self, loss: Loss) -> dict[str, float]:
        """Mean loss by target."""
        with torch.no_grad():
            totals = [self._total(windows, loss) for windows in self._windows.values()]
        sums = summed(torch.stack(totals)).cpu()
        values = (sums / self._tokens).tolist()
        return {
            name: value * self._factors[name]
            for name, value in zip(self._windows, values, strict=True)
        }

    def _total(self, windows: torch.Tensor, loss: Loss) -> torch.Tensor:
        """Summed over windows, float64 and still on the device, which is asked once for all."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for part in windows.split(self._micro_batch):
            if len(part):
                total += loss(part[:, :-1], part[:, 1:])
        return total
