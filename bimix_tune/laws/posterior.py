"""How far the law may be off: fits to perturbed data, with noise at the level of runs.

The checkpoints of a run share its seed and data order, and a law that misses a run misses it
for several targets together. So the noise is one number per run and target, correlated
between targets and not between runs. A draw from the posterior is a fit to losses and prior
centres perturbed by their own noise ("randomise then optimise", Bardsley et al. 2014): exact
where the law is linear in its coordinates, and unlike a normal approximation at the optimum
it respects T >= 0 and the curved trade between eps, alpha and T.
"""

from __future__ import annotations

import numpy as np

from bimix_tune.laws import least_squares
from bimix_tune.laws.base import Law
from bimix_tune.laws.fitting import NU, Estimate, model
from bimix_tune.laws.held_out import BATCH_FLOATS, REFIT_STEPS
from bimix_tune.laws.observations import Observations
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

DRAWS = 48
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


def ensemble(
    law: Law, space: SearchSpace, seen: Observations, full: Estimate, noise: Array
) -> Array:
    """Draws of the coordinates, (D, V, P).

    Args:
        law: The law.
        space: Domains and targets.
        seen: What it was fitted to.
        full: The fit.
        noise: Covariance of one run's log losses, (V, V).
    """
    rng = np.random.default_rng(DRAWS)  # the fit is a function of the curves alone
    v, p = full.theta.shape
    root = np.linalg.cholesky(noise)
    errors = rng.standard_normal((DRAWS, len(seen.last), v)) @ root.T
    y = seen.log_loss + np.swapaxes(errors, 1, 2)[..., seen.run]
    centre = full.prior.mean + full.prior.sd * rng.standard_normal((DRAWS, v, p))
    centre = np.where(full.prior.squares, np.abs(centre), centre)
    precision = np.diagonal(noise)[:, None] / full.prior.sd**2
    start = np.broadcast_to(law.start(full.theta, space), (DRAWS, v, p))
    predict = model(law, space, seen)
    batch = max(1, BATCH_FLOATS // (p * full.weight.size))
    parts = [
        least_squares.solve(
            predict,
            y[first : first + batch],
            full.weight,
            centre[first : first + batch],
            precision,
            start[first : first + batch],
            full.prior.squares,
            REFIT_STEPS,
            tolerance=1e-3,
        ).theta
        for first in range(0, DRAWS, batch)
    ]
    return np.concatenate(parts)
