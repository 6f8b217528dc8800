"""Our side of the comparison: `LlamaTrainer`, run as a search runs it.

The one seam is in `every_step`: after each call of ``loop.Training._step``, which takes an
optimiser step and returns its mean loss, the benchmark is told that loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimix_tune.benchmark.training_speed.cases import Case
from bimix_tune.benchmark.training_speed.paced import Told
from bimix_tune.benchmark.training_speed.text import DOMAINS
from bimix_tune.mixture import Mixture
from bimix_tune.training.llama import LlamaTrainer
from bimix_tune.training.sizes import Shape

if TYPE_CHECKING:
    import torch

COMPILE = "always"
"""What is timed is the step of a long run, which is a compiled one; see `LlamaTrainer`."""
LEARNING_RATE = 1e-3
SEED = 0
MIXTURE = Mixture(DOMAINS, (0.5, 0.3, 0.2))
PRECISIONS = {"bf16": "bfloat16", "fp32": "float32"}
"""Type of the products by the name that `transformers.TrainingArguments` has for it."""


@dataclass(frozen=True, kw_only=True)
class CaseLlama(LlamaTrainer):
    """A `LlamaTrainer` of any shape and precision.

    Args:
        decoder: Replaces what the size says.
        precision: A name of `PRECISIONS`.

    The other options are those of `LlamaTrainer`.
    """

    decoder: Shape
    precision: str

    def shape(self) -> Shape:
        return self.decoder

    def dtype(self, device: torch.device) -> torch.dtype:
        import torch

        found: torch.dtype = getattr(torch, PRECISIONS[self.precision])
        return found


def case_trainer(
    case: Case, corpus: Path, device: str, precision: str, batch_tokens: int, steps: int,
    **options: Any,
) -> CaseLlama:  # fmt: skip
    """The lean trainer of a case, for a run of so many steps."""
    return CaseLlama(
        corpus=corpus,
        tokens=steps * batch_tokens,
        sequence_length=case.length,
        batch_tokens=batch_tokens,
        learning_rate=LEARNING_RATE,
        device=device,
        decoder=case.shape,
        precision=precision,
        **options,
    )


def lean(trainer: CaseLlama) -> Callable[[Told], None]:
    """The training of `MIXTURE` as `Paced` wants it."""

    def train(told: Told) -> None:
        run = trainer.run(MIXTURE, SEED)
        with every_step(told):
            next(run)
        for _ in run:
            pass

    return train


@contextmanager
def every_step(told: Told) -> Iterator[None]:
    """Runs of PyTorch trainers that begin in the block tell the loss of every step."""
    from bimix_tune.training import loop

    class Watched(loop.Training):
        def _step(self, step: int) -> torch.Tensor:
            loss = super()._step(step)
            told(loss)
            return loss

    plain = loop.Training
    setattr(loop, "Training", Watched)  # noqa: B010 - to a type checker a class is no variable
    try:
        yield
    finally:
        setattr(loop, "Training", plain)  # noqa: B010
