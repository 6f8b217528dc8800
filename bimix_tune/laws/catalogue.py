"""All laws by name: what builds each from runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bimix_tune.laws.additive import Additive
from bimix_tune.laws.bimix import Bimix
from bimix_tune.laws.ladder import Ladder, Step, climb
from bimix_tune.laws.law_fit import Model
from bimix_tune.laws.linear import Linear
from bimix_tune.laws.observations import Observations
from bimix_tune.laws.peers import PEERS
from bimix_tune.laws.published import published
from bimix_tune.laws.transfer import Transfer
from bimix_tune.laws.transported import Transported
from bimix_tune.space import SearchSpace

Builder = Callable[[Observations, SearchSpace, Model | None, Transported | None], Model]
"""Fits a model to runs, given one of nearly the same runs to begin with, or none, and a law of
a smaller size to learn from, or none."""

FEW_MIXTURES = 4
"""With fewer, `auto` takes the simplest law."""
ENOUGH_MIXTURES = 8
"""With fewer at the size asked for, `auto` relies on the smaller size alone."""


def _law(*steps: Step) -> Builder:
    def build(
        seen: Observations, space: SearchSpace, before: Model | None, small: Transported | None
    ) -> Model:
        known = before if isinstance(before, Ladder) else None
        if small is not None:
            return climb([Step(small, s.process) for s in steps], seen, space, known)
        return climb(steps, seen, space, known)

    return build


def _auto(
    seen: Observations, space: SearchSpace, before: Model | None, small: Transported | None
) -> Model:
    known = before if isinstance(before, Ladder) else None
    return climb(ladder_of(seen, space, small), seen, space, known)


def ladder_of(seen: Observations, space: SearchSpace, small: Transported | None) -> list[Step]:
    """The rungs that suit the runs; the first is the law whose coefficients are shown.

    If no target that counts has its own domain, `bimix` says that all mixtures are equally good: a
    search would repeat one for ever, and is better off with proportions of yet uncertain effect.
    """
    counting = [i for i, w in zip(space.own, space.weights, strict=True) if w > 0]
    steps = []
    if small is not None:
        steps = [Step(small, False), Step(small, True)]
        if seen.mixtures < ENOUGH_MIXTURES:
            return steps
    if all(i is None for i in counting):
        plain = Step(Additive(), False)
        if seen.mixtures < FEW_MIXTURES:
            return [plain]
        return [
            plain,
            Step(Linear(), False),
            Step(Additive(), True),
            Step(Transfer(), True),
            *steps,
        ]
    if seen.mixtures < FEW_MIXTURES:
        return [Step(Bimix(), False)]
    found = [Step(Transfer(), False), Step(Bimix(), True), Step(Transfer(), True), *steps]
    if None in counting:
        found += [Step(Additive(), False), Step(Additive(), True)]
    return found


def _published(name: str) -> Builder:
    def build(
        seen: Observations, space: SearchSpace, before: Model | None, small: Transported | None
    ) -> Model:
        return published(name, seen, space)

    return build


LAWS: Mapping[str, Builder] = {
    "auto": _auto,
    "bimix": _law(Step(Bimix(), False)),
    "additive": _law(Step(Additive(), False)),
    "linear": _law(Step(Linear(), False)),
    "transfer": _law(Step(Transfer(), False)),
    "process": _law(Step(Transfer(), True)),
    **{name: _published(name) for name in PEERS},
}
"""By name, the default first, and other people's published laws last."""
