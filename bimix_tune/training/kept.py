"""Memory of a CPU that serves again in every step.

glibc returns an array of more than 32 MiB to the kernel when it is freed, and other large ones
when enough of them are free. New pages cost more than the arithmetic: zeros for the gradient of
an embedding of 50k tokens take 25 to 110 ms where a step takes 1.2 s, and 3 ms in memory that is
there. Each thread has its own; a GPU's memory is kept by PyTorch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

CPU = torch.device("cpu")


class Kept(threading.local):
    """Scratch arrays by name, and the memory of gradients of the last step."""

    def __init__(self) -> None:
        self._arrays: dict[str, Tensor] = {}
        self._gradients: list[Tensor] = []
        self._asked: set[tuple[torch.Size, torch.dtype]] = set()

    def array(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device = CPU
    ) -> Tensor:
        """Memory with any content, which is the caller's until the name is asked for again."""
        if device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=device)
        size = torch.Size(shape).numel()
        memory = self._arrays.get(name)
        if memory is None or memory.numel() < size or memory.dtype != dtype:
            self._arrays.pop(name, None)  # first let go, so that both never exist at once
            memory = self._arrays[name] = torch.empty(size, dtype=dtype)
        return memory[:size].view(shape)

    def give_back(self, gradients: Iterable[Tensor | None]) -> None:
        """Let the next gradients of these shapes have this memory, which nobody may use any more.

        Kept is what `gradient` was asked for since the last time, unless it is a part of something.
        """
        asked, self._asked = self._asked, set()
        self._gradients = [
            g
            for g in gradients
            if g is not None
            and (g.shape, g.dtype) in asked
            and g.untyped_storage().nbytes() == g.nbytes
        ]

    def gradient(self, weight: Tensor) -> Tensor:
        """Memory with any content for a gradient of a weight."""
        if weight.device.type == "cpu":
            self._asked.add((weight.shape, weight.dtype))
            for at, memory in enumerate(self._gradients):
                if (memory.shape, memory.dtype) == (weight.shape, weight.dtype):
                    return self._gradients.pop(at)
        return torch.empty_like(weight)


kept = Kept()
"""What this thread keeps."""


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        return torch.nn.functional.embedding(tokens, weight)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, Tensor]:
        tokens, weight = ctx.saved_tensors
        gradient = kept.gradient(weight).zero_()
        gradient.index_add_(0, tokens.flatten(), upstream[0].flatten(0, -2))
        return None, gradient


def embedding(tokens: Tensor, weight: Tensor) -> Tensor:
    """`torch.nn.functional.embedding`, whose gradient on a CPU goes where the last one was.

    Args:
        tokens: Ids, any shape.
        weight: Vectors of the tokens, (V, d).
    """
    if torch.compiler.is_compiling() or weight.device.type != "cpu":
        return torch.nn.functional.embedding(tokens, weight)
    found: Tensor = _Embedding.apply(tokens, weight)
    return found
