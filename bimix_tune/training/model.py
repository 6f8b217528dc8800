"""A lean Llama decoder: the same function as transformers' LlamaForCausalLM, only faster.

Parameters carry the names and shapes of LlamaForCausalLM, so weights go both ways and a saved
proxy loads there. Speed on a CPU comes from three things: bfloat16 products with float32
master weights (cast where they are used), one product for query, key and value and one for
gate and up, and attention written as product, softmax, product for some queries at a time:
PyTorch's fused CPU kernel is slower than that for the small heads and short sequences of proxies.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimix_tune.training.cross_entropy import OfPart, in_place, linear_cross_entropy
from bimix_tune.training.kept import embedding
from bimix_tune.training.parametrisation import initial_sd
from bimix_tune.training.sizes import Shape

NORM_EPSILON = 1e-5
ROPE_BASE = 10000.0
LONGEST_PLAIN_ATTENTION = 1024
"""Sequence length up to which a CPU keeps the probabilities of attention, which are then no more
than its other activations. In bfloat16 this is 1.2 to 3 times as fast as PyTorch's fused kernel."""
QUERIES, PARTS = 128, 4
"""Queries that a CPU works on at a time, with no keys beyond the last of them, at least; and parts
that a sequence is cut into, at most. A compiler has to write each part."""


