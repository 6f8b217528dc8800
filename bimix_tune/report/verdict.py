"""What the confirmation says, in one honest sentence.

A difference counts only if its whole 95 % interval lies on one side of zero. The rival is the
baseline with the lowest mean objective, so "beats" means beating all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bimix_tune.loop.result import CONFIRMATION, Comparison, SearchResult

BETTER, EQUAL, WORSE, SINGLE, UNCONFIRMED = "better", "equal", "worse", "single", "unconfirmed"


@dataclass(frozen=True)
class Verdict:
    """Args: kind (``"better"``, ``"equal"``, ``"worse"``, ``"single"`` or ``"unconfirmed"``)
    and the sentence that says it with its numbers, in plain text."""

    kind: str
    sentence: str


def verdict(result: SearchResult) -> Verdict:
    """The recommendation against the best training-free baseline."""
    rivals = _rivals(result)
    if not rivals:
        tried = any(r.role == CONFIRMATION for r in result.records)
        reason = "no confirmation run could be compared" if tried else "no fresh paired runs exist"
        return Verdict(
            UNCONFIRMED,
            f"Not confirmed: {reason}, so whether the recommendation beats the "
            "training-free baselines is not known.",
        )
    rival = rivals[0]
    kind = judge(rival)
    return Verdict(kind, _sentence(kind, rival, _name(result, rival), result.unit))


def judge(comparison: Comparison) -> str:
    """Which side of zero the interval lies on, from the recommendation's point of view."""
    if not (math.isfinite(comparison.low) and math.isfinite(comparison.high)):
        return SINGLE
    if comparison.low > 0:
        return BETTER
    return WORSE if comparison.high < 0 else EQUAL


def decimals(comparison: Comparison) -> int:
    """Decimals that tell the interval, or the mean without one, from zero; 3 to 6."""
    ends = (comparison.low, comparison.high)
    sizes = [(ends[1] - ends[0]) / 5, *(abs(e) for e in ends)]
    if not all(math.isfinite(s) for s in sizes):
        sizes = [abs(comparison.mean) / 5]
    smallest = min((s for s in sizes if s > 0), default=1.0)
    return min(max(-math.floor(math.log10(smallest)), 3), 6)


def interval(comparison: Comparison, sign: int = 1) -> str:
    """The 95 % interval in words, of the difference or (``sign=-1``) of its negative."""
    ends = sorted((sign * comparison.low, sign * comparison.high))
    low, high = (f"{end:.{decimals(comparison)}f}" for end in ends)
    return f"{low} to {high}"


def _rivals(result: SearchResult) -> list[Comparison]:
    """The comparisons with baselines (with anything if there are none), best rival first."""
    if result.confirmation is None:
        return []
    known = [c for c in result.confirmation.comparisons if math.isfinite(c.mean)]
    baselines = [c for c in known if c.label in result.baselines]
    return sorted(baselines or known, key=lambda c: c.mean)


def _name(result: SearchResult, rival: Comparison) -> str:
    several = "best training-free" if rival.label in result.baselines else "best other"
    kind = "baseline" if rival.label in result.baselines else "mixture"
    return f"the {several} {kind} ({rival.label})"


def _sentence(kind: str, rival: Comparison, name: str, unit: str) -> str:
    size = f"{abs(rival.mean):.{decimals(rival)}f} {unit}"
    seeds = len(rival.pairs)
    runs = f"{seeds} paired seed{'s' if seeds != 1 else ''}"
    side = "lower" if rival.mean >= 0 else "higher"
    if kind == BETTER:
        return (
            f"The recommendation beats {name} by {size}, 95 % interval {interval(rival)}, {runs}."
        )
    if kind == WORSE:
        return (
            f"The recommendation is worse than {name} by {size}, "
            f"95 % interval {interval(rival, -1)}, {runs}: the baseline is the better choice."
        )
    if kind == EQUAL:
        return (
            f"No difference beyond noise from {name}: the recommendation's loss is {size} "
            f"{side}, but the 95 % interval of the gain, {interval(rival)}, "
            f"contains zero ({runs})."
        )
    return (
        f"The recommendation's loss is {size} {side} than that of {name} in {runs}; "
        "without an interval this may be noise: confirm with at least 2 seeds."
    )
