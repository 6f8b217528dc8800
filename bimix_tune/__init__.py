"""Find the data mixture for pretraining a language model.

`search` trains proxies and recommends a mixture; `BiMixSampler`, `BiMixPruner`, `suggest_mixture`
and `report_losses` do the same inside any Optuna study; `fit` and `optimise` work on runs that
exist already. Names are loaded on first use, so importing the package is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bimix_tune.corpus import Corpus as Corpus
    from bimix_tune.corpus import build_corpus as build_corpus
    from bimix_tune.curves import LossCurve as LossCurve
    from bimix_tune.curves import read_curves as read_curves
    from bimix_tune.curves import write_curves as write_curves
    from bimix_tune.entropy import entropy_mixture as entropy_mixture
    from bimix_tune.errors import BimixError as BimixError
    from bimix_tune.executors.local import LocalExecutor as LocalExecutor
    from bimix_tune.executors.ray import RayExecutor as RayExecutor
    from bimix_tune.goals import objective_values as objective_values
    from bimix_tune.laws import LawFit as LawFit
    from bimix_tune.laws import fit as fit
    from bimix_tune.laws import optimise as optimise
    from bimix_tune.loop import SearchResult as SearchResult
    from bimix_tune.loop import search as search
    from bimix_tune.mixture import Mixture as Mixture
    from bimix_tune.pruner import BiMixPruner as BiMixPruner
    from bimix_tune.report import write_report as write_report
    from bimix_tune.sampler import BiMixSampler as BiMixSampler
    from bimix_tune.space import Domain as Domain
    from bimix_tune.space import SearchSpace as SearchSpace
    from bimix_tune.space import Target as Target
    from bimix_tune.space import load_space as load_space
    from bimix_tune.stopping import StopWhenSettled as StopWhenSettled
    from bimix_tune.strategies import baseline_mixtures as baseline_mixtures
    from bimix_tune.training import Checkpoint as Checkpoint
    from bimix_tune.training import load_trainer as load_trainer
    from bimix_tune.trials import curves_of as curves_of
    from bimix_tune.trials import mixture_of as mixture_of
    from bimix_tune.trials import report_losses as report_losses
    from bimix_tune.trials import suggest_mixture as suggest_mixture

__version__ = "0.1.0"

_HOMES = {
    "corpus": ("Corpus", "build_corpus"),
    "curves": ("LossCurve", "read_curves", "write_curves"),
    "entropy": ("entropy_mixture",),
    "errors": ("BimixError",),
    "executors.local": ("LocalExecutor",),
    "executors.ray": ("RayExecutor",),
    "goals": ("objective_values",),
    "laws": ("LawFit", "fit", "optimise"),
    "loop": ("SearchResult", "search"),
    "pruner": ("BiMixPruner",),
    "report": ("write_report",),
    "sampler": ("BiMixSampler",),
    "mixture": ("Mixture",),
    "space": ("Domain", "SearchSpace", "Target", "load_space"),
    "stopping": ("StopWhenSettled",),
    "strategies": ("baseline_mixtures",),
    "training": ("Checkpoint", "load_trainer"),
    "trials": ("curves_of", "mixture_of", "report_losses", "suggest_mixture"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
