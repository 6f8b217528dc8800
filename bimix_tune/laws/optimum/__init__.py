"""The best mixture, or the worst, under a surface of losses, an objective and linear bounds."""

from bimix_tune.laws.optimum.groups import Group
from bimix_tune.laws.optimum.objectives import Custom, Mean, Objective, Regret, Worst
from bimix_tune.laws.optimum.problem import Problem
from bimix_tune.laws.optimum.search import Optimum, solve

__all__ = [
    "Custom",
    "Group",
    "Mean",
    "Objective",
    "Optimum",
    "Problem",
    "Regret",
    "Worst",
    "solve",
]
