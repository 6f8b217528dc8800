"""Other people's models of the final losses, to compare the laws with.

Each is one function from runs to a predictor, with its published form. They know proportions
and final losses only.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from scipy.optimize import least_squares

from bimix_tune.benchmark.scores import Prediction
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

Predictor = Callable[[Array], Prediction]
"""From proportions (M, K) to what a fitted model says of them."""

SMALLEST_SHARE = 5e-4
"""Tables round to three decimals, so a zero may be a share below this."""


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


def bimix_paper(r: Array, losses: Array, space: SearchSpace) -> Predictor:
    """BiMix as published (Ge et al., arXiv 2405.14908, eq. 3) at one token count.

    ``L_i = (A_i / r_i^alpha_i) (B_i / s^beta_i + C_i)``, of which one s leaves two of five
    coefficients, ``L_i = K_i r_i^-alpha_i``: a line in the logarithms by least squares, alpha
    not negative. A target without own domain is constant.
    """
    log_loss = np.log(losses)
    intercept, slope = log_loss.mean(axis=0), np.zeros(losses.shape[1])
    for v, i in enumerate(space.own):
        if i is not None:
            x = _log_share(r[:, i])
            spread = ((x - x.mean()) ** 2).sum()
            fall = -((x - x.mean()) * log_loss[:, v]).sum() / spread if spread > 0 else 0.0
            slope[v] = max(fall, 0.0)
            intercept[v] += slope[v] * x.mean()
    own = [0 if i is None else i for i in space.own]
    return _by_target(lambda x: np.exp(intercept - slope * _log_share(x[:, own])), space)


HUBER = 0.01
"""Width of the Huber loss in nats, the authors' (yegcjs/mixinglaws, law.py)."""
FLOORS = (0.1, 0.5, 0.8, 0.95)
"""Where c starts, as a share of the least loss."""
START_PENALTY = 0.01
"""Keeps the start of t small where runs are fewer than domains."""


def mixing_law(r: Array, losses: Array, space: SearchSpace) -> Predictor:
    """The data mixing law (Ye et al., arXiv 2403.16952), fitted for each target.

    ``L_i = c_i + k_i exp(sum_j t_ij r_j)``. Proportions sum to one, so k is part of t and
    set to one, which is also the log-linear form of OLMix (arXiv 2602.12237). Huber loss as
    the authors'; starts from log-linear regressions at several c. With hardly more runs than
    domains the law explodes between them, so predictions are kept within half a range of the
    fitted losses below and one above, which is not part of the method.
    """
    fits = [_exponential(r, y) for y in losses.T]
    floor = np.array([np.exp(f[0]) for f in fits])
    slopes = np.stack([f[1:] for f in fits])
    low, spread = losses.min(axis=0), np.ptp(losses, axis=0)

    def predict(x: Array) -> Array:
        grown = floor + np.exp(np.minimum(x @ slopes.T, LARGEST_EXPONENT))
        return np.asarray(np.clip(grown, low - 0.5 * spread, low + 2.0 * spread))

    return _by_target(predict, space)


LARGEST_EXPONENT = 50.0
"""Against overflow only."""


def _exponential(r: Array, y: Array) -> Array:
    """log c and t of ``c + exp(t r)``, (1 + K,): the best of several starts."""

    def grown(p: Array) -> Array:
        return np.asarray(np.exp(np.minimum(r @ p[1:], LARGEST_EXPONENT)))

    def residual(p: Array) -> Array:
        return np.asarray(np.exp(p[0]) + grown(p) - y)

    def jacobian(p: Array) -> Array:
        return np.column_stack([np.full(len(r), np.exp(p[0])), grown(p)[:, None] * r])

    fits = []
    for share in FLOORS:
        start = _exponential_start(r, y, share * y.min())
        fits.append(
            least_squares(residual, start, jacobian, loss="huber", f_scale=HUBER, max_nfev=200)
        )
    return np.asarray(min(fits, key=lambda found: float(found.cost)).x)


