"""Many small penalised least-squares problems at once, by Levenberg-Marquardt.

    minimise over theta   sum_n w_n (y_n - f_n(theta))^2 + sum_p c_p (theta_p - m_p)^2

for every problem of a batch, in numpy. The normal matrices are a few dozen columns wide, so
one batched solve costs less than the bookkeeping of a general solver per problem. Where there are
more coordinates than data the equivalent system of the size of the data is solved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bimix_tune.simplex import Array

Model = Callable[[Array], tuple[Array, Array]]
"""Maps coordinates (..., P) to predictions (..., N) and derivatives (..., N, P)."""


class Solution(NamedTuple):
    """Args: theta (..., P), the cost (...), and whether every problem converged."""

    theta: Array
    cost: Array
    converged: bool


def solve(
    model: Model,
    y: Array,
    weight: Array,
    mean: Array,
    precision: Array,
    start: Array,
    squares: NDArray[np.bool_],
    iterations: int,
    tolerance: float = 1e-9,
) -> Solution:
    """Minimise all problems of a batch.

    Args:
        model: The predictions.
        y: Data, (..., N).
        weight: Weights w >= 0, (..., N).
        mean: Centres m of the penalty, (..., P).
        precision: Factors c > 0 of the penalty, (..., P).
        start: First coordinates, (..., P).
        squares: Coordinates that act through their square, (P,): see `normal`.
        iterations: Most steps tried.
        tolerance: Convergence: relative decrease of the cost that the next step promises.
    """
    theta = start.copy()
    damping = np.full(theta.shape[:-1], 1e-3)
    root = np.sqrt(weight)
    f, jacobian = model(theta)
    cost = _cost(y - f, weight, theta - mean, precision)
    promised = np.full_like(cost, np.inf)
    for _ in range(iterations):
        gradient, a, diagonal = normal(jacobian, y - f, root, theta, mean, precision, squares)
        step, promised = _step(gradient, a, diagonal, damping)
        if np.all(promised <= tolerance * cost + 1e-30):
            break
        tried = theta + np.clip(step, -2.0, 2.0)
        f_tried, jacobian_tried = model(tried)
        cost_tried = _cost(y - f_tried, weight, tried - mean, precision)
        better = cost_tried < cost
        theta = np.where(better[..., None], tried, theta)
        f = np.where(better[..., None], f_tried, f)
        jacobian = np.where(better[..., None, None], jacobian_tried, jacobian)
        cost = np.where(better, cost_tried, cost)
        damping = np.clip(np.where(better, 0.2 * damping, 5.0 * damping), 1e-12, 1e8)
    return Solution(theta, cost, bool(np.all(promised <= 1e-3 * cost + 1e-14)))


def normal(
    jacobian: Array,
    residual: Array,
    root: Array,
    theta: Array,
    mean: Array,
    precision: Array,
    squares: NDArray[np.bool_],
) -> tuple[Array, Array, Array]:
    """Descent direction ``-grad/2`` (..., P) and the half Hessian ``A^T A + diag(d)``.

    Gauss-Newton drops second derivatives of f. For ``f(u^2)`` it must not: at small u the
    first derivative ``2 u f'`` vanishes and all curvature is in ``2 f' = (df/du) / u``. That
    term is added where it is positive, which is where the data push u towards zero.

    Args:
        jacobian: (..., N, P).
        residual: (..., N).
        root: Square roots of the weights, (..., N).
        theta, mean, precision, squares: As in `solve`.

    Returns:
        The direction, A (..., N, P) and d (..., P).
    """
    a = jacobian * root[..., None]
    pull = ((root * residual)[..., None, :] @ a)[..., 0, :]
    nonzero = squares & (theta != 0.0)
    curvature = np.maximum(-pull / np.where(nonzero, theta, np.inf), 0.0)
    return pull - precision * (theta - mean), a, precision + curvature


def inverse_diagonal(a: Array, diagonal: Array) -> Array:
    """Diagonal of ``(A^T A + diag(d))^-1``, (..., P)."""
    n, p = a.shape[-2:]
    if p <= n:
        matrix = np.swapaxes(a, -1, -2) @ a
        matrix[..., np.arange(p), np.arange(p)] += diagonal
        return np.asarray(np.diagonal(np.linalg.inv(matrix), axis1=-2, axis2=-1))
    scaled = a / diagonal[..., None, :]
    inner = scaled @ np.swapaxes(a, -1, -2) + np.eye(n)
    return np.asarray(1.0 / diagonal - (scaled * np.linalg.solve(inner, scaled)).sum(-2))


def quadratic(a: Array, diagonal: Array, c: Array) -> Array:
    """``c (A^T A + diag(d))^-1 c^T`` for every row of c, (..., M, P) -> (..., M)."""
    n, p = a.shape[-2:]
    if p <= n:
        scale = 1.0 / np.sqrt((a**2).sum(-2) + diagonal)
        scaled, rows = a * scale[..., None, :], c * scale[..., None, :]
        matrix = np.swapaxes(scaled, -1, -2) @ scaled
        matrix[..., np.arange(p), np.arange(p)] += diagonal * scale**2
        return np.asarray((rows * np.swapaxes(np.linalg.solve(matrix, rows.mT), -1, -2)).sum(-1))
    scaled = a / diagonal[..., None, :]
    inner = scaled @ np.swapaxes(a, -1, -2) + np.eye(n)
    cross = scaled @ c.mT
    total = (c**2 / diagonal[..., None, :]).sum(-1)
    return np.asarray(total - (cross * np.linalg.solve(inner, cross)).sum(-2))


def _cost(residual: Array, weight: Array, offset: Array, precision: Array) -> Array:
    return np.asarray((weight * residual**2).sum(-1) + (precision * offset**2).sum(-1))


def _step(gradient: Array, a: Array, diagonal: Array, damping: Array) -> tuple[Array, Array]:
    """The damped step and the decrease of the cost it promises.

    The damping is in units of the Hessian's diagonal (Marquardt 1963).
    """
    whole = (a**2).sum(-2) + diagonal
    damped = diagonal + damping[..., None] * whole
    step = _inverse_times(a, damped, gradient, whole)
    return step, np.asarray((step * gradient).sum(-1))


def _inverse_times(a: Array, diagonal: Array, vector: Array, whole: Array) -> Array:
    """``(A^T A + diag(d))^-1 v``, (..., P); ``whole`` is about its diagonal."""
    n, p = a.shape[-2:]
    if p <= n:
        scale = 1.0 / np.sqrt(whole)
        scaled = a * scale[..., None, :]
        matrix = np.swapaxes(scaled, -1, -2) @ scaled
        matrix[..., np.arange(p), np.arange(p)] += diagonal * scale**2
        return np.asarray(scale * np.linalg.solve(matrix, (scale * vector)[..., None])[..., 0])
    scaled = a / diagonal[..., None, :]
    inner = scaled @ np.swapaxes(a, -1, -2) + np.eye(n)
    seen = np.linalg.solve(inner, (scaled @ vector[..., None]))
    return np.asarray(vector / diagonal - (np.swapaxes(scaled, -1, -2) @ seen)[..., 0])
