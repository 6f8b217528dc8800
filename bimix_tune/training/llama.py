"""The default proxy: a small Llama, trained fast on one CPU core or one GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bimix_tune.corpus import Corpus
from bimix_tune.training.memory import Footprint
from bimix_tune.training.sizes import Defaults, Shape, default_recipe, shape_of
from bimix_tune.training.torch_trainer import TorchTrainer

if TYPE_CHECKING:
    import torch

    from bimix_tune.training.loop import Proxy


@dataclass(frozen=True, kw_only=True)
class LlamaTrainer(TorchTrainer):
    """Trains Llama-type proxies of any size from one dial.

    Args:
        size: Parameters of the layers, ``"0.1M"`` to ``"1B"``; everything else has a default
            that follows from it and the budget. See `bimix_tune.training.sizes`.

    The other options are those of `TorchTrainer`.
    """

    size: str = "1M"

    def __post_init__(self) -> None:
        shape_of(self.size)
        super().__post_init__()

    def shape(self) -> Shape:
        """Shape of the decoder."""
        return shape_of(self.size)

    def dtype(self, device: torch.device) -> torch.dtype:
        """Type of the products."""
        from bimix_tune.training.device import compute_dtype

        return compute_dtype(device)

    def defaults(self) -> Defaults:
        return default_recipe(self.shape().parameters, self.tokens)

    def footprint(self) -> Footprint:
        shape, vocabulary = self.shape(), Corpus.open(self.corpus).vocab_size
        norms = (2 * shape.layers + 1) * shape.width
        parameters = shape.parameters + 2 * vocabulary * shape.width + norms
        return Footprint(parameters, shape.token_bytes(vocabulary))

    def build(self, corpus: Corpus, seed: int, device: torch.device) -> Proxy:
        import torch

        from bimix_tune.training.loop import Proxy
        from bimix_tune.training.model import Llama

        shape, dtype = self.shape(), self.dtype(device)
        module = Llama(shape, corpus.vocab_size, dtype)
        module.initialise(torch.Generator().manual_seed(seed))
        notes = {
            "parameters": sum(p.numel() for p in module.parameters()),
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
        }
        module.to(device)
        return Proxy(module, module.loss, device, self.footprint().token_bytes, notes)

    def save(self, proxy: Proxy, corpus: Corpus, folder: Path) -> None:
        proxy.module.save(folder, self.steps().sequence_length, corpus.end_token)
