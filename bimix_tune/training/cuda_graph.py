"""A loss whose kernels a GPU launches as one CUDA graph, forward and backward each.

A small proxy's step is hundreds of short kernels, and launching them one by one can take longer
than they do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bimix_tune.training.evaluate import Loss


class _Module(nn.Module):
    """A loss as a module, so that the graph knows which parameters want gradients."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return self._loss(inputs, labels)


def graphed(model: nn.Module, loss: Loss, tokens: Tensor) -> Loss:
    """The loss as a CUDA graph where gradients are wanted, and as it is elsewhere.

    Args:
        model: Holds the parameters, on a GPU; their memory is part of the graph.
        loss: From inputs and labels to a scalar.
        tokens: Inputs of the only shape that the result takes, (B, S).
    """
    graph = torch.cuda.make_graphed_callables(_Module(model, loss), (tokens, tokens.clone()))

    def either(inputs: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = (graph if torch.is_grad_enabled() else loss)(inputs, labels)
        return value

    return either
