"""The result of a case: what was measured, and what follows from it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import binom

OURS, PEER = "bimix-tune", "Trainer"
TOLERANCES = {"fp32": 1e-5, "bf16": 2e-3}
"""Greatest relative difference of the losses of a step between the two sides, by precision: some
ten times what rounding does (2e-7 and 3e-4 were measured over 20 steps)."""
LEVEL = 0.95
"""Of the intervals."""

Key = tuple[Any, ...]


def contender(side: str, precision: str) -> str:
    """Name of a side in a precision, such as ``Trainer fp32``."""
    return f"{side} {precision}"


@dataclass(frozen=True)
class Ratio:
    """How many times as fast: the median over rounds, and an interval for it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def median_ratio(values: Sequence[float]) -> Ratio:
    """Median with the interval of order statistics, which assumes no distribution.

    Its confidence is at least `LEVEL` from six values on; of fewer it is all their range.

    >>> print(median_ratio([1.0, 2.0, 4.0]))
    2.00 (1.00 to 4.00)
    """
    ordered = sorted(values)
    k = 0
    while binom.cdf(k, len(ordered), 0.5) <= (1 - LEVEL) / 2:
        k += 1
    k = max(k - 1, 0)
    return Ratio(float(np.median(ordered)), ordered[k], ordered[-1 - k])


@dataclass(frozen=True)
class Speed:
    """What was measured in a case.

    Args:
        case: A name of `CASES`.
        device: Type of the device.
        batch_tokens: Tokens of a step.
        rounds: Turns of each contender.
        steps: Steps of a turn.
        code: Digest of the code that was timed.
        machine: Device and libraries in words.
        flops: Operations for each token.
        seconds: Of each round, by contender: of the processor on a CPU, else of the wall.
        losses: Of each step from the first one, by contender, nats per token.
        first_step: Wall seconds from the beginning of a training to the end of its first step.
        warm: Wall seconds until a contender was ready to be timed.
        peaks: Operations a second of a matrix product, by precision.
        kernels: Kernels in a step, by contender; empty on a CPU.
        overhead: Share of a run's time that evaluation and saving take.
        start: Wall seconds of a new process with warm caches: ``imports``, ``build``, and
            ``first step``.
        failure: Why there is nothing else, or empty.
    """

    case: str
    device: str
    batch_tokens: int
    rounds: int
    steps: int
    code: str
    machine: str = ""
    flops: int = 0
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    first_step: Mapping[str, float] = field(default_factory=dict)
    warm: Mapping[str, float] = field(default_factory=dict)
    peaks: Mapping[str, float] = field(default_factory=dict)
    kernels: Mapping[str, int] = field(default_factory=dict)
    overhead: float = math.nan
    start: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""

    @property
    def key(self) -> Key:
        """What was measured, how, and of which code."""
        return (self.case, self.device, self.batch_tokens, self.rounds, self.steps, self.code)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those measured, ours by default first."""
        return tuple(name.split()[-1] for name in self.seconds if name.startswith(OURS))

    @property
    def ours(self) -> str:
        """The contender that a search would use."""
        return contender(OURS, self.precisions[0])

    def rate(self, name: str) -> float:
        """Tokens a second of a contender, the median over rounds."""
        return self.steps * self.batch_tokens / float(np.median(self.seconds[name]))

    def ratio(self, fast: str, slow: str) -> Ratio:
        """How many times as fast one contender is as another, round by round."""
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=True)
        return median_ratio([theirs / own for theirs, own in pairs])

    def share_of_peak(self, name: str) -> float:
        """Share of the speed of a matrix product in the contender's precision."""
        return self.rate(name) * self.flops / self.peaks[name.split()[-1]]

    def difference(self, precision: str) -> float:
        """Greatest relative difference of a step's loss between the sides; NaN is infinite."""
        ours, theirs = (np.array(self.losses[contender(s, precision)]) for s in (OURS, PEER))
        count = min(len(ours), len(theirs))
        gaps = np.abs(ours[:count] / theirs[:count] - 1)
        return float(np.where(np.isfinite(gaps), gaps, np.inf).max())

    def disagreements(self) -> list[str]:
        """A sentence for each precision in which the two sides do not train alike."""
        found = []
        for precision in self.precisions:
            difference, allowed = self.difference(precision), TOLERANCES[precision]
            if not difference <= allowed:
                found.append(
                    f"case {self.case}: the {precision} losses of {OURS} and {PEER} differ by "
                    f"{difference:.1e} of their value, but must agree to {allowed:.0e}: they do "
                    "not train alike, so their times must not be compared"
                )
        return found

    def to_json(self) -> str:
        """One line."""
        values = {k: None if v != v else v for k, v in dataclasses.asdict(self).items()}
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Speed:
        """Read a line of `to_json`."""
        values = json.loads(line)
        if values["overhead"] is None:
            values["overhead"] = math.nan
        return cls(**values)
