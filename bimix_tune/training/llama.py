"""The default proxy: a small Llama, trained fast on one CPU core or one GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bimix_tune.corpus import Corpus
from bimix_tune.errors import ConfigError
from bimix_tune.training.sizes import Defaults, default_recipe, shape_of
from bimix_tune.training.torch_trainer import TorchTrainer

COMPILE = ("auto", "never", "always")

if TYPE_CHECKING:
    import torch

    from bimix_tune.training.step import Proxy


@dataclass(frozen=True, kw_only=True)
class LlamaTrainer(TorchTrainer):
    """Trains Llama-type proxies of any size from one dial.

    Args:
        size: Parameters of the layers, ``"0.1M"`` to ``"1B"``; everything else has a default
            that follows from it and the budget. See `bimix_tune.training.sizes`.
        compile: ``"auto"`` goes on with a compiled step where the run is long enough to gain
            from it, ``"always"`` compiles before the first step, ``"never"`` compiles nothing.
            Compiled and eager steps differ by rounding only; for runs that are equal to the
            last bit choose one of the last two. See `bimix_tune.training.compiled`.

    The other options are those of `TorchTrainer`.
    """

    size: str = "1M"
    compile: str = "auto"

    def __post_init__(self) -> None:
        if self.compile not in COMPILE:
            raise ConfigError(
                f"compile must be one of {', '.join(COMPILE)}, but got {self.compile!r}"
            )
        shape_of(self.size)
        super().__post_init__()

    def defaults(self) -> Defaults:
        return default_recipe(shape_of(self.size).parameters, self.tokens)

    def build(self, corpus: Corpus, seed: int, device: torch.device) -> Proxy:
        import torch

        from bimix_tune.training.compiled import SwitchingLoss
        from bimix_tune.training.device import compute_dtype
        from bimix_tune.training.model import Llama
        from bimix_tune.training.step import Proxy, passes

        shape, dtype = shape_of(self.size), compute_dtype(device)
        module = Llama(shape, corpus.vocab_size, dtype)
        module.initialise(torch.Generator().manual_seed(seed))
        notes: dict[str, str | float | int] = {
            "parameters": sum(p.numel() for p in module.parameters()),
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
        }
        module.to(device)
        # Logits count for nothing: there are never more than `cross_entropy.LOGIT_BYTES` of them.
        token_bytes = shape.token_bytes(vocabulary=0)
        calls = passes(self.steps(), device, token_bytes)
        loss = SwitchingLoss(module, self.compile, calls, notes)
        return Proxy(module, loss, device, token_bytes, notes)

    def save(self, proxy: Proxy, corpus: Corpus, folder: Path) -> None:
        proxy.module.save(folder, self.steps().sequence_length, corpus.end_token)
