"""Fit one contender and score it. Runs on a worker: one argument in, one small value out."""

from __future__ import annotations

import dataclasses
import time

from bimix_tune.benchmark.fitters import fitted
from bimix_tune.benchmark.results import Result
from bimix_tune.benchmark.scores import score
from bimix_tune.benchmark.tasks import Task


def judge(task: Task) -> Result:
    """Fit and score; a fit that fails is a result too."""
    began = time.process_time()
    try:
        predict = fitted(task.key.law, task.fitted, task.space, task.tokens, task.small)
        seconds = time.process_time() - began
        scores = score(predict(task.r), task.truth, task.measured, task.space.weights)
    except (ValueError, ArithmeticError, RuntimeError) as error:
        return dataclasses.replace(task.key, failure=f"{type(error).__name__}: {error}")
    return dataclasses.replace(task.key, **dataclasses.asdict(scores), seconds=seconds)
