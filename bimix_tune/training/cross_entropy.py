"""Cross-entropy whose gradient is made in the forward pass, some rows at a time.

Logits are the largest arrays of a small proxy. PyTorch's own chain keeps several copies of
them in float32; here the float32 numbers of a few rows stay in the cache, and only the
gradient is kept, in the type of the logits. The values are those of
`torch.nn.functional.cross_entropy` on float32 logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""A label that does not count, as everywhere in PyTorch."""


class _SummedCrossEntropy(torch.autograd.Function):
    """Loss ``-sum(log p[label])``, gradient ``p - onehot(label)``, zero where ignored."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        gradient = torch.empty_like(logits)
        total = torch.zeros((), device=logits.device)
        rows = 128 if logits.device.type == "cpu" else 8192
        parts = (logits.split(rows), labels.split(rows), gradient.split(rows))
        for scores, label, out in zip(*parts, strict=True):
            counts = (label != IGNORED).float().unsqueeze(1)
            at = label.clamp_min(0).unsqueeze(1)
            log_p = torch.log_softmax(scores, dim=-1, dtype=torch.float32)
            total -= (log_p.gather(1, at) * counts).sum()
            p = log_p.exp_().scatter_add_(1, at, -torch.ones_like(counts))
            out.copy_(p.mul_(counts))
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
    if logits.requires_grad:
        return _SummedCrossEntropy.apply(logits, labels)
    return torch.nn.functional.cross_entropy(
        logits.float(), labels, ignore_index=IGNORED, reduction="sum"
    )