def joint_linear(x: Tensor, *layers: nn.Linear) -> Tensor:
    """Several bias-free linear layers of one input as one product, in the type of ``x``.

    Args:
        x: (..., d), or (K, N, d) where the weights of K members are stacked.
        layers: With weights (out, d), or (K, out, d).
    """
    weights = [layer.weight.to(x.dtype) for layer in layers]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights, dim=-2)
    return F.linear(x, weight) if weight.dim() == 2 else torch.bmm(x, weight.mT)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axis (Zhang & Sennrich 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        if weight.dim() == 1:
            return F.rms_norm(x, weight.shape, weight, NORM_EPSILON)
        return F.rms_norm(x, weight.shape[1:], eps=NORM_EPSILON) * weight.unsqueeze(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in Llama's layout: halves of a head are the pairs.

    Args:
        x: (..., S, head).
        cos: Cosines, (S, head).
        sin: Sines, those of the first half negative, (S, head).
    """
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((second, first), dim=-1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, (B, heads, S, head) each -> same.

    ``softmax(q k^T / sqrt(head) + mask) v``.
    """
    length = q.shape[-2]
    if q.device.type != "cpu" or q.dtype == torch.float32 or length > LONGEST_PLAIN_ATTENTION:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    q, parts, queries = q * q.shape[-1] ** -0.5, [], max(QUERIES, -(-length // PARTS))
    for start in range(0, length, queries):
        end = min(start + queries, length)
        future = torch.full((end - start, end), -math.inf, dtype=q.dtype).triu_(start + 1)
        scores = torch.matmul(q[..., start:end, :], k[..., :end, :].transpose(-1, -2))
        parts.append(torch.matmul(torch.softmax(scores + future, dim=-1), v[..., :end, :]))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


class Attention(nn.Module):
    """Multi-head self-attention without biases."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        length, head = cos.shape
        qkv = joint_linear(x, self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (
            part.view(-1, length, self.heads, head).transpose(1, 2) for part in qkv.chunk(3, -1)
        )
        mixed = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return joint_linear(mixed.transpose(1, 2).reshape(x.shape), self.o_proj)


class MLP(nn.Module):
    """SwiGLU, ``down(silu(gate(x)) * up(x))`` (Shazeer 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.ffn, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.ffn, bias=False)
        self.down_proj = nn.Linear(shape.ffn, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = joint_linear(x, self.gate_proj, self.up_proj).chunk(2, dim=-1)
        return joint_linear(F.silu(gate) * up, self.down_proj)


class Block(nn.Module):
    """Attention and SwiGLU, each normalised before and added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = MLP(shape)
        self.input_layernorm = RMSNorm(shape.width)
        self.post_attention_layernorm = RMSNorm(shape.width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """The decoder.

    Args:
        shape: Layers, width, heads and hidden width of the SwiGLU.
        vocabulary: Number of tokens V.
        dtype: Type of the products; parameters stay float32.
        tied: Whether the output layer shares the embedding's weights.
    """

    def __init__(
        self,
        shape: Shape,
        vocabulary: int,
        dtype: torch.dtype = torch.float32,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.dtype, self.tied, self.members = shape, dtype, tied, 1
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(vocabulary, shape.width)
        self.model.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.model.norm = RMSNorm(shape.width)
        self.lm_head = nn.Linear(shape.width, vocabulary, bias=False)
        if tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def initialise(self, generator: torch.Generator) -> None:
        """Draw normal weights by the table of `bimix_tune.training.parametrisation`.

        With Llama's sd of 0.02 everywhere a proxy 192 wide spends most of its short run escaping
        from the start: after 150k tokens 3.44 bits per byte at the best of three learning
        rates, against 3.05 with sd ``inputs ** -0.5``, one rate for all weights in both.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                output = parameter is self.lm_head.weight  # also where it is tied
                sd = initial_sd(
                    "lm_head.weight" if output else name, parameter.shape[1], self.shape.layers
                )
                nn.init.normal_(parameter, std=sd, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token, (B, S) -> (B, S, V), in the type of the products."""
        hidden = self.hidden(tokens, *self.angles(tokens))
        return joint_linear(hidden, self.lm_head).view(*tokens.shape, -1)

    def hidden(self, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """What the output layer sees, (B, S) -> (B * S, width)."""
        return self.decoded(self.embedded(tokens), cos, sin)

    def embedded(self, tokens: Tensor) -> Tensor:
        """What the first block sees, (B, S) -> (B, S, width)."""
        return embedding(tokens, self.model.embed_tokens.weight).to(self.dtype)

    def decoded(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`hidden` of what the first block sees."""
        for block in self.model.layers:
            x = block(x, cos, sin)
        normed: Tensor = self.model.norm(x).flatten(0, 1)
        return normed

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, summed over all tokens; inputs and labels (B, S)."""
        return self.loss_with_angles(inputs, labels, *self.angles(inputs))

    def loss_with_angles(self, inputs: Tensor, labels: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`loss` without the angles, which a compiler would compute anew for every head."""
        return self.loss_of(self.hidden(inputs, cos, sin), labels)

    def loss_of(self, hidden: Tensor, labels: Tensor, of_part: OfPart = in_place) -> Tensor:
        """`loss` of what the output layer sees, (B * S, width)."""
        return linear_cross_entropy(hidden, self.lm_head.weight, labels.flatten(), of_part)

    def angles(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the rotary angles of (..., S) tokens, (S, head) each; see `rotate`."""
        head, length, device = self.shape.width // self.shape.heads, tokens.shape[-1], tokens.device
        speeds = ROPE_BASE ** (-torch.arange(0, head, 2, device=device).float() / head)
        angles = torch.outer(torch.arange(length, device=device).float(), speeds)
        cos, sin = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)

    def config(self, length: int, end_token: int) -> dict[str, Any]:
        """The configuration under which transformers loads the weights."""
        shape = self.shape
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": shape.width,
            "intermediate_size": shape.ffn,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "vocab_size": self.lm_head.out_features,
            "max_position_embeddings": length,
            "hidden_act": "silu",
            "rms_norm_eps": NORM_EPSILON,
            "rope_theta": ROPE_BASE,
            "tie_word_embeddings": self.tied,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": end_token,
            "eos_token_id": end_token,
            "torch_dtype": "float32",
        }

    def save(self, folder: Path, length: int, end_token: int) -> None:
        """Write ``config.json`` and ``model.safetensors``; each appears whole or not at all."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        if self.tied:
            del weights["lm_head.weight"]
        temporary = folder / f".{os.getpid()}.tmp"
        save_file(weights, str(temporary), metadata={"format": "pt"})
        os.replace(temporary, folder / "model.safetensors")
        temporary.write_text(json.dumps(self.config(length, end_token), indent=2))
        os.replace(temporary, folder / "config.json")
