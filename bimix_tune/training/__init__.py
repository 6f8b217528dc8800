"""Proxy trainings: the contract in `base`, one module for each kind of trainer.

A new kind is one module and one line of `TRAINERS`. Modules are imported when first asked
for, so that this package costs nothing without PyTorch.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, cast, get_type_hints

from bimix_tune.errors import ConfigError, did_you_mean
from bimix_tune.options import typed
from bimix_tune.training.base import Checkpoint, Trainer

__all__ = [
    "TRAINERS",
    "Checkpoint",
    "Trainer",
    "check_options",
    "load_trainer",
    "trainer_class",
]

TRAINERS: Mapping[str, str] = {
    "llama": "bimix_tune.training.llama:LlamaTrainer",
    "transformers": "bimix_tune.training.transformers:TransformersTrainer",
    "command": "bimix_tune.training.command:CommandTrainer",
    "replay": "bimix_tune.training.replay:ReplayTrainer",
    "synthetic": "bimix_tune.training.synthetic:SyntheticTrainer",
}
"""Where the trainer of each name is."""


def trainer_class(name: str) -> type[Any]:
    """The class of a trainer, imported now.

    Raises:
        ConfigError: There is no trainer of that name.
    """
    if name not in TRAINERS:
        raise ConfigError(f"no trainer {name!r}" + did_you_mean(name, TRAINERS))
    module, _, attribute = TRAINERS[name].partition(":")
    return cast("type[Any]", getattr(importlib.import_module(module), attribute))


def check_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse options that a trainer does not have, before any work is done for it.

    Returns:
        The options with values of the types that the trainer declares; see `typed`.

    Raises:
        ConfigError: The trainer or an option is unknown, or a value is not of its type.
    """
    kind = trainer_class(name)
    fields = [f.name for f in dataclasses.fields(kind) if f.init]
    for option in options:
        if option not in fields:
            raise ConfigError(
                f"trainer {name!r} has no option {option!r}" + did_you_mean(option, fields)
            )
    return typed("trainer", get_type_hints(kind), options)


def load_trainer(name: str, **options: Any) -> Trainer:
    """A trainer by name.

    Args:
        name: Key of `TRAINERS`.
        options: Arguments of its class.

    Raises:
        ConfigError: The name or an option is unknown, an option is missing, or a value is
            refused by the class.
        MissingExtraError: A library that the trainer needs is not installed.
    """
    kind = trainer_class(name)
    values = check_options(name, options)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    no_default = dataclasses.MISSING
    missing = [
        f.name
        for f in fields.values()
        if f.default is no_default and f.default_factory is no_default and f.name not in options
    ]
    if missing:
        raise ConfigError(f"trainer {name!r} needs {', '.join(missing)}")
    return cast("Trainer", kind(**values))
