"""The noise of a run where it was not measured."""

from __future__ import annotations

import numpy as np

from bimix_tune.simplex import Array

SHARED = 0.5
"""Share of the variance that all targets of a run have in common."""
PERSISTENT = 0.9
"""Share of the variance that all checkpoints of a run have in common."""


def of_a_run(rng: np.random.Generator, checkpoints: int, targets: int) -> Array:
    """Deviations of unit variance, (S, V), correlated between targets and checkpoints."""
    lasting = _over_targets(rng, 1, targets)
    passing = _over_targets(rng, checkpoints, targets)
    return np.asarray(PERSISTENT**0.5 * lasting + (1 - PERSISTENT) ** 0.5 * passing)


def _over_targets(rng: np.random.Generator, checkpoints: int, targets: int) -> Array:
    common = rng.standard_normal((checkpoints, 1))
    own = rng.standard_normal((checkpoints, targets))
    return np.asarray(SHARED**0.5 * common + (1 - SHARED) ** 0.5 * own)
