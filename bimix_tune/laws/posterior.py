"""How far the law may be off: Laplace's approximation with noise at the level of runs.

The checkpoints of a run share its seed and data order, and a law that misses a run misses it
for several targets together. So the noise is one number per run and target, correlated
between targets and not between runs, and the uncertainty of the coordinates is its image
under the fit (the sandwich of Huber 1967 with the prior's part added):

    cov(theta_v, theta_u) = sum_n a_vn a_un' Sigma_vu + [v = u] H_v^-1 C_v H_v^-1 noise_v,
    a_vn = H_v^-1 sum_{checkpoints of run n} w J_v.
"""

from __future__ import annotations

import numpy as np

from bimix_tune.laws import least_squares
from bimix_tune.laws.base import Law
from bimix_tune.laws.fitting import NU, Estimate, by_run, model
from bimix_tune.laws.observations import Observations
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

TYPICAL_CORRELATION = 0.25
"""Mean correlation of two targets' errors, seen on ten published sets of runs."""
OUTLIER = 3.0
CORRELATION_STRENGTH = 10.0
"""Runs that the typical correlation counts for."""


def run_noise(held_out: Array, full: Estimate, seen: Observations) -> Array:
    """Covariance of the targets' log losses of one run about the law, (V, V).

    From residuals of runs left out of the fit: what misses a fresh mixture is mostly the law's
    shape, which residuals of the fit itself understate by far when targets have as many
    coordinates as there are runs. Runs beyond `OUTLIER` sigma are pulled in; correlations are
    shrunk to `TYPICAL_CORRELATION`.

    Args:
        held_out: Log residuals at the last checkpoints, from fits without the run, (V, R).
        full: The fit.
        seen: What it was fitted to.
    """
    plain = seen.weight[:, seen.last]
    robust = full.weight[:, seen.last] / np.maximum(plain, 1e-12)
    sigmas = (NU + 1.0) / np.maximum(robust, 1e-12) - NU  # squared, by inverting the weights
    weight = np.where(plain > 0, np.minimum(1.0, OUTLIER**2 / np.maximum(sigmas, 1e-12)), 0.0)
    a = np.sqrt(weight) * held_out
    sizes = np.sqrt(weight) @ np.sqrt(weight).T
    raw = a @ a.T
    variance = np.maximum(np.diagonal(raw) / np.maximum(np.diagonal(sizes), 1.0), full.noise)
    deviation = np.sqrt(variance)
    correlation = raw / np.maximum(sizes, 1.0) / np.outer(deviation, deviation)
    v = len(correlation)
    typical = np.full((v, v), TYPICAL_CORRELATION)
    share = sizes / (sizes + CORRELATION_STRENGTH)
    mixed = share * np.clip(correlation, -1.0, 1.0) + (1.0 - share) * typical
    np.fill_diagonal(mixed, 1.0)
    values, vectors = np.linalg.eigh(mixed)
    mixed = (vectors * np.maximum(values, 1e-6)) @ vectors.T
    scale = deviation / np.sqrt(np.diagonal(mixed))
    return np.asarray(mixed * np.outer(scale, scale))


def spread(law: Law, space: SearchSpace, seen: Observations, full: Estimate, noise: Array) -> Array:
    """A factor F of the covariance ``F F'`` of all coordinates, (V * P, V * P).

    Args:
        law: The law.
        space: Domains and targets.
        seen: What it was fitted to.
        full: The fit.
        noise: Covariance of one run's log losses, (V, V).
    """
    f, jacobian = model(law, space, seen)(full.theta)
    precision = full.precision
    hessian = least_squares.normal(
        jacobian,
        seen.log_loss - f,
        full.weight,
        full.theta,
        full.prior.mean,
        precision,
        full.prior.squares,
    )[1]
    inverse = np.linalg.inv(hessian)
    influence = by_run(full.weight[..., None] * jacobian, seen.run) @ inverse
    v, _, p = influence.shape
    covariance = np.einsum("vnp,unq,vu->vpuq", influence, influence, noise, optimize=True)
    of_prior = (inverse * precision[:, None, :]) @ inverse * np.diagonal(noise)[:, None, None]
    for target in range(v):
        covariance[target, :, target, :] += of_prior[target]
    values, vectors = np.linalg.eigh(covariance.reshape(v * p, v * p))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
