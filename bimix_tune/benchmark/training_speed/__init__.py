"""How fast the lean trainer is beside `transformers.Trainer`, at the very same training.

Both train the same weights on the same text in the same order with the same optimiser, by turns in
one process; their losses must agree, or the times mean nothing. `time_training` needs PyTorch and
transformers, which are imported then.
"""

from bimix_tune.benchmark.training_speed.campaign import ROUNDS, time_training
from bimix_tune.benchmark.training_speed.cases import CASES, Case
from bimix_tune.benchmark.training_speed.record import Ratio, Speed
from bimix_tune.benchmark.training_speed.tables import Sheet, markdown, sheets

__all__ = [
    "CASES",
    "ROUNDS",
    "Case",
    "Ratio",
    "Sheet",
    "Speed",
    "markdown",
    "sheets",
    "time_training",
]
