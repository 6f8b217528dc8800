"""What a part of the benchmark measured, beside what is required."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number, or one thing that holds or does not.

    Args:
        part: A name of `bimix_tune.benchmark.cluster.command.PARTS`.
        name: What was measured.
        value: The number; 1 or 0 for what holds or does not.
        required: The bound, in words; empty for what is only told.
        met: Whether the bound is kept; None for what is only told.
    """

    part: str
    name: str
    value: float
    required: str = ""
    met: bool | None = None


def at_most(part: str, name: str, value: float, bound: float) -> Figure:
    """A figure that should not be greater than a bound."""
    return Figure(part, name, value, f"<= {bound:g}", value <= bound)


def at_least(part: str, name: str, value: float, bound: float) -> Figure:
    """A figure that should not be less than a bound."""
    return Figure(part, name, value, f">= {bound:g}", value >= bound)


def holds(part: str, name: str, value: bool) -> Figure:
    """Something that should hold."""
    return Figure(part, name, float(value), "yes", bool(value))


def told(part: str, name: str, value: float) -> Figure:
    """Something worth knowing that nothing is required of."""
    return Figure(part, name, float(value))
