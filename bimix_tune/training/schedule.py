"""When the learning rate rises and falls, and when a run is evaluated.

Warm-up, constant, linear decay: runs of one constant rate share their prefix whatever their
budget, and a checkpoint of the constant part ranks mixtures like the decayed end does, so a
search may stop a run there. Cosine decay would bend every curve by its own budget.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from bimix_tune.errors import ConfigError

WARMUP = 0.04
"""Share of the tokens in which the learning rate rises linearly from zero."""
DECAY = 0.20
"""Share of the tokens in which it falls linearly to zero."""
FIRST_CHECKPOINT = 0.10
"""Where, as a share of the tokens, losses are first measured: past warm-up and its transient."""


def learning_rate_factor(progress: float) -> float:
    """Share of the peak learning rate, ``clip(min(p / WARMUP, (1 - p) / DECAY), 0, 1)``.

    Args:
        progress: Share p of the training done, in [0, 1].

    >>> learning_rate_factor(0.02), learning_rate_factor(0.5), round(learning_rate_factor(0.9), 9)
    (0.5, 1.0, 0.5)
    """
    return max(0.0, min(1.0, progress / WARMUP, (1.0 - progress) / DECAY))


@dataclass(frozen=True)
class Steps:
    """How a budget of tokens is cut into optimiser steps of whole sequences.

    The last step takes what is left, and its last sequence may be cut short, so that a run
    ends at its budget exactly.

    Args:
        tokens: Budget of the run.
        sequence_length: Tokens of a sequence.
        batch: Sequences of a step.

    Raises:
        ConfigError: A number is below one.
    """

    tokens: int
    sequence_length: int
    batch: int

    def __post_init__(self) -> None:
        for name in ("tokens", "sequence_length", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, but got {getattr(self, name)!r}")

    @property
    def batch_tokens(self) -> int:
        """Tokens of a full step."""
        return self.sequence_length * self.batch

    @property
    def count(self) -> int:
        """Number of steps."""
        return -(-self.tokens // self.batch_tokens)

    def seen(self, step: int) -> int:
        """Training tokens seen after so many steps."""
        return min(step * self.batch_tokens, self.tokens)

    def factor(self, step: int) -> float:
        """`learning_rate_factor` in the middle of a step (counted from 0), so it is never 0."""
        return learning_rate_factor((step + 0.5) / self.count)

    def evaluations(self, checkpoints: int) -> tuple[int, ...]:
        """After which steps losses are measured, increasing.

        All but the last lie at geometric distances in the part of constant learning rate, from
        `FIRST_CHECKPOINT` to the start of the decay; the last is at the end. Fewer than asked
        come back where a run has too few steps to tell them apart.

        Args:
            checkpoints: How many to place, at least one.

        Raises:
            ConfigError: ``checkpoints`` is below one.
        """
        if checkpoints < 1:
            raise ConfigError(f"checkpoints must be at least 1, but got {checkpoints!r}")
        early = checkpoints - 1
        ratio = (1.0 - DECAY) / FIRST_CHECKPOINT
        powers = [i / (early - 1) if early > 1 else 1.0 for i in range(early)]
        shares = [FIRST_CHECKPOINT * ratio**power for power in powers]
        at = [max(1, round(share * self.count)) for share in shares]
        return tuple(sorted({min(step, self.count) for step in itertools.chain(at, [self.count])}))
