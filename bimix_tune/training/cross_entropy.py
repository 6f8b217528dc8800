"""The output layer and its cross-entropy, whose gradients are made in the forward pass.

Logits are the largest arrays of a small proxy: at a vocabulary of 50k and 64k tokens a step
they would take 6.6 GB in bfloat16, and PyTorch's own chain keeps several copies of them in
float32. Here they exist for some rows at a time: these rows' logits, loss and gradients are
made, and the logits go. The values are those of `torch.nn.functional.cross_entropy` on float32
logits. A compiler gets PyTorch's own chain where all logits fit (see `fits`), as it fuses that, and
leaves the output layer to this module elsewhere; on a GPU it makes the kernels of each part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bimix_tune.training.kept import kept
from bimix_tune.training.memory import LOGIT_BYTES

IGNORED = -100
"""A label that does not count, as everywhere in PyTorch."""
CACHED = 2**18
"""Logits that a CPU works on at a time: 1 MiB in float32 stays in its second cache. At a vocabulary
of 50k this takes half the time of 2**22."""
SMALL = 1e-30
"""Probability from which float32 has all its digits, with room to spare."""
GPU_ROWS = 8192
"""Rows that a GPU works on at a time."""
FUSED_BYTES = 2**25
"""Logits on a CPU up to which a compiler's code, which keeps them all, is as fast as parts: more
do not stay in the last cache, and glibc returns larger arrays to the kernel after each step."""

OfPart = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From logits, (N, V), and labels, (N,), to loss and gradient as `loss_and_gradient` has them; the
logits may be written over."""


def loss_and_gradient(logits: Tensor, labels: Tensor, gradient: Tensor | None) -> Tensor:
    """Loss ``-sum(log p[label])`` and gradient ``p - onehot(label)``, zero where ignored.

    Args:
        logits: Any floating type, (N, V).
        labels: Token ids, or `IGNORED`, (N,).
        gradient: Where the gradient goes, like the logits or these themselves; None: nowhere.

    Returns:
        Loss, a float32 scalar.
    """
    at, ignored = labels.clamp_min(0).unsqueeze(1), (labels == IGNORED).unsqueeze(1)
    own, logs = (torch.empty(len(logits), 1, device=logits.device) for _ in range(2))
    blocks = _blocks(logits, at, own, logs, logits if gradient is None else gradient)
    for scores, index, p_own, log, out in zip(*blocks, strict=True):
        p = _probabilities(scores)
        torch.gather(p, 1, index, out=p_own)
        log.copy_(_log_probability(scores, p, p_own, index))
        if gradient is not None:
            out.copy_(p)
    if gradient is not None:
        rows = torch.arange(len(logits), device=logits.device)
        gradient[rows, at.squeeze(1)] = (own - 1).squeeze(1).to(gradient.dtype)
        if gradient.device.type != "cpu" or ignored.any():
            gradient.masked_fill_(ignored, 0)
    return -logs.masked_fill_(ignored, 0).sum()


