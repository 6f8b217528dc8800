"""RegMix (Liu et al., arXiv 2407.01492): boosted trees on the proportions, one set per target.

With LightGBM's least leaf of 20 runs the trees are constant below 40 runs. Tokens and decay
are ignored. The models are kept as LightGBM's own text, about a megabyte for each target of
256 runs.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from bimix_tune.errors import missing_extra
from bimix_tune.laws.observations import Observations
from bimix_tune.laws.peers.shared import ends
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

SETTINGS = {
    "boosting_type": "gbdt",
    "objective": "regression",
    "seed": 42,
    "learning_rate": 0.01,
    "verbosity": -1,
    "num_threads": 1,
}
TREES = 1000
"""As in the authors' notebook (sail-sg/regmix, regression_fitting/regression.ipynb). Its early
stopping looks at the held-out runs, which are not to be seen here: left out."""

LEAST_LOSS = 1e-6
"""Boosting may overshoot; a loss that is no longer positive has no logarithm."""


@dataclass(frozen=True, eq=False)
class LightGbm:
    """Fitted trees.

    Args:
        models: LightGBM's text form of the trees for the losses of each target, V.
    """

    name: ClassVar[str] = "lightgbm"

    models: tuple[str, ...]

    @classmethod
    def fit(cls, seen: Observations, space: SearchSpace) -> Self:
        """Least squares on the losses, with RegMix's settings.

        Raises:
            MissingExtraError: LightGBM is not installed.
        """
        library = _library()
        models = []
        for target in range(len(space.target_names)):
            r, y = ends(seen, target)
            booster = library.train(SETTINGS, library.Dataset(r, label=np.exp(y)), TREES)
            models.append(booster.model_to_string())
        return cls(tuple(models))

    @cached_property
    def _boosters(self) -> list[Any]:
        """Always from the text, so that a law that was stored predicts the same bits."""
        library = _library()
        return [library.Booster(model_str=text) for text in self.models]

    def log_loss(self, r: Array, t: Array, decayed: Array) -> Array:
        """Shapes as in `bimix_tune.laws.surface.Surface`.

        Raises:
            MissingExtraError: LightGBM is not installed.
        """
        losses = np.stack([b.predict(r, num_threads=1) for b in self._boosters])
        return np.asarray(np.log(np.maximum(losses, LEAST_LOSS)))

    def slope(self, r: Array, t: Array, decayed: Array) -> None:
        """None: trees are steps."""
        return None

    def parameters(self, space: SearchSpace) -> dict[str, dict[str, Any]]:
        """By target: the number of trees; they have no coefficients."""
        counts = [booster.num_trees() for booster in self._boosters]
        return {n: {"trees": c} for n, c in zip(space.target_names, counts, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        return {"models": list(self.models)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the form of `to_dict`."""
        return cls(tuple(str(text) for text in data["models"]))


def _library() -> Any:
    if importlib.util.find_spec("lightgbm") is None:
        raise missing_extra("lightgbm", "benchmark", "law 'lightgbm'")
    return importlib.import_module("lightgbm")
