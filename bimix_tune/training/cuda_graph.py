"""A loss whose kernels a GPU launches as one CUDA graph, forward and backward each.

A small proxy's step is hundreds of short kernels, and launching them one by one can take longer
than they do.
"""

from __future__ import annotations

from collections.abc import Sequence

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


class _Gradients:
    """Sees to it that gradients add up over the passes of a step.

    A graph leaves those of each pass at the same place, and PyTorch takes the first ones it gets as
    the gradients, without a copy: the next pass would overwrite what it is then added to.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._own: list[Tensor] = []

    def save(self) -> None:
        """Before a pass: move what the last one left, if there is any, out of its way."""
        found = [p.grad for p in self._parameters if p.grad is not None]
        if not found or (self._own and found[0] is self._own[0]):
            return
        self._own = self._own or [torch.empty_like(p) for p in self._parameters]
        torch._foreach_copy_(self._own, found)
        for parameter, gradient in zip(self._parameters, self._own, strict=True):
            parameter.grad = gradient


def graphed(model: nn.Module, loss: Loss, tokens: Tensor) -> Loss:
    """The loss as a CUDA graph where gradients are wanted, and as it is elsewhere.

    Args:
        model: Holds the parameters, on a GPU; their memory is part of the graph.
        loss: From inputs and labels to a scalar.
        tokens: Inputs of the only shape that the result takes, (B, S).
    """
    gradients = _Gradients(list(model.parameters()))
    graph = torch.cuda.make_graphed_callables(_Module(model, loss), (tokens, tokens.clone()))

    def either(inputs: Tensor, labels: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return loss(inputs, labels)
        gradients.save()
        value: Tensor = graph(inputs, labels)
        return value

    return either
