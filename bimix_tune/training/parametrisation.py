"""Initial weights and learning rates that let one learning rate serve every size.

Maximal update parametrisation for Adam (Yang et al. 2022, "Tensor Programs V", table 8) with
its extension to depth (Dey et al. 2025, "CompleteP", table 1), written without multipliers in
the forward pass, which initial scales and learning rates can replace under Adam: a weight that
would be multiplied by c is drawn c times smaller and learns c times slower. So the weights are
those of an ordinary Llama. With width d, depth L and the learning rate r of a recipe:

==============================  ====================  ===================
weights                         initial sd            learning rate
==============================  ====================  ===================
embedding                       1                     16 r
norms, biases                   (1)                   r
matrices that read the stream   inputs^-1/2           r 128/d
matrices that write to it       inputs^-1/2 / L       r 128/d 2/L
output layer                    8/d                   4 r 128/d
==============================  ====================  ===================

Every matrix decays at the pace of r. Powers of d and L are theory; the numbers 16, 8 and 4 were
found at 0.1M parameters and serve the others. ``examples/09_one_learning_rate.py`` measures the
mean loss in bits per byte after 300k tokens of the starter corpus, evenly mixed. With one seed,
and beside it the best of the rates tried with sd ``inputs^-1/2`` and one rate for all weights:

=======  =======  =======  =======  ======================
   size  r=0.002    0.004    0.008  one rate (tried)
=======  =======  =======  =======  ======================
   0.1M   2.7377   2.7179   2.7301  2.8714 (0.001 - 0.016)
   0.4M   2.6379   2.6415   2.6666  2.7498 (0.001 - 0.016)
     1M   2.5989   2.6025   2.6311  2.7022 (0.001, 0.004)
     3M   2.7151   2.7257           2.7935 (0.002)
=======  =======  =======  =======  ======================

Another seed moves a loss by 0.04. The 3M proxy reads sequences twice as long, other validation
windows with it, so its row is not comparable with the others. From the initial weights of
``transformers`` (sd 0.02) the rates matter more still: at the shape of 0.1M 2.718 with r=0.004,
against 3.334 with one rate of 0.008.
"""

from __future__ import annotations

from typing import Any

from torch import nn

BASE_WIDTH, BASE_DEPTH = 128, 2
"""Shape (that of 0.4M parameters) at which the matrices of the blocks learn at the rate r."""
EMBEDDING_RATE, OUTPUT_RATE = 16.0, 4.0
OUTPUT_SCALE = 8.0
"""Initial sd of the output layer times width: small logits, near even odds for all tokens."""
WRITERS = ("o_proj.weight", "down_proj.weight")
"""Names of the matrices that write to the stream, in Llama and most of its descendants."""
OUTPUTS = ("lm_head.weight", "embed_out.weight")
"""Names of the output layer in transformers."""


def initial_sd(name: str, inputs: int, depth: int) -> float:
    """Standard deviation of a matrix of a Llama at the start.

    Args:
        name: Of the parameter.
        inputs: Its second axis; the width for embedding and output layer.
        depth: Number of blocks.
    """
    if name.endswith("embed_tokens.weight"):
        return 1.0
    if name.endswith(OUTPUTS):
        return OUTPUT_SCALE / inputs
    return float(inputs**-0.5 / (depth if name.endswith(WRITERS) else 1))


def rate_factors(module: nn.Module) -> dict[str, float]:
    """Learning rate of every parameter, as a multiple of the recipe's.

    By type and name: ``nn.Embedding`` is an embedding, `OUTPUTS` and `WRITERS` are what they
    are called, any other matrix reads the stream, and a convolution (a filter that does not
    grow with the width) counts as a vector. An embedding that is tied to the output layer
    learns like the latter.

    Args:
        module: Any causal language model, its output layer included.

    Returns:
        Factors by name of the parameter.
    """
    width, depth = width_and_depth(module)
    factors = {}
    for prefix, part in module.named_modules():
        for name, parameter in part.named_parameters(prefix, recurse=False):
            # The output layer comes last, so a tied weight counts as that.
            factors[id(parameter)] = _factor(part, name, parameter.dim(), width, depth)
    return {name: factors[id(parameter)] for name, parameter in module.named_parameters()}


def _factor(part: nn.Module, name: str, axes: int, width: int, depth: int) -> float:
    if axes < 2 or isinstance(part, nn.Conv1d):
        return 1.0
    if isinstance(part, nn.Embedding):
        return EMBEDDING_RATE
    if name.endswith(OUTPUTS):
        return OUTPUT_RATE * BASE_WIDTH / width
    return BASE_WIDTH / width * (BASE_DEPTH / depth if name.endswith(WRITERS) else 1.0)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for AdamW: parameters of one rate and decay, with their ``"factor"`` of the rate.

    Matrices decay, vectors do not. AdamW decays by the product of rate and decay, so the decay
    is divided by the factor: all matrices shrink at the pace of the recipe's rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    factors = rate_factors(module)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay / factors[name] if parameter.dim() > 1 else 0.0
            groups.setdefault((factors[name], decay), []).append(parameter)
    return [{"params": p, "factor": f, "weight_decay": d} for (f, d), p in groups.items()]


def width_and_depth(module: nn.Module) -> tuple[int, int]:
    """Width of the embedding and number of blocks, or the base where there is no such thing."""
    widths = (m.embedding_dim for m in module.modules() if isinstance(m, nn.Embedding))
    depths = (len(m) for m in module.modules() if isinstance(m, nn.ModuleList))
    return next(widths, BASE_WIDTH), next(depths, BASE_DEPTH)
