"""Experiment trackers: each training as a run of MLflow, Weights & Biases or TensorBoard.

Every one is an `Observer` of some thirty lines on its library's own client. A run has the mixture
as parameters and the losses by target over tokens; names are prefixed ``mixture/`` and ``loss/``.
Servers, accounts and keys are the library's own business (its environment variables), and so is
its telemetry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from bimix_tune.errors import ConfigError, did_you_mean
from bimix_tune.observing import Observer
from bimix_tune.options import typed
from bimix_tune.tracking.background import Background

__all__ = ["TRACKERS", "Background", "check_trackers", "make_trackers"]

TRACKERS: Mapping[str, str] = {
    "mlflow": "bimix_tune.tracking.mlflow:MLflowTracker",
    "tensorboard": "bimix_tune.tracking.tensorboard:TensorBoardTracker",
    "wandb": "bimix_tune.tracking.wandb:WandbTracker",
}
"""Where the tracker of each name is; the first argument of its class is the run folder."""

Wanted = str | Sequence[str] | Mapping[str, Mapping[str, Any] | None]


def check_trackers(wanted: Wanted) -> dict[str, dict[str, Any]]:
    """Options by tracker, checked as far as that goes without its library.

    Args:
        wanted: A name, names, or options by name.

    Raises:
        ConfigError: A tracker or an option is unknown, or a value is not of its type.
    """
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(wanted, list | tuple | Mapping):
        raise ConfigError(f"trackers are a list or a mapping with options, but got {wanted!r}")
    names = wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
    checked = {}
    for name, options in names.items():
        if name not in TRACKERS:
            raise ConfigError(f"no tracker {name!r}" + did_you_mean(name, TRACKERS))
        if options is not None and not isinstance(options, Mapping):
            raise ConfigError(f"tracker {name!r} takes options by name, but got {options!r}")
        types = get_type_hints(_class(name).__init__)
        known = [n for n in types if n not in ("folder", "return")]
        for option in options or {}:
            if option not in known:
                raise ConfigError(
                    f"tracker {name!r} has no option {option!r}" + did_you_mean(option, known)
                )
        checked[name] = typed(f"track.{name}", types, options or {})
    return checked


def make_trackers(wanted: Wanted, folder: Path) -> list[Observer]:
    """The trackers, each on a thread of its own so that a slow server holds up no search.

    Args:
        wanted: Names, or options by name.
        folder: The run folder: its name is the search's, and files go there.

    Raises:
        ConfigError: See `check_trackers`.
        MissingExtraError: A library is not installed.
    """
    return [
        Background(_class(name)(folder, **options), name)
        for name, options in check_trackers(wanted).items()
    ]


def _class(name: str) -> Any:
    module, _, attribute = TRACKERS[name].partition(":")
    return getattr(import_module(module), attribute)
