"""Recorded runs as a trainer: a search is tried out, or repeated, without training anything."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bimix_tune.curves import LossCurve, read_curves
from bimix_tune.errors import ConfigError, TrainingError
from bimix_tune.mixture import Mixture
from bimix_tune.training.base import Checkpoint


@dataclass(frozen=True, kw_only=True)
class ReplayTrainer:
    """Replays the recorded run whose mixture is nearest.

    Only complete runs count: those that reach the largest number of tokens recorded.

    Args:
        runs: File or folder that `bimix_tune.curves.read_curves` reads.
        tolerance: Largest difference of any proportion between what is asked and recorded.
        sleep: Seconds before each checkpoint, to look like a training.

    Raises:
        ConfigError: The numbers are out of range, or the runs differ in targets or unit.
        CurveError: There are no readable runs.
    """

    runs: str | Path
    tolerance: float = 0.005
    sleep: float = 0.0
    tokens: int = field(init=False)
    targets: tuple[str, ...] = field(init=False)
    unit: str = field(init=False)
    curves: tuple[LossCurve, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.tolerance < 0 or self.sleep < 0:
            raise ConfigError(
                "tolerance and sleep must be >= 0, but got "
                f"tolerance={self.tolerance!r}, sleep={self.sleep!r}"
            )
        curves = read_curves(self.runs)
        kinds = {(c.targets, c.unit) for c in curves}
        if len(kinds) != 1:
            raise ConfigError(
                f"the runs in {self.runs} must agree in targets and unit, but hold {len(kinds)} "
                f"kinds: {sorted(kinds)}"
            )
        end = max(c.tokens[-1] for c in curves)
        object.__setattr__(self, "tokens", int(end))
        object.__setattr__(self, "targets", curves[0].targets)
        object.__setattr__(self, "unit", curves[0].unit)
        object.__setattr__(self, "curves", tuple(c for c in curves if c.tokens[-1] == end))

    def run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """Yield the checkpoints of the recorded run; see `bimix_tune.training.base.Trainer.run`.

        Among several runs of the nearest mixture the one with this seed is taken, or else
        ``seed`` counts through them.

        Raises:
            TrainingError: No recorded mixture is near enough.
        """
        began = time.monotonic()
        curve = self._nearest(mixture, seed)
        for tokens, losses, decayed in zip(curve.tokens, curve.losses, curve.decayed, strict=True):
            time.sleep(self.sleep)
            known = {
                name: float(loss)
                for name, loss in zip(curve.targets, losses, strict=True)
                if not math.isnan(loss)
            }
            yield Checkpoint(int(tokens), known, bool(decayed), time.monotonic() - began)

    def _nearest(self, mixture: Mixture, seed: int) -> LossCurve:
        distances = [distance(mixture, c.mixture) for c in self.curves]
        best = min(distances)
        if best > self.tolerance:
            near = self.curves[distances.index(best)]
            raise TrainingError(
                f"no recorded run within {self.tolerance:g} of {mixture!r}: the nearest, "
                f"{near.mixture!r}, is {best:.4g} away; raise `tolerance` or propose only "
                "recorded mixtures"
            )
        same = [c for c, d in zip(self.curves, distances, strict=True) if d <= best + 1e-9]
        exact = [c for c in same if c.seed == seed]
        return exact[0] if exact else same[seed % len(same)]


def distance(a: Mixture, b: Mixture) -> float:
    """Largest difference of a proportion; a domain that one of them lacks counts as 0."""
    return max(abs(a.get(name, 0.0) - b.get(name, 0.0)) for name in {*a, *b})
