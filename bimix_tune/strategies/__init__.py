"""Ways to search for a mixture, ours and other people's, and the mixtures that need no search.

`STRATEGIES` maps a name to an import path, so that looking at the table loads no library;
`strategy_class` resolves a name, or a class in a file of the user's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

from bimix_tune.errors import ConfigError, did_you_mean, missing_extra
from bimix_tune.strategies.base import Setting, Strategy
from bimix_tune.strategies.baselines import baseline_mixtures, distinct, unimax

__all__ = [
    "LIBRARIES",
    "STRATEGIES",
    "Setting",
    "Strategy",
    "available",
    "baseline_mixtures",
    "distinct",
    "strategy_class",
    "unimax",
]

STRATEGIES: Mapping[str, str] = {
    "bimix-tune": "bimix_tune.strategies.bimix:BiMix",
    "bimix-rung-1": "bimix_tune.strategies.bimix:BiMixRungOne",
    "bimix-no-pruner": "bimix_tune.strategies.bimix:BiMixNoPruner",
    "bimix-no-trust-region": "bimix_tune.strategies.bimix:BiMixNoTrustRegion",
    "bimix-random-start": "bimix_tune.strategies.bimix:BiMixRandomStart",
    "random": "bimix_tune.strategies.random_search:Random",
    "random-natural": "bimix_tune.strategies.random_search:RandomNatural",
    "tpe-ilr": "bimix_tune.strategies.optuna_samplers:TpeIlr",
    "tpe-faq": "bimix_tune.strategies.optuna_samplers:TpeFaq",
    "gp-ilr": "bimix_tune.strategies.optuna_samplers:GpIlr",
    "gp-share": "bimix_tune.strategies.optuna_samplers:GpShare",
    "gp-faq": "bimix_tune.strategies.optuna_samplers:GpFaq",
    "cma-es-ilr": "bimix_tune.strategies.optuna_samplers:CmaEsIlr",
    "qmc-ilr": "bimix_tune.strategies.optuna_samplers:QmcIlr",
    "botorch": "bimix_tune.strategies.botorch_search:BoTorch",
    "gp-targets": "bimix_tune.strategies.gp_targets:GpTargets",
    "regmix": "bimix_tune.strategies.static:RegMix",
    "mixing-law": "bimix_tune.strategies.static:MixingLaw",
    "olmix": "bimix_tune.strategies.static:Olmix",
    "climb": "bimix_tune.strategies.climb:Climb",
    "natural": "bimix_tune.strategies.training_free:Natural",
    "uniform": "bimix_tune.strategies.training_free:Uniform",
    "UniMax": "bimix_tune.strategies.training_free:UniMax",
    "SE": "bimix_tune.strategies.training_free:ShannonEntropy",
    "CE": "bimix_tune.strategies.training_free:ConditionalEntropy",
    "JE": "bimix_tune.strategies.training_free:JointEntropy",
    "VNE": "bimix_tune.strategies.training_free:VonNeumannEntropy",
}

LIBRARIES: Mapping[str, str] = {
    "gp-ilr": "torch",
    "gp-share": "torch",
    "gp-faq": "torch",
    "cma-es-ilr": "cmaes",
    "botorch": "botorch",
    "gp-targets": "sklearn",
    "regmix": "lightgbm",
    "climb": "lightgbm",
}
"""The library that a strategy needs beyond those of the package, part of the extra `benchmark`."""


def strategy_class(name: str) -> type[Strategy]:
    """The class behind a name, or behind ``path/to/file.py:ClassName``.

    Raises:
        ConfigError: There is no such strategy, file or class, or it is no `Strategy`.
        MissingExtraError: The library that it needs is not installed.
    """
    if ".py:" in name:
        return _from_file(name)
    if name not in STRATEGIES:
        raise ConfigError(
            f"unknown strategy {name!r}{did_you_mean(name, STRATEGIES)} A strategy of your own is "
            "named by its file and class, path/to/file.py:ClassName"
        )
    library = _missing_library(name)
    if library is not None:
        raise missing_extra(library, "benchmark", f"strategy {name!r}")
    module, _, attribute = STRATEGIES[name].partition(":")
    return _checked(getattr(importlib.import_module(module), attribute), name)


def available(name: str, setting: Setting) -> str | None:
    """Why a strategy of `STRATEGIES` cannot take part in a search, or None if it can."""
    library = _missing_library(name)
    if library is not None:
        return f"{library} is not installed: pip install 'bimix-tune[benchmark]'"
    from bimix_tune.strategies.training_free import TrainingFree

    strategy = strategy_class(name)
    if issubclass(strategy, TrainingFree) and strategy.label not in setting.known:
        return f"the mixture {strategy.label!r} is not known"
    return None


def _missing_library(name: str) -> str | None:
    library = LIBRARIES.get(name)
    return library if library and importlib.util.find_spec(library) is None else None


def _from_file(name: str) -> type[Strategy]:
    file, _, attribute = name.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"strategy {name!r}: there is no file {path}")
    # By path, so that two files of one name differ; registered, so that dataclasses work in it.
    label = f"bimix_tune_strategy_{abs(hash(str(path)))}"
    module = sys.modules.get(label)
    if module is None:
        spec = importlib.util.spec_from_file_location(label, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[label] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[label]
            raise ConfigError(
                f"strategy {name!r}: {path} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
    if not hasattr(module, attribute):
        classes = [n for n, v in vars(module).items() if isinstance(v, type)]
        raise ConfigError(
            f"strategy {name!r}: {path} has no class {attribute!r}"
            + did_you_mean(attribute, classes)
        )
    return _checked(getattr(module, attribute), name)


def _checked(found: object, name: str) -> type[Strategy]:
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigError(f"strategy {name!r}: {found!r} is no subclass of Strategy")
    return found
