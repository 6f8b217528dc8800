"""What to distrust about a fit, in words."""

from __future__ import annotations

from bimix_tune.laws.base import ALPHA
from bimix_tune.laws.catalogue import FEW_MIXTURES
from bimix_tune.laws.ladder import Ladder
from bimix_tune.laws.law_fit import Model
from bimix_tune.laws.observations import Observations
from bimix_tune.laws.transported import Transported
from bimix_tune.space import SearchSpace


def warnings_of(model: Model, seen: Observations, space: SearchSpace) -> tuple[str, ...]:
    """Too few mixtures, domains that never varied, fits that went astray."""
    notes = []
    rungs = model.rungs if isinstance(model, Ladder) else ()
    helped = any(isinstance(rung.law, Transported) for rung in rungs)
    if seen.mixtures < FEW_MIXTURES:
        source = "the smaller sizes" if helped else "typical values"
        notes.append(f"only {seen.mixtures} different mixtures: the fit leans on {source}")
    still = ((seen.r.max(0) + 0.01) / (seen.r.min(0) + 0.01) < 1.5) & (space.low < space.high)
    if still.any() and not helped:
        names = [n for n, s in zip(space.names, still, strict=True) if s]
        notes.append(f"the proportion of {', '.join(names)} hardly varied: its effect is a guess")
    if isinstance(model, Ladder):
        notes += _of_ladder(model, space)
    return tuple(notes)


def _of_ladder(model: Ladder, space: SearchSpace) -> list[str]:
    notes = []
    if not all(rung.estimate.converged for rung in model.rungs):
        notes.append("the least-squares fit did not converge")
    first = model.rungs[0]
    steep = first.estimate.theta[:, ALPHA] > 0.5
    if steep.any() and not isinstance(first.law, Transported):  # its alpha is a stretch
        names = [n for n, s in zip(space.target_names, steep, strict=True) if s]
        notes.append(f"the exponent alpha of {names} is far above any published value")
    return notes
