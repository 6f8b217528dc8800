"""A loss as a CUDA graph: the real one on a GPU, elsewhere one that keeps memory as it does."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bimix_tune.training.cuda_graph import graphed
from bimix_tune.training.kept import kept
from bimix_tune.training.model import Llama
from bimix_tune.training.schedule import Steps
from bimix_tune.training.sizes import Shape
from bimix_tune.training.step import Proxy, Stepper

LENGTH, BATCH, VOCABULARY = 8, 6, 32


def static(module: nn.Module, samples: tuple[Tensor, ...]) -> nn.Module:
    """As `torch.cuda.make_graphed_callables`: every pass leaves its gradients at the same place."""
    parameters = list(module.parameters())
    gradients = [torch.zeros_like(p) for p in parameters]
    eager, inputs = module.forward, tuple(sample.clone() for sample in samples)

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments: Tensor) -> Tensor:
            for own, given in zip(inputs, arguments, strict=False):
                own.copy_(given)
            with torch.enable_grad():
                ctx.value = eager(*inputs)
            return ctx.value.detach()

        @staticmethod
        def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
            for own, new in zip(
                gradients, torch.autograd.grad(ctx.value, parameters, upstream[0]), strict=True
            ):
                own.copy_(new)
            return (*(None for _ in inputs), *(own.detach() for own in gradients))

    module.forward = lambda *arguments: Replay.apply(*arguments, *parameters)
    return module


def trained(device: str, micro_batch: int, graph: bool) -> list[Tensor]:
    """Weights after three steps, each with as many passes as micro batches."""
    module = Llama(Shape(2, 16, 2, 24), VOCABULARY)
    module.initialise(torch.Generator().manual_seed(0))
    module.to(device)
    loss = module.loss
    if graph:
        loss = graphed(module, loss, torch.zeros(micro_batch, LENGTH, dtype=torch.int64).to(device))
    proxy = Proxy(module, loss, torch.device(device), micro_batch, {})
    step = Stepper(proxy, Steps(10**6, LENGTH, BATCH), 0.01)
    generator = torch.Generator().manual_seed(1)
    for number in range(3):
        rows = torch.randint(VOCABULARY, (BATCH, LENGTH + 1), generator=generator)
        step(number, rows.to(device))
        with torch.no_grad():
            assert loss(rows[:, :-1].to(device), rows[:, 1:].to(device)).isfinite()
    return [p.detach().cpu() for p in module.parameters()]


def same_training(device: str, micro_batch: int) -> None:
    each = (trained(device, micro_batch, graph) for graph in (True, False))
    for ours, wanted in zip(*each, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("micro_batch", [BATCH, BATCH // 2, BATCH // 3])
def test_gradients_add_up_over_passes_that_share_memory(
    micro_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", static)
    monkeypatch.setattr(kept, "give_back", lambda gradients: None)  # as on a GPU
    same_training("cpu", micro_batch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("micro_batch", [BATCH, BATCH // 2, BATCH // 3])
def test_a_graph_trains_as_its_kernels_one_by_one(micro_batch: int) -> None:
    same_training("cuda", micro_batch)
