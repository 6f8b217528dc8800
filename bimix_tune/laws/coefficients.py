"""The coefficients of a law in the form in which it is printed."""

from __future__ import annotations

from typing import Any

import numpy as np

from bimix_tune.laws.base import ALPHA, BETA, DELTA, EPS, LEVEL, PHI, Law
from bimix_tune.laws.transfer import RHO
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace


def coefficients(
    law: Law, space: SearchSpace, theta: Array, reference: float
) -> dict[str, dict[str, Any]]:
    """By target: alpha, beta, B, C, delta, eps, rho, as far as the law has them, a row by domain.

    Args:
        law: The law.
        space: Domains and targets.
        theta: Coordinates, (V, P).
        reference: s_ref in tokens.
    """
    by_domain = law.by_domain(theta, space)
    result: dict[str, dict[str, Any]] = {}
    for i, (name, row) in enumerate(zip(space.target_names, theta, strict=True)):
        level, phi = float(np.exp(row[LEVEL])), float(1.0 / (1.0 + np.exp(-row[PHI])))
        beta = float(np.exp(row[BETA]))
        result[name] = {
            "beta": beta,
            "B": level * phi * reference**beta,
            "C": level * (1.0 - phi),
            "delta": float(row[DELTA] ** 2),
        }
        if law.name != "linear":
            result[name] = {"alpha": float(np.exp(row[ALPHA])), **result[name]}
        if law.name not in ("linear", "transported"):
            result[name]["eps"] = float(np.exp(row[EPS]))
        if by_domain:
            kind, domains = by_domain[i]
            if kind == "transfer" and len(row) > RHO:
                result[name]["rho"] = float(1.0 / (1.0 + np.exp(-row[RHO])))
            result[name][kind] = dict(zip(space.names, domains.tolist(), strict=True))
    return result
