"""The default proxy: a small Llama, trained fast on one CPU core or one GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bimix_tune.corpus import Corpus
from bimix_tune.errors import ConfigError
from bimix_tune.training.memory import Footprint
from bimix_tune.training.sizes import Defaults, Shape, default_recipe, shape_of
from bimix_tune.training.torch_trainer import TorchTrainer

COMPILE = ("auto", "never", "always")

if TYPE_CHECKING:
    import torch

    from bimix_tune.training.ensemble import Ensemble
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

    stacks = True

    size: str = "1M"
    compile: str = "auto"

    def __post_init__(self) -> None:
        if self.compile not in COMPILE:
            raise ConfigError(
                f"compile must be one of {', '.join(COMPILE)}, but got {self.compile!r}"
            )
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
        return Footprint(parameters, shape.token_bytes, vocabulary, chunked=True)

    def build(self, corpus: Corpus, seed: int, device: torch.device) -> Proxy:
        import torch

        from bimix_tune.training.compiled import SwitchingLoss
        from bimix_tune.training.ensemble import Member
        from bimix_tune.training.model import Llama
        from bimix_tune.training.step import Proxy, passes

        shape, dtype = self.shape(), self.dtype(device)
        module = Llama(shape, corpus.vocab_size, dtype)
        module.initialise(torch.Generator().manual_seed(seed))
        notes: dict[str, str | float | int] = {
            "parameters": sum(p.numel() for p in module.parameters()),
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
        }
        module.to(device)
        micro_batch = self.micro_batch(device)
        calls = passes(self.steps(), micro_batch)
        loss = SwitchingLoss(module, self.compile, calls, notes)
        if self.members == 1:
            return Proxy(module, loss, device, micro_batch, notes)
        ensemble = self.ensemble(device)
        notes["members"] = ensemble.verdict
        member = Member(ensemble, module, loss)
        return Proxy(module, member, device, micro_batch, notes, member.under_way)

    def at_once(self) -> int:
        """`members` where they are faster together, else one; the first call measures that.

        Raises:
            ConfigError: There is no such device here.
        """
        from bimix_tune.training.device import choose_device

        if self.members == 1:
            return 1
        pays = self.ensemble(choose_device(self.device)).pays(self.members)
        return self.members if pays else 1

    def ensemble(self, device: torch.device) -> Ensemble:
        """Where runs in this process meet."""
        from bimix_tune.training.compile_ahead import Compilation
        from bimix_tune.training.device import check_memory
        from bimix_tune.training.ensemble_trial import ensemble_of
        from bimix_tune.training.step import passes

        rows, steps = self.micro_batch(device), self.steps()
        form = (self.shape(), Corpus.open(self.corpus).vocab_size)
        dtype = str(self.dtype(device)).removeprefix("torch.")
        unit = Compilation(*form, dtype, device.type, rows, steps.sequence_length, self.members)
        what = f"{self.members} proxies at once ({self!r})"
        return ensemble_of(
            unit,
            device,
            self.compile,
            passes(steps, rows),
            lambda: check_memory(self, device, what, members=self.members),
        )

    def save(self, proxy: Proxy, corpus: Corpus, folder: Path) -> None:
        proxy.module.save(folder, self.steps().sequence_length, corpus.end_token)
