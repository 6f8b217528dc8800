"""Ways to choose a mixture that need no law: the training-free baselines."""

from bimix_tune.strategies.baselines import baseline_mixtures, distinct, unimax

__all__ = ["baseline_mixtures", "distinct", "unimax"]
