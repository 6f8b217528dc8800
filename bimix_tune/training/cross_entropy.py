"""The output layer and its cross-entropy, whose gradients are made in the forward pass.

Logits are the largest arrays of a small proxy: at a vocabulary of 50k and 64k tokens a step
they would take 6.6 GB in bfloat16, and PyTorch's own chain keeps several copies of them in
float32. Here they exist for some rows at a time: these rows' logits, loss and gradients are
made, and the logits go. The values are those of `torch.nn.functional.cross_entropy` on float32
logits. A compiler gets PyTorch's own chain where all logits fit (see `fits`), as it fuses that, and
leaves the output layer to this module elsewhere.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bimix_tune.training.memory import LOGIT_BYTES

IGNORED = -100
"""A label that does not count, as everywhere in PyTorch."""
CACHED = 2**18
"""Logits that a CPU works on at a time: 1 MiB in float32 stays in its second cache. At a vocabulary
of 50k this takes half the time of 2**22."""
GPU_ROWS = 8192
"""Rows that a GPU works on at a time."""
FUSED_BYTES = 2**25
"""Logits on a CPU up to which a compiler's code, which keeps them all, is as fast as parts: more
do not stay in the last cache, and glibc returns larger arrays to the kernel after each step."""


def loss_and_gradient(logits: Tensor, labels: Tensor, gradient: Tensor) -> Tensor:
    """Loss ``-sum(log p[label])`` and gradient ``p - onehot(label)``, zero where ignored.

    Args:
        logits: Any floating type, (N, V).
        labels: Token ids, or `IGNORED`, (N,).
        gradient: Where the gradient goes, like the logits or these themselves.

    Returns:
        Loss, a float32 scalar.
    """
    total = torch.zeros((), device=logits.device)
    for scores, label, out in zip(*_blocks(logits, labels, gradient), strict=True):
        counts = (label != IGNORED).float().unsqueeze(1)
        at = label.clamp_min(0).unsqueeze(1)
        own, largest = scores.gather(1, at).float(), scores.amax(1, keepdim=True).float()
        p = torch.softmax(scores, dim=-1, dtype=torch.float32)
        # Of the largest logit, log p = logit - log(sum(exp(logits))): no second pass of exp.
        log_sum = largest - p.amax(1, keepdim=True).log()
        total += ((log_sum - own) * counts).sum()
        out.copy_(p.mul_(counts).scatter_add_(1, at, -counts))
    return total


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        gradient = torch.empty_like(logits)
        total = loss_and_gradient(logits, labels, gradient)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats, summed over rows, float32.

    Args:
        logits: Any floating type, (N, V).
        labels: Token ids, or `IGNORED`, (N,).
    """
    if logits.requires_grad and not torch.compiler.is_compiling():
        return _SummedCrossEntropy.apply(logits, labels)
    return _plain(logits, labels)


class _Room(threading.local):
    """Memory for the logits of a thread's passes, kept: new pages cost a CPU a third of a product.

    A GPU's memory is kept by PyTorch.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """``x @ weight.T``, which holds until the next one, (N, V)."""
        if x.device.type != "cpu":
            return F.linear(x, weight)
        size = len(x) * len(weight)
        if self._memory.numel() < size or self._memory.dtype != x.dtype:
            self._memory = torch.empty(size, dtype=x.dtype)
        return torch.mm(x, weight.t(), out=self._memory[:size].view(len(x), len(weight)))


_room = _Room()


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, rows: int) -> Tensor:
        w, total = weight.to(x.dtype), torch.zeros((), device=x.device)
        x_gradient = torch.empty_like(x)
        w_gradient: Tensor | None = None
        for part, label, out in zip(
            x.split(rows), labels.split(rows), x_gradient.split(rows), strict=True
        ):
            logits = _room.product(part, w)
            total += loss_and_gradient(logits, label, logits)
            out.copy_(logits @ w)
            product = logits.t() @ part
            w_gradient = (
                product.to(weight.dtype) if w_gradient is None else w_gradient.add_(product)
            )
        ctx.save_for_backward(x_gradient, w_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_gradient, w_gradient = ctx.saved_tensors
        return x_gradient.mul_(upstream[0]), w_gradient.mul_(upstream[0]), None, None


def fits(rows: int, weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether a compiler is given PyTorch's own chain, which keeps the logits of all rows.

    Args:
        rows: N.
        weight: Weights of the output layer, (V, d).
        dtype: Type of the logits.
    """
    limit = FUSED_BYTES if weight.device.type == "cpu" else LOGIT_BYTES
    return rows * weight.shape[0] * dtype.itemsize <= limit


def linear_cross_entropy(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """`summed_cross_entropy` of the logits ``x @ weight.T``, of which few exist at a time.

    Args:
        x: What the output layer sees, any floating type, (N, d).
        weight: Weights of the output layer, (V, d); the product is in the type of ``x``, and
            the gradient is summed in the type of the weights.
        labels: Token ids, or `IGNORED`, (N,).

    Returns:
        The sum in nats, a float32 scalar.
    """
    if torch.compiler.is_compiling():
        return summed_cross_entropy(F.linear(x, weight.to(x.dtype)), labels)
    rows = max(1, LOGIT_BYTES // (weight.shape[0] * x.element_size()))
    if x.requires_grad:
        loss: Tensor = _LinearCrossEntropy.apply(x, weight, labels, rows)
        return loss
    w, total = weight.to(x.dtype), torch.zeros((), device=x.device)
    for part, label in zip(x.split(rows), labels.split(rows), strict=True):
        total += sum(map(_plain, *_blocks(_room.product(part, w), label)))
    return total


def _plain(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")


def _blocks(logits: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Rows that are worked on at a time, of each array."""
    rows = max(1, CACHED // logits.shape[1]) if logits.device.type == "cpu" else GPU_ROWS
    return [array.split(rows) for array in (logits, *others)]
