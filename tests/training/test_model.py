"""The lean decoder computes what transformers' LlamaForCausalLM computes."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bimix_tune.training import cross_entropy
from bimix_tune.training import model as lean
from bimix_tune.training.cross_entropy import linear_cross_entropy, summed_cross_entropy
from bimix_tune.training.sizes import Shape
from bimix_tune.training.stacked import StackedLlama

GENERATOR = torch.Generator().manual_seed(2)
SHAPE = Shape(layers=2, width=32, heads=2, ffn=48)
TOKENS = torch.randint(0, 97, (3, 20), generator=torch.Generator().manual_seed(0))


def make(tied: bool = False, dtype: torch.dtype = torch.float32) -> lean.Llama:
    module = lean.Llama(SHAPE, 97, dtype, tied)
    module.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():  # uneven norms, so that a swapped or forgotten one shows
        for parameter in module.parameters():
            parameter.mul_(0.5 + torch.rand(parameter.shape[-1], generator=GENERATOR))
    return module


@pytest.mark.parametrize("tied", [False, True])
def test_logits_equal_transformers(tied: bool) -> None:
    ours = make(tied)
    theirs = LlamaForCausalLM(LlamaConfig(**ours.config(64, 0)))
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        difference = (ours(TOKENS) - theirs(TOKENS).logits).abs().max()
    assert difference < 1e-5


@pytest.mark.parametrize("tied", [False, True])
def test_saved_proxy_loads_in_transformers(tied, tmp_path) -> None:
    ours = make(tied)
    ours.save(tmp_path / "proxy", length=64, end_token=0)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path / "proxy")
    with torch.no_grad():
        assert (ours(TOKENS) - theirs(TOKENS).logits).abs().max() < 1e-5
    assert theirs.config.tie_word_embeddings is tied
    assert sorted(p.name for p in (tmp_path / "proxy").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_gradients_equal_transformers() -> None:
    ours = make()
    theirs = LlamaForCausalLM(LlamaConfig(**ours.config(64, 0)))
    theirs.load_state_dict(ours.state_dict())
    labels = TOKENS.roll(-1, 1)
    summed_cross_entropy(ours(TOKENS).flatten(0, 1), labels.flatten()).backward()
    torch.nn.functional.cross_entropy(
        theirs(TOKENS).logits.flatten(0, 1), labels.flatten(), reduction="sum"
    ).backward()
    wanted = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        error = (parameter.grad - wanted[name].grad).abs().max()
        assert error < 1e-4 * wanted[name].grad.abs().max(), name


@pytest.mark.parametrize("length", [24, 128, 300, 1024, 1025])
def test_plain_attention_equals_fused(length: int) -> None:
    plain = torch.randn(3, 2, 2, length, 16, generator=GENERATOR).bfloat16().requires_grad_()
    fused = plain.detach().float().requires_grad_()
    up = torch.randn(2, 2, length, 16, generator=GENERATOR)
    ours, theirs = lean.attend(*plain), lean.attend(*fused)
    assert (ours - theirs).abs().max() < 0.03
    ours.backward(up.bfloat16())
    theirs.backward(up)
    assert (plain.grad - fused.grad).norm() < 0.01 * fused.grad.norm()


def test_bfloat16_products_keep_float32_weights_and_stay_near() -> None:
    exact, half = make(), make(dtype=torch.bfloat16)
    half.load_state_dict(exact.state_dict())
    with torch.no_grad():
        a, b = exact(TOKENS), half(TOKENS)
    assert b.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert 0 < (a - b).abs().max() < 0.05 * a.abs().max()


def test_the_future_is_not_seen() -> None:
    module = make(dtype=torch.bfloat16)
    changed = TOKENS.clone()
    changed[:, 10:] = 5
    with torch.no_grad():
        assert torch.equal(module(TOKENS)[:, :10], module(changed)[:, :10])


def test_cross_entropy_and_gradient_equal_pytorch() -> None:
    logits = torch.randn(300, 50, generator=GENERATOR) * 5
    labels = torch.randint(0, 50, (300,), generator=GENERATOR)
    labels[::7] = -100
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    a = summed_cross_entropy(ours, labels)
    b = torch.nn.functional.cross_entropy(theirs, labels, reduction="sum")
    (a / 3).backward()
    (b / 3).backward()
    assert a.item() == pytest.approx(b.item(), rel=1e-6)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)
    assert summed_cross_entropy(logits, labels).item() == pytest.approx(b.item(), rel=1e-6)


def test_the_loss_of_a_token_too_improbable_for_float32_is_exact() -> None:
    logits = torch.randn(4, 50, generator=GENERATOR)
    logits[1, 7], logits[2, 7] = -300.0, 300.0
    labels = torch.tensor([3, 7, 7, -100])
    wanted = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="sum").item()
    gradient = torch.empty_like(logits)
    assert cross_entropy.loss_and_gradient(logits, labels, gradient).item() == pytest.approx(
        wanted, rel=1e-6
    )
    assert gradient[1, 7] == -1
    assert (gradient[3] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "cached"), [(300, 2**18), (300, 500), (77, 500), (1, 1)])
@pytest.mark.parametrize("of_part", [cross_entropy.in_place, cross_entropy.for_a_compiler])
def test_linear_cross_entropy_in_parts_equals_pytorch(
    of_part: cross_entropy.OfPart,
    rows: int,
    cached: int,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cross_entropy, "CACHED", cached)
    monkeypatch.setattr(cross_entropy, "LOGIT_BYTES", rows * 50 * dtype.itemsize)
    x, weight = (torch.randn(n, 16, generator=GENERATOR, dtype=dtype) for n in (300, 50))
    labels = torch.randint(0, 50, (300,), generator=GENERATOR)
    labels[::7] = -100
    ours, theirs = ([t.clone().requires_grad_() for t in (x, weight)] for _ in range(2))
    a = linear_cross_entropy(*ours, labels, of_part)
    b = torch.nn.functional.cross_entropy(theirs[0] @ theirs[1].t(), labels, reduction="sum")
    (a / 3).backward()
    (b / 3).backward()
    assert a.item() == pytest.approx(b.item(), rel=1e-6)
    for left, right in zip(ours, theirs, strict=True):
        assert torch.allclose(left.grad, right.grad, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert linear_cross_entropy(x, weight, labels).item() == pytest.approx(b.item(), rel=1e-6)


def test_never_more_logits_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, whole = [], cross_entropy.loss_and_gradient

    def watched(logits: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        seen.append(logits.numel() * logits.element_size())
        return whole(logits, *others)

    monkeypatch.setattr(cross_entropy, "loss_and_gradient", watched)
    monkeypatch.setattr(cross_entropy, "LOGIT_BYTES", 97 * 4 * 7)
    make().loss(TOKENS, TOKENS.roll(-1, 1)).backward()
    assert max(seen) == 97 * 4 * 7
    assert sum(seen) == 97 * 4 * TOKENS.numel()


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_elsewhere_than_on_a_cpu_asks_nothing_of_the_cpu(
    members: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device without content goes the way of a GPU, and refuses arrays of another one."""
    monkeypatch.setattr(cross_entropy, "LOGIT_BYTES", 97 * 4 * 7)
    with torch.device("meta"):
        parts = (SHAPE, 97, dtype)
        module = StackedLlama(*parts, members) if members > 1 else lean.Llama(*parts)
        tokens = torch.zeros((members, 3, 20)[members == 1 :], dtype=torch.int64)
    loss = module.loss(tokens, tokens)
    loss.sum().backward()
    assert loss.device.type == "meta"
    for parameter in module.parameters():
        assert (parameter.grad.device.type, parameter.grad.dtype) == ("meta", torch.float32)
    with torch.no_grad():
        assert module.loss(tokens, tokens).shape == loss.shape
