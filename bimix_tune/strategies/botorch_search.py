"""Bayesian optimisation of the objective by BoTorch, with the sum as a linear constraint.

After a design a process on the proportions as they are, with BoTorch's own priors: a squared
exponential with a length for each domain that grows with their number (Hvarfner et al.,
arXiv 2402.02229), and noise. Then the logarithm of expected improvement (Ament et al.,
arXiv 2310.20708) over the best posterior mean of a run, which suits noise. It is maximised by
gradients under ``sum(r) = 1`` and the bounds, or evaluated at all candidates.

Torch is loaded when the first process is fitted.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from bimix_tune.errors import missing_extra
from bimix_tune.simplex import Array
from bimix_tune.strategies.base import Setting, Strategy
from bimix_tune.strategies.designs import design, trial_points

RESTARTS = 4
"""Local searches, from the best mixtures tried."""
ITERATIONS = 50
"""At most, of a local search."""
FIT_ITERATIONS = 100
"""At most, of the likelihood, which is flat along the lengths of idle domains."""


class BoTorch(Strategy):
    """What a user of BoTorch writes down for mixtures."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._design = design(setting.space, setting.runs, setting.seed)
        self._model = lru_cache(maxsize=1)(self._fit)

    def propose(self) -> Array:
        count = len(self.curves)
        if count < len(self._design):
            return np.asarray(self._design[count])
        with _quiet(self._seed):
            return self._maximise(*self._acquisition())

    def choose(self, points: Array) -> int | None:
        if len(self.curves) < len(self._design):
            return super().choose(points)
        with _quiet(self._seed):
            gain, _ = self._acquisition()
            return int(_values(gain, points).argmax())

    def recommend(self) -> Array:
        """The run with the best posterior mean."""
        if len(self.curves) < 2:
            return super().recommend()
        with _quiet(self._seed):
            return self._best_run(self._model(len(self.curves)))[0]

    @property
    def _seed(self) -> int:
        return 1000 * self.setting.seed + len(self.curves)

    def _runs(self, count: int) -> Array:
        return self.setting.space.matrix(c.mixture for c in self.curves[:count])

    def _fit(self, count: int) -> Any:
        import torch
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        y = np.array([[self.setting.values(c)[-1]] for c in self.curves[:count]])
        model = SingleTaskGP(torch.from_numpy(self._runs(count)), torch.from_numpy(y))
        likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
        fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": FIT_ITERATIONS}})
        return model

    def _best_run(self, model: Any) -> tuple[Array, float]:
        """The run with the least posterior mean, (K,), and that mean."""
        import torch

        r = self._runs(len(self.curves))
        with torch.no_grad():
            mean = model.posterior(torch.from_numpy(r)).mean.numpy()[:, 0]
        return np.asarray(r[mean.argmin()]), float(mean.min())

    def _acquisition(self) -> tuple[Any, Array]:
        """Expected improvement, and the best run (K,)."""
        from botorch.acquisition.analytic import LogExpectedImprovement

        model = self._model(len(self.curves))
        run, value = self._best_run(model)
        return LogExpectedImprovement(model, best_f=value, maximize=False), run

    def _maximise(self, gain: Any, incumbent: Array) -> Array:
        """The mixture with the largest gain, (K,)."""
        import torch
        from botorch.optim import optimize_acqf

        space = self.setting.space
        points = trial_points(np.random.default_rng(self._seed), space, incumbent[None])
        starts = points[np.argsort(-_values(gain, points), kind="stable")[:RESTARTS]]
        k = len(space.names)
        found, _ = optimize_acqf(
            gain,
            torch.from_numpy(np.stack([space.low, space.high])),
            q=1,
            num_restarts=RESTARTS,
            batch_initial_conditions=torch.from_numpy(starts[:, None, :].copy()),
            equality_constraints=[(torch.arange(k), torch.ones(k, dtype=torch.double), 1.0)],
            options={"maxiter": ITERATIONS},
        )
        r = np.maximum(found.detach().numpy()[0], 0.0)  # zero but for rounding
        return space.fit_in(r).proportions


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """Torch's random numbers by a seed and as they were afterwards; no advice about the model.

    Raises:
        MissingExtraError: BoTorch is not installed.
    """
    if importlib.util.find_spec("botorch") is None:
        raise missing_extra("botorch", "benchmark", "strategy 'botorch'")
    import torch

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        yield


def _values(gain: Any, points: Array) -> Array:
    """The gain of each point, (M, K) -> (M,)."""
    import torch

    with torch.no_grad():
        return np.asarray(gain(torch.from_numpy(points[:, None, :].copy())).numpy())
