"""One learning rate for all sizes: what a step changes does not depend on width or depth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bimix_tune.mixture import Mixture
from bimix_tune.training.llama import LlamaTrainer
from bimix_tune.training.model import Llama
from bimix_tune.training.parametrisation import parameter_groups, rate_factors
from bimix_tune.training.sizes import Shape, shape_of

WIDTHS, DEPTHS = (64, 128, 256, 512), (2, 4, 8, 16)
TOKENS = torch.randint(0, 64, (8, 32), generator=torch.Generator().manual_seed(1))
LABELS = (TOKENS * 7 + 3) % 64
RATE = 4e-3


def model(width: int, depth: int = 2, tied: bool = False) -> Llama:
    module = Llama(Shape(depth, width, width // 64, width * 5 // 2), 64, tied=tied)
    module.initialise(torch.Generator().manual_seed(0))
    return module


def additions_and_logits(module: Llama) -> tuple[torch.Tensor, torch.Tensor]:
    """What the blocks together add to the embedding, and what the model says."""
    kept = []
    hook = module.model.norm.register_forward_hook(lambda _, inputs, __: kept.append(inputs[0]))
    with torch.no_grad():
        logits = module(TOKENS)
        hook.remove()
        return kept[0] - module.model.embed_tokens(TOKENS), logits


def sizes_and_changes(module: Llama, plain: bool) -> list[float]:
    """Root mean squares of additions and logits at the start, and of their change in 4 steps."""
    groups = parameter_groups(module, weight_decay=0.1)
    optimiser = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95))
    for group in optimiser.param_groups:
        group["lr"] = RATE if plain else RATE * group["factor"]
    before = additions_and_logits(module)
    for _ in range(4):
        optimiser.zero_grad()
        (module.loss(TOKENS, LABELS) / TOKENS.numel()).backward()
        optimiser.step()
    after = additions_and_logits(module)
    changes = [b - a for a, b in zip(before, after, strict=True)]
    return [float(x.pow(2).mean().sqrt()) for x in (*before, *changes)]


def slopes(values: tuple[int, ...], rows: list[list[float]]) -> np.ndarray:
    """Exponents of additions, logits and their changes as powers of width or depth, (4,)."""
    return np.polyfit(np.log(values), np.log(np.array(rows)), 1)[0]


def test_changes_do_not_depend_on_width() -> None:
    rows, plain = ([sizes_and_changes(model(w), p) for w in WIDTHS] for p in (False, True))
    additions, logits, additions_change, logits_change = slopes(WIDTHS, rows)
    assert additions == pytest.approx(0.0, abs=0.05)
    assert logits == pytest.approx(-0.5, abs=0.05)  # they only need to be small at the start
    assert additions_change == pytest.approx(0.0, abs=0.1)
    assert logits_change == pytest.approx(0.0, abs=0.2)
    assert slopes(WIDTHS, plain)[2] > 0.5


def test_changes_do_not_depend_on_depth() -> None:
    rows, plain = ([sizes_and_changes(model(64, d), p) for d in DEPTHS] for p in (False, True))
    additions, logits, additions_change, logits_change = slopes(DEPTHS, rows)
    assert additions == pytest.approx(-0.5, abs=0.05)  # 2 L random ones of size 1 / L each
    assert logits == pytest.approx(0.0, abs=0.05)
    assert additions_change == pytest.approx(0.0, abs=0.2)
    assert logits_change == pytest.approx(0.0, abs=0.05)
    assert (slopes(DEPTHS, plain)[2:] > 0.15).all()


def test_sizes_of_initial_weights_follow_the_table() -> None:
    module = model(256, depth=4)
    wanted = {
        "model.embed_tokens.weight": 1.0,
        "model.layers.3.self_attn.q_proj.weight": 1 / 16,
        "model.layers.3.self_attn.o_proj.weight": 1 / 16 / 4,
        "model.layers.3.mlp.up_proj.weight": 1 / 16,
        "model.layers.3.mlp.down_proj.weight": 640**-0.5 / 4,
        "lm_head.weight": 8 / 256,
    }
    for name, sd in wanted.items():
        assert float(module.get_parameter(name).detach().std()) == pytest.approx(sd, rel=0.03), name
    assert bool((module.model.norm.weight == 1).all())


def test_rates_follow_the_table() -> None:
    factors = rate_factors(model(256, depth=4))
    assert factors["model.embed_tokens.weight"] == 16.0
    assert factors["model.norm.weight"] == 1.0
    assert factors["model.layers.0.self_attn.k_proj.weight"] == 0.5
    assert factors["model.layers.0.self_attn.o_proj.weight"] == 0.25
    assert factors["model.layers.3.mlp.down_proj.weight"] == 0.25
    assert factors["lm_head.weight"] == 2.0
    assert set(rate_factors(model(128)).values()) == {1.0, 4.0, 16.0}
    assert rate_factors(model(256, tied=True))["model.embed_tokens.weight"] == 2.0


def test_every_weight_is_in_one_group_and_matrices_decay_alike() -> None:
    module = model(192, depth=3)
    groups = parameter_groups(module, weight_decay=0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in module.parameters())
    for group in groups:
        matrices = group["params"][0].dim() > 1
        assert {p.dim() > 1 for p in group["params"]} == {matrices}
        assert group["weight_decay"] * group["factor"] == pytest.approx(0.1 if matrices else 0.0)


@pytest.mark.parametrize(
    ("kind", "embedding", "reads", "writes"),
    [
        ("gpt2", "wte.weight", "c_attn.weight", None),
        ("mistral", "embed_tokens.weight", "up_proj.weight", "down_proj.weight"),
    ],
)
def test_any_causal_model_has_rates(kind: str, embedding: str, reads: str, writes: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = AutoConfig.for_model(kind, vocab_size=64, tie_word_embeddings=False, **sizes)
    with torch.device("meta"):
        factors = rate_factors(AutoModelForCausalLM.from_config(config))
    assert {f for n, f in factors.items() if n.endswith(embedding)} == {16.0}
    assert {f for n, f in factors.items() if n.endswith(reads)} == {0.5}
    if writes is not None:
        assert {f for n, f in factors.items() if n.endswith(writes)} == {0.25}


def test_a_training_step_moves_weights_at_their_rates(corpus: Path, tmp_path: Path) -> None:
    """Adam's first step is the learning rate in every coordinate that has a gradient."""
    trainer = LlamaTrainer(
        corpus=corpus,
        tokens=160,  # one step
        size="0.1M",
        sequence_length=16,
        batch_tokens=160,
        learning_rate=1e-3,
        device="cpu",
        save_to=tmp_path,
    )
    end = list(trainer.run(Mixture(("ab", "mixed"), [0.5, 0.5]), 3))[-1]
    after = load_file(Path(str(end.notes["weights"]), "model.safetensors"))
    before = Llama(shape_of("0.1M"), 64)
    before.initialise(torch.Generator().manual_seed(3))
    for name, factor in rate_factors(before).items():
        start = before.get_parameter(name).detach()
        moved = after[name] - start
        if start.dim() > 1:  # take back the decay
            moved += 1e-3 * 0.1 * start
        assert float(moved.abs().max()) == pytest.approx(1e-3 * factor, rel=0.02), name
