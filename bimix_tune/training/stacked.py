"""Several Llamas of one shape as one module: every parameter has a leading axis of members.

The blocks are those of `bimix_tune.training.model`; products become batched products, one matrix
for each member, so that the same number of kernels serves all of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimix_tune.training.cross_entropy import IGNORED, linear_cross_entropy
from bimix_tune.training.model import Llama
from bimix_tune.training.sizes import Shape


class StackedLlama(Llama):
    """K decoders that share nothing but their shape.

    Args:
        shape: Of each decoder.
        vocabulary: Number of tokens V.
        dtype: Type of the products; parameters stay float32.
        members: Number of decoders K.
    """

    def __init__(self, shape: Shape, vocabulary: int, dtype: torch.dtype, members: int) -> None:
        super().__init__(shape, vocabulary, dtype)
        self.members = members
        for part in list(self.modules()):
            for name, parameter in list(part.named_parameters(recurse=False)):
                stacked = torch.zeros(members, *parameter.shape)
                setattr(part, name, nn.Parameter(stacked))

    def hidden(self, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """What the output layers see, (K, B, S) -> (K, B * S, width)."""
        table = self.model.embed_tokens.weight
        first = torch.arange(len(table), device=tokens.device) * table.shape[1]
        rows = tokens.flatten(1) + first.unsqueeze(1)
        x = F.embedding(rows, table.flatten(0, 1)).to(self.dtype)
        for block in self.model.layers:
            x = block(x, cos, sin)
        normed: Tensor = self.model.norm(x)
        return normed

    def loss_with_angles(self, inputs: Tensor, labels: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Cross-entropy in nats of each member, (K,); inputs and labels (K, B, S).

        Logits are large, so where no compiler fuses what follows they are made for one member
        after the other, and stay in the cache of a CPU.
        """
        x, weight = self.hidden(inputs, cos, sin), self.lm_head.weight
        if not torch.compiler.is_compiling():
            each = zip(x.unbind(), weight.unbind(), labels.flatten(1).unbind(), strict=True)
            return torch.stack([linear_cross_entropy(*one) for one in each])
        logits = torch.bmm(x, weight.to(x.dtype).mT).flatten(0, 1).float()
        rows = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="none")
        return rows.view(self.members, -1).sum(dim=1)
