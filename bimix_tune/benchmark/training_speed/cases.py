"""What is trained in the benchmark: shapes, vocabularies and batches of real proxies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bimix_tune.training.sizes import Shape, shape_of

REGMIX_1M = Shape(layers=2, width=256, heads=8, ffn=512)
REGMIX_60M = Shape(layers=10, width=768, heads=8, ffn=1536)
"""The proxies of RegMix (Liu et al. 2024; lit_gpt/config.py of its repository)."""
FEW_HEADS = Shape(layers=2, width=256, heads=4, ffn=512)
REGMIX_VOCABULARY = 50_432


@dataclass(frozen=True)
class Case:
    """A training to time.

    Args:
        shape: Of the decoder; embedding and output layer are not tied.
        vocabulary: Number of tokens V.
        length: Tokens of a sequence S.
        cpu_tokens: Tokens of a step on a CPU.
        gpu_tokens: Tokens of a step on a GPU.
        steps: Steps of a round on a CPU; a GPU takes `GPU_STEPS`.
        quick: Whether a CPU takes minutes, not an hour: others must be asked for there.
    """

    shape: Shape
    vocabulary: int
    length: int
    cpu_tokens: int
    gpu_tokens: int
    steps: int = 4
    quick: bool = True

    @property
    def flops(self) -> int:
        """Arithmetic of training on one token.

        Six for each weight of blocks and output layer (forward, and twice that backward), and
        causal attention: ``6 (block + head) + 6 L S d``.
        """
        head = self.vocabulary * self.shape.width
        attention = 6 * self.shape.layers * self.length * self.shape.width
        return 6 * (self.shape.parameters + head) + attention

    def batch_tokens(self, device: str) -> int:
        """Tokens of a step on a type of device."""
        return self.cpu_tokens if device == "cpu" else self.gpu_tokens

    def steps_of_round(self, device: str) -> int:
        """Steps of each contender between two turns of the others."""
        return self.steps if device == "cpu" else GPU_STEPS


GPU_STEPS = 20

CASES: Mapping[str, Case] = {
    "0.1M": Case(shape_of("0.1M"), 256, 128, 512, 512, steps=8),
    "byte": Case(REGMIX_1M, 256, 256, 2048, 16_384),
    "2k": Case(FEW_HEADS, 2048, 128, 2048, 4096),
    "4k": Case(FEW_HEADS, 4096, 256, 2048, 4096),
    "50k": Case(REGMIX_1M, REGMIX_VOCABULARY, 512, 2048, 65_536, steps=2),
    "50k-2048": Case(REGMIX_1M, REGMIX_VOCABULARY, 2048, 4096, 65_536, steps=1, quick=False),
    "30M": Case(shape_of("30M"), REGMIX_VOCABULARY, 512, 2048, 65_536, steps=1, quick=False),
    "60M": Case(REGMIX_60M, REGMIX_VOCABULARY, 2048, 2048, 65_536, steps=1, quick=False),
}
"""By name. ``50k-2048`` is RegMix's "1M" proxy as it was trained, ``60M`` its larger one."""
