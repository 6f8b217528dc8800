"""What a law misses, as a Gaussian process of the mixture: the kernel and its evidence.

For target v the residual of the log loss is a Gaussian process with a Matern 5/2 kernel
(Rasmussen and Williams 2006, eq. 4.17) on a log-like geometry with a length for each domain,

    k_v(r, r') = size_v^2 m(D), m(D) = (1 + q + q^2 / 3) e^-q, q = sqrt(5 D),
    D = sum_j scale_vj (z_j - z'_j)^2, z_j = log(r_j + floor).

A great floor makes z straight in r, a small one logarithmic; the data choose. The noise of a run
may differ over the simplex: its variance is ``noise_v^2 (sqrt(K) sum r^2)^(2 unevenness)``, more
or less where few domains make up a mixture.

Hyperparameters are those of greatest evidence for all targets together, with priors that pool
them: scale_vj is a domain's common scale times a target's own factor. The evidence includes the
freedom of the law's coordinates, linearised about their estimate (the ``tangent`` below), so that
the process takes what the law cannot explain and no more. No library fits a batch of such
processes, with shared hyperparameters and a tangent, at a speed that allows it after every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from bimix_tune.simplex import Array

FLOOR, FLOOR_SD = np.log(0.01), 1.5
SIZE, SIZE_SD = np.log(0.05), 1.0
NOISE, NOISE_SD = np.log(0.01), 1.0
UNEVENNESS_SD = 0.3
"""Prior spread of the unevenness about zero."""
LENGTH = 1.0
"""Log of the typical length in units of sqrt(K): distances between mixtures grow with K, and
lengths must (Hvarfner et al. 2024, arXiv 2402.02229)."""
COMMON_SD, OWN_SD = 2.0, 1.0
"""Prior spreads of a log scale: of a domain's, and of a target's about it."""
TARGET_SD = 0.7
"""Prior spread of log size and log noise of a target about their means over the targets."""
JITTER = 1e-7
STEPS = 60
TOLERANCE = 1e-5
"""Relative change of the log density that ends the search."""
MOST_RUNS = 128
"""Runs used to choose hyperparameters; with more they hardly change, and time grows as the cube."""
BOUND = 12.0
"""Of all logarithms, against overflow only."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """Hyperparameters of V processes.

    Args:
        floor: Logarithm of the floor.
        scale: Logarithms of the inverse squared lengths, (V, K).
        size: Logarithms of the standard deviations, (V,).
        noise: Logarithms of the standard deviations of a run, (V,).
        unevenness: How much noisier runs of few domains are.
    """

    floor: float
    scale: Array
    size: Array
    noise: Array
    unevenness: float = 0.0

    def __call__(self, r: Array, others: Array) -> Array:
        """Covariances, (N, K) and (M, K) -> (V, N, M)."""
        correlation, _ = _matern(_distance(self.embed(r), self.embed(others), np.exp(self.scale)))
        return np.asarray(np.exp(2.0 * self.size)[:, None, None] * correlation)

    def slope(self, r: Array, others: Array, weights: Array) -> Array:
        """Derivatives by r of ``sum_m k(r, others_m) weights_m``, (V, M) -> (V, N, K)."""
        a, b, scale = self.embed(r), self.embed(others), np.exp(self.scale)
        _, by_distance = _matern(_distance(a, b, scale))
        pull = by_distance * weights[:, None, :]
        by_z = 2.0 * scale[:, None, :] * (pull.sum(-1)[..., None] * a - pull @ b)
        by_z *= np.exp(2.0 * self.size)[:, None, None]
        return np.asarray(by_z / (r + np.exp(self.floor)))

    def embed(self, r: Array) -> Array:
        """z, (N, K)."""
        return np.asarray(np.log(r + np.exp(self.floor)))

    def noise_factor(self, r: Array) -> Array:
        """Variance of a run's noise over that of a mixture of sqrt(K) domains, (N, K) -> (N,)."""
        return np.asarray(np.exp(2.0 * self.unevenness * _concentration(r)))

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("scale", "size", "noise")}
        return {"floor": self.floor, "unevenness": self.unevenness, **arrays}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Kernel:
        """Read the form of `to_dict`."""
        scale, size, noise = (np.array(data[k]) for k in ("scale", "size", "noise"))
        return cls(float(data["floor"]), scale, size, noise, float(data["unevenness"]))


def fit_kernel(
    r: Array, z: Array, tangent: Array, weight: Array, before: Kernel | None = None
) -> Kernel:
    """The hyperparameters of greatest posterior density.

    Args:
        r: Proportions, (N, K).
        z: What process and tangent are to explain, (V, N).
        tangent: Covariance of the law's log losses a priori, linearised, (V, N, N).
        weight: Of the runs, the inverse of their relative noise variance, > 0, (V, N).
        before: Where to begin; None: at the centre of the priors.
    """
    if len(r) > MOST_RUNS:
        some = np.sort(np.random.default_rng(MOST_RUNS).permutation(len(r))[:MOST_RUNS])
        tangent = tangent[:, some][:, :, some]
        r, z, weight = r[some], z[:, some], weight[:, some]
    evidence = _Evidence(r, z, tangent, 1.0 / weight)
    start = evidence.pack(before) if before is not None else evidence.centre()
    found = minimize(
        evidence.__call__,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-BOUND, BOUND)] * len(start),
        options={"maxiter": STEPS, "ftol": TOLERANCE},
    )
    return evidence.unpack(found.x)