def _exponential_start(r: Array, y: Array, c: float) -> Array:
    """log c, and t by ridge regression of ``log(y - c)`` on r."""
    z = np.log(y - c)
    normal = r.T @ r + START_PENALTY * np.eye(r.shape[1])
    t = z.mean() + np.linalg.solve(normal, r.T @ (z - z.mean()))
    return np.concatenate([[np.log(c)], t])


PENALTIES = np.logspace(-6, 2, 25)


def log_linear(r: Array, losses: Array, space: SearchSpace) -> Predictor:
    """Ridge regression of the log loss on r, the penalty by leave-one-out for each target.

    The exponential without a floor, ``L_i = exp(c_i + A_i r)``: the plain relative of OLMix'
    log-linear law (whose floor `mixing_law` has), with a penalty for few runs. Leave-one-out
    errors are those of the hat matrix (Hastie et al., Elements of Statistical Learning,
    eq. 7.64).
    """
    log_loss = np.log(losses)
    middle, level = r.mean(axis=0), log_loss.mean(axis=0)
    u, d, vt = np.linalg.svd(r - middle, full_matrices=False)
    projected = u.T @ (log_loss - level)
    least = np.full(losses.shape[1], np.inf)
    slopes = np.zeros((r.shape[1], losses.shape[1]))
    for penalty in PENALTIES:
        shrunk = d**2 / (d**2 + penalty)
        leverage = 1.0 / len(r) + (u**2 * shrunk).sum(axis=1)
        left = log_loss - level - u @ (shrunk[:, None] * projected)
        left = left / np.maximum(1.0 - leverage, 1e-9)[:, None]
        error = (left**2).sum(axis=0)
        fitted = vt.T @ ((d / (d**2 + penalty))[:, None] * projected)
        slopes = np.where(error < least, fitted, slopes)
        least = np.minimum(error, least)
    return _by_target(lambda x: np.exp(level + (x - middle) @ slopes), space)


REGMIX_SETTINGS = {
    "boosting_type": "gbdt",
    "objective": "regression",
    "seed": 42,
    "learning_rate": 0.01,
    "verbosity": -1,
    "num_threads": 1,
}
REGMIX_TREES = 1000
"""As in the authors' notebook (sail-sg/regmix, regression_fitting/regression.ipynb). Its early
stopping looks at the held-out runs, which are not to be seen here: left out."""


def lightgbm(r: Array, losses: Array, space: SearchSpace) -> Predictor:
    """RegMix (Liu et al., arXiv 2407.01492): boosted trees for each target on r.

    With LightGBM's least leaf of 20 runs it is constant below 40.
    """
    import lightgbm as library

    models = [
        library.train(REGMIX_SETTINGS, library.Dataset(r, label=y), REGMIX_TREES) for y in losses.T
    ]
    return _by_target(lambda x: np.column_stack([m.predict(x) for m in models]), space)


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
    "bimix-paper": bimix_paper,
    "mixing-law": mixing_law,
    "log-linear": log_linear,
    "lightgbm": lightgbm,
    "gp-objective": gp_objective,
}
"""All peers by name."""

LIBRARIES: Mapping[str, str] = {"lightgbm": "lightgbm", "gp-objective": "sklearn"}
"""The library that a peer needs beyond those of the package."""


def missing_library(peer: str) -> str | None:
    """The library that a peer needs and that is not installed, or None."""
    library = LIBRARIES.get(peer)
    return library if library and importlib.util.find_spec(library) is None else None


def _log_share(share: Array) -> Array:
    return np.asarray(np.log(np.maximum(share, SMALLEST_SHARE)))


def _by_target(losses: Callable[[Array], Array], space: SearchSpace) -> Predictor:
    """A predictor of the objective too, from one of the losses (M, V)."""

    def predict(x: Array) -> Prediction:
        values = losses(x)
        return Prediction(values, values @ space.weights)

    return predict
