"""What is minimised: one number from the losses of all targets.

`Mean` and `Custom` are smooth where they are; `Worst` and `Regret` are the greatest of several
losses, and a search takes them as such (`greatest`), since a largest loss has a kink at every
optimum worth finding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from bimix_tune.errors import FitError, did_you_mean
from bimix_tune.simplex import Array

STEP = float(np.cbrt(np.finfo(float).eps))
"""Relative step of central differences that balances rounding with curvature."""


@runtime_checkable
class Objective(Protocol):
    """A number to be minimised."""

    def bind(self, targets: Sequence[str]) -> Objective:
        """The same objective for losses in this order of targets."""
        ...

    def value(self, losses: Array, weights: Array) -> Array:
        """The objective, (..., V) -> (...), with weights of the targets (V,)."""
        ...

    def gradient(self, losses: Array, weights: Array) -> Array:
        """Derivatives by the losses, (V,) -> (V,)."""
        ...


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean loss by weight, ``sum_v w_v L_v / sum_v w_v``."""

    def bind(self, targets: Sequence[str]) -> Mean:
        return self

    def value(self, losses: Array, weights: Array) -> Array:
        return np.asarray(_finite(losses) @ (weights / weights.sum()))

    def gradient(self, losses: Array, weights: Array) -> Array:
        return np.asarray(weights / weights.sum())


@dataclasses.dataclass(frozen=True)
class Worst:
    """The greatest loss, ``max_v L_v``, of the targets with a weight > 0."""

    def bind(self, targets: Sequence[str]) -> Worst:
        return self

    def value(self, losses: Array, weights: Array) -> Array:
        return _largest(_finite(losses), weights)

    def gradient(self, losses: Array, weights: Array) -> Array:
        """One of the derivatives, where several losses are greatest."""
        return _indicator(losses, weights)


@dataclasses.dataclass(frozen=True)
class Regret:
    """The greatest excess, ``max_v (L_v - reference_v)``, of the targets with a weight > 0.

    With the losses of a reference model this is the objective of DoReMi (Xie et al.,
    arXiv 2305.10429).

    Args:
        reference: A loss for each target, in the unit of the losses.
        targets: Order of the targets; set by `bind`.

    Raises:
        FitError: A reference loss is not a finite number.
    """

    reference: Mapping[str, float]
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, loss in self.reference.items():
            if not (isinstance(loss, int | float | np.floating) and math.isfinite(loss)):
                raise FitError(
                    f"the reference loss of {name!r} must be a finite number, but got {loss!r}"
                )

    def bind(self, targets: Sequence[str]) -> Regret:
        """The same objective for losses in this order of targets.

        Raises:
            FitError: A target has no reference loss, or the reference names another one.
        """
        for name in self.reference:
            if name not in targets:
                raise FitError(
                    f"the reference gives a loss of {name!r}, which is no target"
                    + did_you_mean(name, targets)
                )
        missing = [name for name in targets if name not in self.reference]
        if missing:
            raise FitError(
                f"the reference gives no loss for {missing}: add one for every target, "
                "of a model of the same size trained on the reference mixture, say"
            )
        return dataclasses.replace(self, targets=tuple(targets))

    @property
    def levels(self) -> Array:
        """Reference losses in the order of the targets, (V,).

        Raises:
            FitError: The order is not known yet.
        """
        if not self.targets:
            raise FitError("a Regret must know the order of the targets: use as_objective")
        return np.array([float(self.reference[name]) for name in self.targets])

    def value(self, losses: Array, weights: Array) -> Array:
        return _largest(_finite(losses) - self.levels, weights)

    def gradient(self, losses: Array, weights: Array) -> Array:
        """One of the derivatives, where several excesses are greatest."""
        return _indicator(losses - self.levels, weights)


Score = Callable[[Mapping[str, float]], float]
"""A number from the losses by target."""


