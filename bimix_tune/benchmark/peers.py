"""Models that are no laws of losses, to compare the laws with: the mean, and a process on the
scalar objective. Each is one function from runs to a predictor; they know proportions and final
losses only.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from bimix_tune.benchmark.scores import Prediction, Predictor
from bimix_tune.laws import peers as published
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace


class Peer(Protocol):
    """A model that can be fitted."""

    def __call__(self, r: Array, losses: Array, space: SearchSpace) -> Predictor:
        """Fit to n runs.

        Args:
            r: Proportions, (n, K).
            losses: Final losses, (n, V).
            space: The order of domains and targets, and the weights of the objective.
        """
        ...


def mean(r: Array, losses: Array, space: SearchSpace) -> Predictor:
    """The mean of the runs for every mixture: what a model must beat."""
    level = losses.mean(axis=0)
    return _by_target(lambda x: np.broadcast_to(level, (len(x), len(level))), space)


GP_OFFSET = 1e-3
"""Added to proportions before the logarithm."""


def gp_objective(r: Array, losses: Array, space: SearchSpace) -> Predictor:
    """A Gaussian process on the scalar objective, as general optimisers have it.

    Matern 5/2 with a length for each domain plus noise (Rasmussen and Williams 2006,
    eq. 4.17), by marginal likelihood; inputs ``log(r + 0.001)``, standardised targets. The
    idea of ADMIRE-BayesOpt (arXiv 2508.11551) and of OLMix' option ``gp``.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    k = r.shape[1]
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.full(k, 3.0), (0.3, 1e3), nu=2.5)
    process = GaussianProcessRegressor(
        kernel + WhiteKernel(1e-2, (1e-6, 1.0)),
        normalize_y=True,
        n_restarts_optimizer=1,
        random_state=0,
    )
    with warnings.catch_warnings():
        # A length at its bound, an irrelevant domain, is warned about and wanted.
        warnings.simplefilter("ignore")
        process.fit(np.log(r + GP_OFFSET), losses @ space.weights)

    def predict(x: Array) -> Prediction:
        objective, sd = process.predict(np.log(x + GP_OFFSET), return_std=True)
        return Prediction(None, np.asarray(objective), np.asarray(sd))

    return predict


PEERS: Mapping[str, Peer] = {
    "mean": mean,
    "gp-objective": gp_objective,
}
"""All peers by name."""

LIBRARIES: Mapping[str, str] = {**published.LIBRARIES, "gp-objective": "sklearn"}
"""The library that a peer needs beyond those of the package."""


def missing_library(peer: str) -> str | None:
    """The library that a peer needs and that is not installed, or None."""
    library = LIBRARIES.get(peer)
    return library if library and importlib.util.find_spec(library) is None else None


def _by_target(losses: Callable[[Array], Array], space: SearchSpace) -> Predictor:
    """A predictor of the objective too, from one of the losses (M, V)."""

    def predict(x: Array) -> Prediction:
        values = losses(x)
        return Prediction(values, values @ space.weights)

    return predict