class _Evidence:
    """Minus the log posterior density of the hyperparameters, and its gradient.

    Coordinates: log floor, K common log scales, V x K own ones, V log sizes, V log noises, and
    the unevenness.
    """

    def __init__(self, r: Array, z: Array, tangent: Array, spread: Array) -> None:
        self.r, self.z, self.tangent, self.spread = r, z, tangent, spread
        self.v, self.k = len(z), r.shape[1]
        self.typical = -2.0 * (LENGTH + 0.5 * np.log(self.k))

    def centre(self) -> Array:
        v, k = self.v, self.k
        common = np.full(k, self.typical)
        return np.concatenate(
            [[FLOOR], common, np.zeros(v * k), np.full(v, SIZE), np.full(v, NOISE), [0.0]]
        )

    def pack(self, kernel: Kernel) -> Array:
        common = kernel.scale.mean(axis=0)
        own = (kernel.scale - common).ravel()
        parts = [[kernel.floor], common, own, kernel.size, kernel.noise, [kernel.unevenness]]
        return np.concatenate(parts)

    def unpack(self, p: Array) -> Kernel:
        v, k = self.v, self.k
        own = p[1 + k : 1 + k + v * k].reshape(v, k)
        size, noise = p[-2 * v - 1 : -v - 1], p[-v - 1 : -1]
        return Kernel(float(p[0]), p[1 : 1 + k] + own, size, noise, float(p[-1]))

    def __call__(self, p: Array) -> tuple[float, Array]:
        kernel = self.unpack(p)
        z, scale = kernel.embed(self.r), np.exp(kernel.scale)
        correlation, by_distance = _matern(_distance(z, z, scale))
        size = np.exp(2.0 * kernel.size)[:, None, None]
        noise = np.exp(2.0 * kernel.noise)[:, None] * kernel.noise_factor(self.r) * self.spread
        value, g = self._likelihood(size * correlation, noise)
        m = g * size * by_distance
        sums = m.sum(-1)
        mz = m @ z
        by_scale = 2.0 * (sums @ z**2 - (mz * z).sum(1)) * scale
        slope = np.exp(kernel.floor) / (self.r + np.exp(kernel.floor))
        by_floor = 4.0 * (scale * (sums @ (z * slope) - (mz * slope).sum(1))).sum()
        by_size = 2.0 * (g * size * correlation).sum((1, 2))
        by_noise = 2.0 * np.diagonal(g, axis1=1, axis2=2) * noise
        by_unevenness = (by_noise @ _concentration(self.r)).sum()
        blocks = [[by_floor], by_scale.sum(0), by_scale.ravel(), by_size]
        blocks += [by_noise.sum(1), [by_unevenness]]
        penalty, slopes = self._prior(p)
        return value + penalty, np.concatenate(blocks) + slopes

    def _likelihood(self, covariance: Array, noise: Array) -> tuple[float, Array]:
        """Minus the log evidence, and its derivative by the covariance matrices, (V, N, N)."""
        c = self.tangent + covariance
        at = np.arange(c.shape[-1])
        c[:, at, at] += noise + JITTER * c[:, at, at].mean(axis=1, keepdims=True) + JITTER**2
        try:
            root = np.linalg.cholesky(c)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(c)  # the line search turns back
        inverse = np.linalg.inv(c)
        solved = (inverse @ self.z[..., None])[..., 0]
        value = 0.5 * (self.z * solved).sum() + np.log(root[:, at, at]).sum()
        return float(value), 0.5 * (inverse - solved[:, :, None] * solved[:, None, :])

    def _prior(self, p: Array) -> tuple[float, Array]:
        v, k = self.v, self.k
        own = slice(1 + k, 1 + k + v * k)
        slopes = np.zeros_like(p)
        slopes[0] = (p[0] - FLOOR) / FLOOR_SD**2
        slopes[1 : 1 + k] = (p[1 : 1 + k] - self.typical) / COMMON_SD**2
        slopes[own] = p[own] / OWN_SD**2
        value = 0.5 * (
            (p[0] - FLOOR) * slopes[0]
            + (p[1 : 1 + k] - self.typical) @ slopes[1 : 1 + k]
            + p[own] @ slopes[own]
        )
        slopes[-1] = p[-1] / UNEVENNESS_SD**2
        value += 0.5 * p[-1] * slopes[-1]
        pools = ((slice(-2 * v - 1, -v - 1), SIZE, SIZE_SD), (slice(-v - 1, -1), NOISE, NOISE_SD))
        for part, centre, sd in pools:
            mean = p[part].mean()
            apart = (p[part] - mean) / TARGET_SD**2
            slopes[part] = (mean - centre) / sd**2 / v + apart
            value += 0.5 * ((mean - centre) ** 2 / sd**2 + (p[part] - mean) @ apart)
        return float(value), slopes


def _distance(a: Array, b: Array, scale: Array) -> Array:
    """D, (N, K), (M, K), (V, K) -> (V, N, M)."""
    cross = (a * scale[:, None, :]) @ b.T
    squares = (a**2 @ scale.T).T[:, :, None] + (b**2 @ scale.T).T[:, None, :]
    return np.asarray(np.maximum(squares - 2.0 * cross, 0.0))


def _concentration(r: Array) -> Array:
    """Minus the log of the effective number of domains over sqrt(K), (N, K) -> (N,)."""
    return np.asarray(np.log((r**2).sum(axis=1)) + 0.5 * np.log(r.shape[1]))


def _matern(distance: Array) -> tuple[Array, Array]:
    """m(D) and its derivative."""
    q = np.sqrt(5.0 * distance)
    decay = np.exp(-q)
    return (1.0 + q + q * q / 3.0) * decay, -(5.0 / 6.0) * (1.0 + q) * decay
