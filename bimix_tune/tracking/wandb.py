"""Weights & Biases by its own client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bimix_tune.errors import missing_extra
from bimix_tune.observing import RunAsked, RunCheckpoint, RunEnded, SearchEvent


class WandbTracker:
    """Sends each training as a run, grouped by search.

    Args:
        folder: The run folder; its name is the group's.
        project: Project of the runs.
        entity: User or team; None for the library's default.
        mode: ``"online"``, ``"offline"`` or ``"disabled"``; None for the library's default.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        project: str = "bimix-tune",
        entity: str | None = None,
        mode: str | None = None,
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise missing_extra("wandb", "tracking", "tracking by Weights & Biases") from error
        self._init = wandb.init
        self._known = {"project": project, "entity": entity, "mode": mode}
        self._known |= {"group": folder.resolve().name, "dir": str(folder)}
        self._runs: dict[int, Any] = {}

    def __call__(self, event: SearchEvent) -> None:
        """Send what concerns a training."""
        if isinstance(event, RunAsked):
            shares = {f"mixture/{name}": share for name, share in event.mixture.items()}
            self._runs[event.run] = self._init(
                **self._known,
                name=f"run-{event.run:04d} {event.label or event.role}",
                config={**shares, "role": event.role, "label": event.label, "seed": event.seed},
                reinit="create_new",  # several runs of one process at a time
            )
        elif isinstance(event, RunCheckpoint):
            losses = {f"loss/{name}": loss for name, loss in event.losses.items()}
            self._runs[event.run].log({**losses, "objective": event.objective}, step=event.tokens)
        elif isinstance(event, RunEnded):
            run = self._runs.pop(event.run)
            run.summary.update({"state": event.state, "cause": event.cause})
            run.finish(exit_code=1 if event.state == "FAIL" else 0)

    def close(self) -> None:
        """Finish the runs that have not ended."""
        for run in self._runs.values():
            run.finish(exit_code=1)
