"""The output layer and its cross-entropy, whose gradients are made in the forward pass.

Logits are the largest arrays of a small proxy: at a vocabulary of 50k and 64k tokens a step
they would take 6.6 GB in bfloat16, and PyTorch's own chain keeps several copies of them in
float32. Here they exist for some rows at a time: these rows' logits, loss and gradients are
made, and the logits go. The values are those of `torch.nn.functional.cross_entropy` on float32
logits. A compiler gets PyTorch's own chain where all logits fit, since it fuses that better.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bimix_tune.training.memory import LOGIT_BYTES

IGNORED = -100
"""A label that does not count, as everywhere in PyTorch."""


def loss_and_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss ``-sum(log p[label])`` and gradient ``p - onehot(label)``, zero where ignored.

    Args:
        logits: Any floating type, (N, V).
        labels: Token ids, or `IGNORED`, (N,).

    Returns:
        Loss, a float32 scalar, and gradient, (N, V) in the type of the logits.
    """
    gradient = torch.empty_like(logits)
    total = torch.zeros((), device=logits.device)
    rows = 128 if logits.device.type == "cpu" else 8192  # on a CPU, what stays in its cache
    parts = (logits.split(rows), labels.split(rows), gradient.split(rows))
    for scores, label, out in zip(*parts, strict=True):
        counts = (label != IGNORED).float().unsqueeze(1)
        at = label.clamp_min(0).unsqueeze(1)
        log_p = torch.log_softmax(scores, dim=-1, dtype=torch.float32)
        total -= (log_p.gather(1, at) * counts).sum()
        p = log_p.exp_().scatter_add_(1, at, -torch.ones_like(counts))
        out.copy_(p.mul_(counts))
    return total, gradient


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        total, gradient = loss_and_gradient(logits, labels)
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
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, rows: int) -> Tensor:
        w, total = weight.to(x.dtype), torch.zeros((), device=x.device)
        x_gradient, w_gradient = torch.empty_like(x), torch.zeros_like(weight)
        for part, label, out in zip(
            x.split(rows), labels.split(rows), x_gradient.split(rows), strict=True
        ):
            loss, gradient = loss_and_gradient(F.linear(part, w), label)
            total += loss
            out.copy_(gradient @ w)
            w_gradient += gradient.t() @ part
        ctx.save_for_backward(x_gradient, w_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_gradient, w_gradient = ctx.saved_tensors
        return x_gradient * upstream[0].to(x_gradient.dtype), w_gradient * upstream[0], None, None


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
    rows = max(1, LOGIT_BYTES // (weight.shape[0] * x.element_size()))
    if x.requires_grad and not (torch.compiler.is_compiling() and len(x) <= rows):
        return _LinearCrossEntropy.apply(x, weight, labels, rows)
    w, total = weight.to(x.dtype), torch.zeros((), device=x.device)
    for part, label in zip(x.split(rows), labels.split(rows), strict=True):
        total = total + summed_cross_entropy(F.linear(part, w), label)
    return total
