"""One dial for a proxy, its size, and everything that follows from it.

The size counts the parameters of the layers, without embedding and output layer: those grow
with the vocabulary and say little about what a proxy can learn. Shapes by this rule:

=======  =======  =======  =======  =======  =======  =======
   size   layers    width    heads      ffn  weights   length
=======  =======  =======  =======  =======  =======  =======
   0.1M        2       64        1      160  0.09421M      128
   0.4M        2      128        2      352  0.4014M      128
     1M        2      192        3      608  0.9953M      128
     3M        3      320        5      608    2.98M      256
    10M        5      384        6     1216   9.953M      512
    30M        7      576        9     1728   30.19M      512
   100M       11      896       14     2176   99.66M     1024
   300M       17     1216       19     3232     301M     2048
     1B       26     1792       28     4768    1000M     2048
=======  =======  =======  =======  =======  =======  =======
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bimix_tune.errors import ConfigError
from bimix_tune.quantities import parse_count

SMALLEST, LARGEST = 1e5, 1e9
HEAD = 64
"""Width of an attention head: fewer and wider heads are faster, above all on a CPU."""
LEARNING_RATE = 3e-3
"""Peak at 300k tokens for every size; see `bimix_tune.training.parametrisation` for its unit."""
HIGHEST_RATE = 6e-3
"""Reached at 3M tokens, beyond which nothing was measured here. Published rates for 20 tokens a
parameter are higher in this unit: Cerebras-GPT's is 12e-3 (6e-3 where the width is 256; Dey et al.
2023, arXiv 2304.03208, appendix G), and the Step Law's 14 to 19e-3 (30M to 1B)."""


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

    @property
    def token_bytes(self) -> int:
        """Rough memory of one token's activations in training with bfloat16 products.

        Per layer about 20 arrays of the width and 8 of the hidden width, 2 bytes each (measured
        on a CPU to 10 %, from 1M to 30M parameters); logits are not counted.
        """
        return 2 * self.layers * (20 * self.width + 8 * self.ffn)


@dataclass(frozen=True)
class Defaults:
    """What follows from the size of a model and the budget."""

    sequence_length: int
    batch_tokens: int
    learning_rate: float


def parse_size(size: str | int) -> int:
    """Parameters meant by a text such as ``"300k"``, ``"1M"`` or ``"0.3B"``.

    Raises:
        ConfigError: It is no such text, or lies outside 0.1M to 1B.

    >>> parse_size("0.3M")
    300000
    """
    number = parse_count(size, "size")
    if not SMALLEST <= number <= LARGEST:
        raise ConfigError(f"size must lie between 0.1M and 1B, but got {size!r}")
    return number


def shape_of(size: str) -> Shape:
    """The decoder of a size.

    Depth ``L = max(2, 2 (N / 1M)^0.37)``; width ``sqrt(N / (12 L))``, from ``N = 12 L d^2`` of a
    Llama with a hidden width of 8/3 d, in heads of 64; the hidden width takes up the rounding.
    """
    n = parse_size(size)
    layers = max(2, round(2 * (n / 1e6) ** 0.37))
    heads = max(1, round(math.sqrt(n / (12 * layers)) / HEAD))
    width = HEAD * heads
    ffn = 32 * max(1, round((n / layers - 4 * width**2) / (3 * width) / 32))
    return Shape(layers, width, heads, ffn)


def default_recipe(parameters: int, tokens: int) -> Defaults:
    """Sequence length, batch and peak learning rate for a model and a budget.

    The batch is ``0.58 D^0.571`` tokens for a budget of D, and the learning rate grows as
    ``D^0.307`` (Li et al. 2025, "Predictable Scale: Part I", Step Law, without its dependence on
    the size) to at most `HIGHEST_RATE`. Sequences double in length with every factor 4 in
    parameters, from 128 tokens at 1M to 2048.
    """
    rate = min(HIGHEST_RATE, LEARNING_RATE * (tokens / 300_000) ** 0.307)
    batch = 0.58 * tokens**0.571
    length = 2 ** min(11, max(7, 7 + round(math.log(parameters / 1e6, 4))))
    return Defaults(length, max(length, round(batch)), rate)
