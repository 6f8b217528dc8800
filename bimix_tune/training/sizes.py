"""One dial for a proxy, its size, and everything that follows from it.

The size counts the parameters of the layers, without embedding and output layer: those grow
with the vocabulary and say little about what a proxy can learn. Shapes by this rule:

====== ====== ===== ===== ===== ====== =====
size   layers width heads  ffn  params length
====== ====== ===== ===== ===== ====== =====
====== ====== ===== ===== ===== ====== =====
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bimix_tune.errors import ConfigError

SMALLEST, LARGEST = 1e5, 1e9


@dataclass(frozen=True)
class Shape:
    """Shape of a Llama decoder.

    Args:
        layers: Number of blocks.
        width: Width of the stream, a multiple of ``heads``.
        heads: Attention heads; ``width / heads`` is even.
        ffn: Hidden width of the SwiGLU.
    """

    layers: int
    width: int
    heads: int
    ffn: int

    @property
    def parameters(self) -> int:
        """Weights of the matrices in the blocks."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.ffn)

    def token_bytes(self, vocabulary: int) -> int:
        """Rough memory of one token's activations in training with bfloat16 products.

        Per layer about 10 arrays of the width and 4 of the hidden width, 2 bytes each; logits
        in 2 and 4 bytes and the gradients of both.
        """
        return 2 * self.layers * (10 * self.width + 4 * self.ffn) + 12 * vocabulary


@dataclass(frozen=True)
class Defaults:
    """What follows from the size of a model and the budget."""

    sequence_length: int
    batch_tokens: int
    learning_rate: float


def parse_size(size: str) -> float:
    """Parameters meant by a text such as ``"300k"``, ``"1M"`` or ``"0.3B"``.

    Raises:
        ConfigError: It is no such text, or lies outside 0.1M to 1B.

    >>> parse_size("1M")
    1000000.0
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([kKmMbB])\s*", str(size))
    if not found:
        raise ConfigError(f'size must be a number with k, M or B such as "1M", but got {size!r}')
    number = float(found[1]) * {"k": 1e3, "m": 1e6, "b": 1e9}[found[2].lower()]
    if not SMALLEST <= number <= LARGEST:
        raise ConfigError(f"size must lie between 0.1M and 1B, but got {size!r}")
    return number


def shape_of(size: str) -> Shape:
    """The decoder of a size."""
    n = parse_size(size)
    layers = max(2, round(2 * (n / 1e6) ** 0.37))
    quantum = 32 if n < 2e6 else 64
    width = max(quantum, quantum * round(math.sqrt(n / (12 * layers)) / quantum))
    ffn = 32 * max(1, round((n / layers - 4 * width**2) / (3 * width) / 32))
    return Shape(layers, width, heads=max(1, width // 64), ffn=ffn)


def default_recipe(parameters: int, tokens: int) -> Defaults:
    """Sequence length, batch and peak learning rate for a model and a budget."""
    rate = 1.79 * parameters**-0.713 * tokens**0.307
    batch = 0.58 * tokens**0.571
    return Defaults(128, 2048, 2e-3)
