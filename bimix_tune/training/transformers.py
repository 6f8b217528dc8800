"""Proxies of any causal-LM architecture that transformers knows, in the common loop.

For searches whose proxies must resemble an architecture other than Llama. Slower than the
lean Llama, and otherwise the same: mixing, schedule, evaluation and the learning rates of
`bimix_tune.training.parametrisation` are shared code. Initial weights are the architecture's own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimix_tune.corpus import Corpus
from bimix_tune.errors import ConfigError
from bimix_tune.training.memory import Footprint
from bimix_tune.training.sizes import Defaults, default_recipe
from bimix_tune.training.torch_trainer import TorchTrainer

if TYPE_CHECKING:
    import torch

    from bimix_tune.training.step import Proxy


@dataclass(frozen=True, kw_only=True)
class TransformersTrainer(TorchTrainer):
    """Trains any causal language model from scratch.

    Args:
        model: Its configuration: a mapping with ``model_type``, a JSON file, a folder with
            ``config.json``, or a name on the Hugging Face hub. Of the hub's files only the
            configuration is read, never weights or code. The vocabulary is that of the
            corpus, and dropout is off: a proxy sees its text about once.

    The other options are those of `TorchTrainer`.
    """

    libraries = ("transformers",)

    model: str | Path | Mapping[str, Any] = field(hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, Mapping) and Path(self.model).exists():
            # A worker may start in another folder.
            object.__setattr__(self, "model", Path(self.model).absolute())

    @cached_property
    def _configuration(self) -> Any:
        """Found once: it travels to workers, who need neither its file nor the hub."""
        return configuration(self.model, Corpus.open(self.corpus))

    @cached_property
    def _parameters(self) -> tuple[int, int]:
        """Numbers of parameters: outside embedding and output layer, and all."""
        import torch
        from transformers import AutoModelForCausalLM

        config = copy.deepcopy(self._configuration)  # the library changes what it is given
        with torch.device("meta"):
            module = AutoModelForCausalLM.from_config(config)
        weights = list(module.parameters())
        inner = sum(p.numel() for p in weights if config.vocab_size not in p.shape)
        return inner, sum(p.numel() for p in weights)

    def defaults(self) -> Defaults:
        """What suits a Llama with as many parameters outside embedding and output layer."""
        return default_recipe(self._parameters[0], self.tokens)

    def footprint(self) -> Footprint:
        config = self._configuration
        width = getattr(config, "hidden_size", 1024) * getattr(config, "num_hidden_layers", 12)
        # About 34 bytes a layer and unit of width (Korthikanti et al. 2022, eq. 2).
        return Footprint(self._parameters[1], 34 * width, config.vocab_size)

    def build(self, corpus: Corpus, seed: int, device: torch.device) -> Proxy:
        import torch
        from transformers import AutoModelForCausalLM

        from bimix_tune.training.cross_entropy import summed_cross_entropy
        from bimix_tune.training.device import compute_dtype
        from bimix_tune.training.step import Proxy

        config = copy.deepcopy(self._configuration)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(device)
        module.train()
        dtype = compute_dtype(device)

        def loss(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits = module(input_ids=inputs, use_cache=False).logits
            return summed_cross_entropy(logits.flatten(0, 1), labels.flatten())

        notes = {
            "parameters": sum(p.numel() for p in module.parameters()),
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
            "model_type": config.model_type,
        }
        return Proxy(module, loss, device, self.micro_batch(device), notes)

    def save(self, proxy: Proxy, corpus: Corpus, folder: Path) -> None:
        # The model writes several files; the folder's name appears when all are there.
        import os
        import shutil

        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        proxy.module.save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)


def configuration(model: str | Path | Mapping[str, Any], corpus: Corpus) -> Any:
    """A transformers configuration for the corpus's vocabulary, without dropout.

    Raises:
        ConfigError: There is no such configuration, or transformers does not know its type.
    """
    from transformers import AutoConfig

    try:
        values = dict(model) if isinstance(model, Mapping) else read_configuration(str(model))
        model_type = values.pop("model_type")
        config = AutoConfig.for_model(model_type, **values)
    except KeyError as error:
        raise ConfigError(f"the configuration {model!r} has no `model_type`") from error
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"no usable model configuration in {model!r}: {reason}") from error
    config.vocab_size = corpus.vocab_size
    config.bos_token_id = config.eos_token_id = corpus.end_token
    config.pad_token_id = None
    for name, value in config.to_dict().items():
        if name.endswith(("dropout", "pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def read_configuration(model: str) -> dict[str, Any]:
    """Values of a JSON file, of a folder's ``config.json``, or of a model on the hub."""
    from transformers import PretrainedConfig

    if Path(model).suffix == ".json":
        values = json.loads(Path(model).read_text(encoding="utf-8"))
    else:
        values, _ = PretrainedConfig.get_config_dict(model)
    return dict(values)
