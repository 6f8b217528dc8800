"""Search problems whose answer is known, to compare strategies on."""

from bimix_tune.benchmark.problems.base import Problem

__all__ = ["Problem"]
