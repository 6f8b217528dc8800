"""TensorBoard files in the run folder, written by tensorboardX (no TensorFlow, no PyTorch)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bimix_tune.errors import missing_extra
from bimix_tune.observing import RunAsked, RunCheckpoint, RunEnded, SearchEvent


class TensorBoardTracker:
    """Writes one folder per training; see it with ``tensorboard --logdir FOLDER``.

    Args:
        folder: The run folder.
        logdir: Where to write; None for ``tensorboard`` in the run folder.

    Raises:
        MissingExtraError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, *, logdir: str | None = None) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise missing_extra("tensorboardX", "tracking", "tracking by TensorBoard") from error
        self._writer = SummaryWriter
        self._folder = Path(logdir) if logdir else folder / "tensorboard"
        self._runs: dict[int, Any] = {}

    def __call__(self, event: SearchEvent) -> None:
        """Write what concerns a training."""
        if isinstance(event, RunAsked):
            writer = self._writer(str(self._folder / f"run-{event.run:04d}"))
            self._runs[event.run] = writer
            for name, share in event.mixture.items():
                writer.add_scalar(f"mixture/{name}", share, 0)
            writer.add_text("run", f"{event.role} {event.label}, seed {event.seed}", 0)
        elif isinstance(event, RunCheckpoint):
            writer = self._runs[event.run]
            for name, loss in event.losses.items():
                writer.add_scalar(f"loss/{name}", loss, event.tokens)
            writer.add_scalar("objective", event.objective, event.tokens)
        elif isinstance(event, RunEnded):
            writer = self._runs.pop(event.run)
            writer.add_text("state", f"{event.state} {event.cause}".strip(), event.tokens)
            writer.close()

    def close(self) -> None:
        """Close the files of runs that have not ended."""
        for writer in self._runs.values():
            writer.close()