@dataclasses.dataclass(frozen=True)
class Custom:
    """Any smooth function of the losses.

    Args:
        function: Takes a mapping from target to loss, gives a finite number. It sees no weights.
        maximise: Whether more is better; `value` is then the number's negative, as everything
            here is minimised.
        targets: Order of the targets; set by `bind`.
    """

    function: Score
    maximise: bool = False
    targets: tuple[str, ...] = ()

    def bind(self, targets: Sequence[str]) -> Custom:
        return dataclasses.replace(self, targets=tuple(targets))

    def value(self, losses: Array, weights: Array) -> Array:
        """The function's value, or its negative.

        Raises:
            FitError: The function asks for an unknown target, or gives no finite number.
        """
        rows = _finite(losses).reshape(-1, losses.shape[-1])
        return np.array([self._call(row) for row in rows]).reshape(losses.shape[:-1])

    def gradient(self, losses: Array, weights: Array) -> Array:
        """By central differences."""
        steps = STEP * np.maximum(np.abs(losses), 0.01)
        around = np.concatenate([losses + np.diag(steps), losses - np.diag(steps)])
        up, down = self.value(around, weights).reshape(2, -1)
        return np.asarray((up - down) / (2.0 * steps))

    def _call(self, losses: Array) -> float:
        if len(self.targets) != len(losses):
            raise FitError("a Custom objective must know the order of the targets: as_objective")
        by_name = dict(zip(self.targets, losses.tolist(), strict=True))
        try:
            result = self.function(by_name)
        except KeyError as error:
            name = error.args[0] if error.args else None
            if not isinstance(name, str) or name in by_name:
                raise
            hint = did_you_mean(name, self.targets)
            raise FitError(f"the objective asks for the loss of {name!r}{hint}") from error
        try:
            value = float(result)
        except (TypeError, ValueError) as error:
            raise FitError(f"the objective must give a number, but gave {result!r}") from error
        if not math.isfinite(value):
            raise FitError(f"the objective must be finite, but is {value!r} at losses {by_name}")
        return -value if self.maximise else value


NAMED: dict[str, Objective] = {"mean": Mean(), "worst": Worst()}
"""Objectives that need nothing but their name."""

ObjectiveLike = str | Objective | Score
"""A name in `NAMED`, an objective, or a function of the losses to be minimised."""


def as_objective(objective: ObjectiveLike, targets: Sequence[str]) -> Objective:
    """The objective for losses in this order of targets.

    Args:
        objective: A name, an objective, or a function from the losses by target to a number.
        targets: Names of the targets, (V,).

    Raises:
        FitError: The name is unknown, the objective is none, or lacks a target.

    >>> as_objective("mean", ["web"])
    Mean()
    """
    if isinstance(objective, str):
        if objective not in NAMED:
            raise FitError(f"unknown objective {objective!r}" + did_you_mean(objective, NAMED))
        return NAMED[objective]
    if isinstance(objective, type):
        raise FitError(f"the objective is a class, {objective.__name__}: call it to make one")
    if isinstance(objective, Objective):
        return objective.bind(targets)
    if callable(objective):
        return Custom(objective).bind(targets)
    raise FitError(
        f"an objective is a name ({', '.join(NAMED)}), an Objective, or a function of the losses "
        f"by target, but got {objective!r}"
    )


def greatest(objective: Objective, targets: int) -> Array | None:
    """What is subtracted from the V losses, (V,), if the objective is the greatest of them."""
    if isinstance(objective, Worst):
        return np.zeros(targets)
    return objective.levels if isinstance(objective, Regret) else None


def _finite(losses: Array) -> Array:
    if not np.isfinite(losses).all():
        bad = losses.reshape(-1, losses.shape[-1])
        row = bad[~np.isfinite(bad).all(axis=1)][0]
        raise FitError(f"losses must be finite numbers, but are {row.tolist()}")
    return losses


def _largest(losses: Array, weights: Array) -> Array:
    return np.asarray(losses[..., weights > 0].max(-1))


def _indicator(losses: Array, weights: Array) -> Array:
    return np.asarray(np.eye(len(losses))[np.where(weights > 0, losses, -np.inf).argmax()])