def in_place(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`loss_and_gradient` in the memory of the logits, by PyTorch's own kernels."""
    return loss_and_gradient(logits, labels, logits), logits


def for_a_compiler(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`loss_and_gradient` as a compiler can fuse it: two readings of the logits, and one writing.

    In bfloat16 those are 6 bytes a logit; `in_place`, which keeps probabilities in float32, moves
    22 on a GPU.
    """
    scores, own = logits.float(), labels.clamp_min(0).unsqueeze(1)
    log_sum = scores.logsumexp(1, keepdim=True)
    counted = labels.unsqueeze(1) != IGNORED
    loss = torch.where(counted, log_sum - scores.gather(1, own), 0.0).sum()
    is_own = torch.arange(logits.shape[1], device=logits.device) == own
    gradient = torch.where(counted, torch.exp(scores - log_sum) - is_own.float(), 0.0)
    return loss, gradient.to(logits.dtype)


def _probabilities(scores: Tensor) -> Tensor:
    if scores.device.type != "cpu":
        return torch.softmax(scores, dim=-1, dtype=torch.float32)
    p = kept.array("probabilities", scores.shape, torch.float32).copy_(scores)
    return torch.softmax(p, dim=-1, out=p)


def _log_probability(scores: Tensor, p: Tensor, own: Tensor, at: Tensor) -> Tensor:
    """``log p[at]`` without a second pass of exp, also where p has no digits left; (N, 1)."""
    if own.device.type == "cpu" and own.min() > SMALL:  # a GPU would have to wait for the answer
        return own.log()
    # Of the largest logit, log p = logit - log(sum(exp(logits))).
    log_sum = scores.amax(1, keepdim=True).float() - p.amax(1, keepdim=True).log()
    return scores.gather(1, at).float() - log_sum


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
    if torch.compiler.is_compiling():
        return F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
    if logits.requires_grad:
        return _SummedCrossEntropy.apply(logits, labels)
    return loss_and_gradient(logits, labels, None)


def _cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    if weight.dtype == dtype:
        return weight
    return kept.array("output weights", weight.shape, dtype, weight.device).copy_(weight)


def _product(a: Tensor, b: Tensor, name: str) -> Tensor:
    """``a @ b`` in kept memory of that name."""
    return torch.mm(a, b, out=kept.array(name, (len(a), b.shape[1]), a.dtype, a.device))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, rows: int, of_part: OfPart
    ) -> Tensor:
        w, total = _cast(weight, x.dtype), torch.zeros((), device=x.device)
        x_gradient = torch.empty_like(x)
        w_gradient: Tensor | None = None
        for part, label, out in zip(
            x.split(rows), labels.split(rows), x_gradient.split(rows), strict=True
        ):
            loss, gradient = of_part(_product(part, w.t(), "logits"), label)
            total += loss
            out.copy_(gradient @ w)
            product = _product(gradient.t(), part, "gradient of output weights")
            if w_gradient is None:
                w_gradient = kept.gradient(weight).copy_(product)
            else:
                w_gradient.add_(product)
        ctx.save_for_backward(x_gradient, w_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x_gradient, w_gradient = ctx.saved_tensors
        return x_gradient.mul_(upstream[0]), w_gradient.mul_(upstream[0]), None, None, None


def fits(rows: int, weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether a compiler is given PyTorch's own chain, which keeps the logits of all rows.

    Args:
        rows: N.
        weight: Weights of the output layer, (V, d).
        dtype: Type of the logits.
    """
    limit = FUSED_BYTES if weight.device.type == "cpu" else LOGIT_BYTES
    return rows * weight.shape[0] * dtype.itemsize <= limit


def linear_cross_entropy(
    x: Tensor, weight: Tensor, labels: Tensor, of_part: OfPart = in_place
) -> Tensor:
    """`summed_cross_entropy` of the logits ``x @ weight.T``, of which few exist at a time.

    Args:
        x: What the output layer sees, any floating type, (N, d).
        weight: Weights of the output layer, (V, d); the product is in the type of ``x``, and
            the gradient is summed in the type of the weights.
        labels: Token ids, or `IGNORED`, (N,).
        of_part: Makes loss and gradient of some rows.

    Returns:
        The sum in nats, a float32 scalar.
    """
    if torch.compiler.is_compiling():
        return summed_cross_entropy(F.linear(x, weight.to(x.dtype)), labels)
    rows = max(1, LOGIT_BYTES // (weight.shape[0] * x.element_size()))
    if x.requires_grad:
        loss: Tensor = _LinearCrossEntropy.apply(x, weight, labels, rows, of_part)
        return loss
    w, total = _cast(weight, x.dtype), torch.zeros((), device=x.device)
    for part, label in zip(x.split(rows), labels.split(rows), strict=True):
        total += loss_and_gradient(_product(part, w.t(), "logits"), label, None)
    return total


def _blocks(logits: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Rows that are worked on at a time, of each array."""
    rows = max(1, CACHED // logits.shape[1]) if logits.device.type == "cpu" else GPU_ROWS
    return [array.split(rows) for array in (logits, *others)]
