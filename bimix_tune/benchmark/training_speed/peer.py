"""The other side: `transformers.Trainer`, set up as its documentation says.

The same architecture, first weights, text in the same order, batch, loss, optimiser and learning
rates as the lean trainer. Every setting that is not the library's own default is here:

- `LlamaForCausalLM` with its default attention (SDPA), weights in float32, and ``bf16=True`` for
  mixed precision, which is what "Train on one GPU" of its documentation begins with;
- one batch is one step, unless the logits would not fit: then `gradient_accumulation_steps`;
- fused AdamW (the default) with the moments, weight decay and rates of each kind of weight that the
  lean trainer has, given as ``optimizers``, and the schedule of `bimix_tune.training.schedule`, in
  `create_scheduler`; clipping at 1 is the default;
- rows of a map-style data set in order, no shuffling; on a GPU four worker processes of the
  `DataLoader`, with pinned memory (a default), on a CPU none (a default);
- labels are shifted already (``shift_labels``, which `remove_unused_columns` would drop), so that
  both sides predict S tokens of a row;
- no logging, saving, evaluation or progress bar: it does nothing but train.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset, SequentialSampler
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.trainer_callback import TrainerCallback

from bimix_tune.benchmark.training_speed.lean import LEARNING_RATE, MIXTURE, SEED, CaseLlama
from bimix_tune.benchmark.training_speed.paced import Told
from bimix_tune.corpus import Corpus
from bimix_tune.training.device import available
from bimix_tune.training.mixing import MixedReader
from bimix_tune.training.model import Llama
from bimix_tune.training.parametrisation import parameter_groups
from bimix_tune.training.schedule import Steps
from bimix_tune.training.step import BETAS, CLIP, WEIGHT_DECAY

WORKERS = 4
"""Of the `DataLoader` on a GPU."""
LOGIT_BYTES = 20
"""Of each logit while a step runs: bfloat16, float32, softmax and both gradients."""


class Rows(Dataset[Mapping[str, torch.Tensor]]):
    """Sequences in the order in which the lean trainer reads them.

    Args:
        rows: Tokens, (N, S + 1).
    """

    def __init__(self, rows: NDArray[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> Mapping[str, torch.Tensor]:
        row = torch.from_numpy(self._rows[at].astype(np.int64))
        return {"input_ids": row[:-1], "labels": row[:-1], "shift_labels": row[1:]}


class WatchedTrainer(Trainer):
    """Adds up the loss of each step, reads rows in order, and follows our schedule."""

    def __init__(self, steps: Steps, **options: Any) -> None:
        super().__init__(**options)
        self._steps = steps
        self.step_loss: Any = 0.0

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.step_loss = self.step_loss + loss
        return loss

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        chosen = optimizer if optimizer is not None else self.optimizer
        self.lr_scheduler: LambdaLR = LambdaLR(chosen, self._steps.factor)
        return self.lr_scheduler


class EndOfStep(TrainerCallback):
    """Tells the loss of a step.

    Args:
        told: Whom to tell.
    """

    trainer: WatchedTrainer

    def __init__(self, told: Told) -> None:
        self._told = told

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        loss, self.trainer.step_loss = self.trainer.step_loss, 0.0
        self._told(loss)


def peer(ours: CaseLlama, device: torch.device) -> Callable[[Told], None]:
    """The training of the same run by `transformers.Trainer`, as `Paced` wants it.

    Args:
        ours: The lean trainer; its precision is the Trainer's too.
        device: Where both compute.
    """

    def train(told: Told) -> None:
        corpus, steps = Corpus.open(ours.corpus), ours.steps()
        end = EndOfStep(told)
        with tempfile.TemporaryDirectory(prefix="bimix-tune-") as folder:
            model = same_weights(ours, corpus).to(device)
            trainer = WatchedTrainer(
                steps,
                model=model,
                optimizers=(same_optimiser(model), None),
                args=arguments(ours, steps, corpus.vocab_size, device, folder),
                train_dataset=Rows(rows(corpus, steps)),
                callbacks=[end],
            )
            end.trainer = trainer
            trainer.train()

    return train


def same_weights(ours: CaseLlama, corpus: Corpus) -> LlamaForCausalLM:
    """The architecture of a lean trainer in transformers, with the weights it begins with."""
    lean = Llama(ours.shape(), corpus.vocab_size)
    lean.initialise(torch.Generator().manual_seed(SEED))
    config = lean.config(ours.steps().sequence_length, corpus.end_token)
    del config["torch_dtype"], config["architectures"]
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(lean.state_dict())
    return model


def same_optimiser(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """Fused AdamW with the rates and the decay that the lean trainer has for such weights."""
    groups = parameter_groups(model, WEIGHT_DECAY)
    return torch.optim.AdamW(
        [{**group, "lr": LEARNING_RATE * group["factor"]} for group in groups],
        betas=BETAS,
        fused=True,
    )


def rows(corpus: Corpus, steps: Steps) -> NDArray[Any]:
    """All sequences of a run, (steps * batch, S + 1), as the lean trainer mixes them."""
    texts = {name: corpus.tokens(name, "train") for name in corpus.names}
    reader = MixedReader(texts, MIXTURE, steps.sequence_length, SEED)
    batches = [reader.batch(steps.batch) for _ in range(steps.count)]
    return np.concatenate(batches).astype(texts[corpus.names[0]].dtype)


def arguments(
    ours: CaseLlama, steps: Steps, vocabulary: int, device: torch.device, folder: str | Path
) -> TrainingArguments:
    """What the Trainer is told; see the top of this file."""
    parts = accumulation(steps, vocabulary, device)
    on_gpu = device.type == "cuda"
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=steps.batch // parts,
        gradient_accumulation_steps=parts,
        max_steps=steps.count,
        max_grad_norm=CLIP,
        bf16=ours.precision == "bf16",
        use_cpu=device.type == "cpu",
        dataloader_num_workers=WORKERS if on_gpu else 0,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=SEED,
    )


def accumulation(steps: Steps, vocabulary: int, device: torch.device) -> int:
    """Parts of a batch: the fewest of which one leaves half the free memory for the rest."""
    free, parts = available(device), 1
    logits = LOGIT_BYTES * vocabulary * steps.batch_tokens
    while free is not None and logits / parts > free / 2 and not steps.batch % (2 * parts):
        parts *= 2
    return parts
