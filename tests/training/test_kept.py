"""Memory that serves again in every step changes no gradient."""

import threading

import pytest
import torch
import torch.nn.functional as F

from bimix_tune.training.kept import Kept, embedding, kept
from bimix_tune.training.model import Llama
from bimix_tune.training.sizes import Shape

TOKENS = torch.randint(0, 9, (4, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _asked_for_but_empty():
    """Nothing is kept, and gradients of these shapes were asked for since."""
    kept.give_back([])
    for width in (3, 16):
        kept.gradient(torch.empty(50, width))


def gradient_of(lookup, weight: torch.Tensor) -> torch.Tensor:
    weight.grad = None
    x = lookup(TOKENS, weight)
    (x * torch.arange(x.numel()).view(x.shape)).sum().backward()
    return weight.grad


def test_embedding_and_its_gradient_equal_pytorch() -> None:
    weight = torch.randn(50, 3, requires_grad=True)
    assert torch.equal(embedding(TOKENS, weight), F.embedding(TOKENS, weight))
    wanted = gradient_of(F.embedding, weight)
    dirty = torch.full_like(weight, 7.0)
    address = dirty.data_ptr()
    kept.give_back([dirty])
    del dirty  # nobody else may have it: PyTorch would copy
    ours = gradient_of(embedding, weight)
    assert ours.data_ptr() == address
    assert torch.equal(ours, wanted)


def test_only_memory_that_was_given_back_is_used_again() -> None:
    weight = torch.randn(50, 3, requires_grad=True)
    first = gradient_of(embedding, weight)
    before = first.clone()
    assert gradient_of(embedding, weight).data_ptr() != first.data_ptr()
    assert torch.equal(first, before)
    kept.give_back([first, None])
    assert kept.gradient(torch.empty(50, 4)).shape == (50, 4)
    assert kept.gradient(weight) is first
    assert kept.gradient(weight) is not first  # it went once
    kept.give_back(torch.zeros(2, 50, 3).unbind())  # parts of a whole that others may need
    assert len({kept.gradient(weight).untyped_storage().nbytes() for _ in range(3)}) == 1
    for _ in range(2):
        kept.give_back([first])
    assert kept.gradient(weight) is not first  # nobody had asked since the time before


def test_both_large_gradients_of_a_pass_go_where_the_last_ones_were() -> None:
    module = Llama(Shape(layers=1, width=16, heads=2, ffn=24), 50, torch.bfloat16)
    module.initialise(torch.Generator().manual_seed(1))
    large = (module.model.embed_tokens.weight, module.lm_head.weight)

    def addresses() -> set[int]:
        module.loss(TOKENS, TOKENS.roll(-1, 1)).backward()
        return {weight.grad.data_ptr() for weight in large}

    first = addresses()
    kept.give_back(weight.grad for weight in large)
    module.zero_grad(set_to_none=True)
    assert addresses() == first


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_of_a_step_do_not_depend_on_what_was_given_back(tied: bool) -> None:
    module = Llama(Shape(layers=1, width=16, heads=2, ffn=24), 50, torch.bfloat16, tied)
    module.initialise(torch.Generator().manual_seed(1))

    def gradients(parts: int) -> list[torch.Tensor]:
        module.zero_grad(set_to_none=True)
        for rows in TOKENS.chunk(parts):
            module.loss(rows, rows.roll(-1, 1)).backward()
        return [p.grad for p in module.parameters()]

    for parts in (1, 2):
        wanted = [g.clone() for g in gradients(parts)]
        kept.give_back([torch.full_like(p, 7.0) for p in module.parameters()])
        for ours, theirs in zip(gradients(parts), wanted, strict=True):
            assert torch.equal(ours, theirs)


def test_arrays_grow_change_type_and_belong_to_one_thread() -> None:
    mine = Kept()
    small = mine.array("a", (2, 3), torch.float32)
    assert small.shape == (2, 3)
    assert mine.array("a", (6,), torch.float32).data_ptr() == small.data_ptr()
    assert mine.array("b", (6,), torch.float32).data_ptr() != small.data_ptr()
    assert mine.array("a", (3, 3), torch.float32).shape == (3, 3)
    assert mine.array("a", (2,), torch.bfloat16).dtype == torch.bfloat16
    here, there = mine.array("a", (2,), torch.float32), []
    thread = threading.Thread(target=lambda: there.append(mine.array("a", (2,), torch.float32)))
    thread.start()
    thread.join()
    assert there[0].data_ptr() != here.data_ptr()
