"""MLflow by its own client."""

from __future__ import annotations

import re
import time
from pathlib import Path

from bimix_tune.errors import missing_extra
from bimix_tune.observing import RunAsked, RunCheckpoint, RunEnded, SearchEvent

_STATES = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


class MLflowTracker:
    """Sends each training as a run of one experiment.

    Args:
        folder: The run folder; its name is the experiment's unless one is given.
        experiment: Name of the experiment.
        tracking_uri: Where to; None for ``MLFLOW_TRACKING_URI``, else the library's default.

    Raises:
        MissingExtraError: mlflow (or mlflow-skinny) is not installed.
    """

    def __init__(
        self, folder: Path, *, experiment: str | None = None, tracking_uri: str | None = None
    ) -> None:
        try:
            from mlflow import MlflowClient, entities
        except ImportError as error:
            raise missing_extra("mlflow", "tracking", "tracking by MLflow") from error
        self._entities = entities
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._name = experiment or folder.resolve().name
        self._experiment: str | None = None
        self._runs: dict[int, str] = {}

    def __call__(self, event: SearchEvent) -> None:
        """Send what concerns a training."""
        if isinstance(event, RunAsked):
            self._begin(event)
        elif isinstance(event, RunCheckpoint):
            values = {f"loss/{_name(n)}": v for n, v in event.losses.items()}
            values["objective"] = event.objective
            now = int(time.time() * 1000)
            metrics = [self._entities.Metric(k, v, now, event.tokens) for k, v in values.items()]
            self._client.log_batch(self._runs[event.run], metrics=metrics)
        elif isinstance(event, RunEnded):
            run = self._runs.pop(event.run)
            if event.cause:
                self._client.set_tag(run, "cause", event.cause)
            self._client.set_terminated(run, _STATES[event.state])

    def close(self) -> None:
        """End the runs that have not ended."""
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")

    def _begin(self, event: RunAsked) -> None:
        if self._experiment is None:
            known = self._client.get_experiment_by_name(self._name)
            self._experiment = (
                known.experiment_id if known else self._client.create_experiment(self._name)
            )
        name = f"run-{event.run:04d} {event.label or event.role}"
        run = self._client.create_run(self._experiment, run_name=name).info.run_id
        self._runs[event.run] = run
        values = {f"mixture/{_name(n)}": f"{share:.6g}" for n, share in event.mixture.items()}
        values |= {"role": event.role, "label": event.label, "seed": str(event.seed)}
        params = [self._entities.Param(key, value) for key, value in values.items()]
        self._client.log_batch(run, params=params)


def _name(name: str) -> str:
    """MLflow refuses most punctuation."""
    return re.sub(r"[^\w\-. /]", "_", name)
