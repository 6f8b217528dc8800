"""Search problems whose answer is known, to compare strategies on.

A new kind is a subclass of `Problem` in a file of its own, and a line in the catalogue.
"""

from bimix_tune.benchmark.problems.base import Problem
from bimix_tune.benchmark.problems.catalogue import problem_names, problems
from bimix_tune.benchmark.problems.pool import Pool
from bimix_tune.benchmark.problems.surrogate import Surrogate
from bimix_tune.benchmark.problems.synthetic import Synthetic
from bimix_tune.benchmark.problems.training import Training

__all__ = [
    "Pool",
    "Problem",
    "Surrogate",
    "Synthetic",
    "Training",
    "problem_names",
    "problems",
]
