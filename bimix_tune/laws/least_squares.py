"""Many small penalised least-squares problems at once, by Levenberg-Marquardt.

    minimise over theta   sum_n w_n (y_n - f_n(theta))^2 + sum_p c_p (theta_p - m_p)^2

for every problem of a batch, in numpy. The normal matrices are a few dozen columns wide, so
one batched solve costs less than the bookkeeping of a general solver per problem.
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
    f, jacobian = model(theta)
    cost = _cost(y - f, weight, theta - mean, precision)
    promised = np.full_like(cost, np.inf)
    for _ in range(iterations):
        gradient, hessian = normal(jacobian, y - f, weight, theta, mean, precision, squares)
        step, promised = _step(gradient, hessian, damping)
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
    weight: Array,
    theta: Array,
    mean: Array,
    precision: Array,
    squares: NDArray[np.bool_],
) -> tuple[Array, Array]:
    """Descent direction ``-grad/2`` (..., P) and the half Hessian (..., P, P).

    Gauss-Newton drops second derivatives of f. For ``f(u^2)`` it must not: at small u the
    first derivative ``2 u f'`` vanishes and all curvature is in ``2 f' = (df/du) / u``. That
    term is added where it is positive, which is where the data push u towards zero.
    """
    weighted = jacobian * weight[..., None]
    pull = (residual[..., None, :] @ weighted)[..., 0, :]
    hessian = np.swapaxes(weighted, -1, -2) @ jacobian
    nonzero = squares & (theta != 0.0)
    curvature = np.maximum(-pull / np.where(nonzero, theta, np.inf), 0.0)
    diagonal = np.arange(precision.shape[-1])
    hessian[..., diagonal, diagonal] += precision + curvature
    return pull - precision * (theta - mean), hessian


def _cost(residual: Array, weight: Array, offset: Array, precision: Array) -> Array:
    return np.asarray((weight * residual**2).sum(-1) + (precision * offset**2).sum(-1))


def _step(gradient: Array, hessian: Array, damping: Array) -> tuple[Array, Array]:
    """The damped step and the decrease of the cost it promises, in unit-diagonal scaling."""
    diagonal = np.arange(gradient.shape[-1])
    scale = 1.0 / np.sqrt(hessian[..., diagonal, diagonal])
    matrix = hessian * scale[..., :, None] * scale[..., None, :]
    matrix[..., diagonal, diagonal] += damping[..., None]
    step = scale * np.linalg.solve(matrix, (scale * gradient)[..., None])[..., 0]
    return step, np.asarray((step * gradient).sum(-1))
