"""Where trainings run: in this process, or on a Ray cluster.

`EXECUTORS` maps the name used in run files to an import path, so that looking at the table
loads no library; `executor_class` resolves a name.
"""

from importlib import import_module
from typing import Any

from bimix_tune.errors import ExecutorError, did_you_mean
from bimix_tune.executors.base import (
    Event,
    Executor,
    Failed,
    Finished,
    Job,
    Output,
    Progress,
    Retried,
    Started,
)

__all__ = [
    "EXECUTORS",
    "Event",
    "Executor",
    "Failed",
    "Finished",
    "Job",
    "Output",
    "Progress",
    "Retried",
    "Started",
    "executor_class",
]

EXECUTORS = {
    "local": "bimix_tune.executors.local:LocalExecutor",
    "ray": "bimix_tune.executors.ray:RayExecutor",
}


def executor_class(name: str) -> Any:
    """The class behind a name; its first argument is the trainer.

    Raises:
        ExecutorError: There is no such executor.
        MissingExtraError: The library that it needs is not installed.
    """
    if name not in EXECUTORS:
        raise ExecutorError(f"unknown executor {name!r}" + did_you_mean(name, EXECUTORS))
    module, _, attribute = EXECUTORS[name].partition(":")
    return getattr(import_module(module), attribute)
