"""Laws that predict the loss of every target from proportions and tokens, fitted to curves.

A ladder in which each rung contains the one below: `bimix` (own proportion), `transfer`
(other domains help too). Targets without own domain, which are constant in the proportions on
the first rung, have a choice on the second: `additive` is `transfer` but for them, and makes
them a sum over domains. It contains `bimix` too, and neither of the two contains the other.
`fit` estimates one of them, or with ``law="auto"`` the one that predicts left-out runs better;
`optimise` finds the best mixture under it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bimix_tune.curves import LossCurve
from bimix_tune.errors import FitError, did_you_mean
from bimix_tune.laws import optimum, posterior
from bimix_tune.laws.base import ALPHA, Law
from bimix_tune.laws.fitting import Estimate, estimate
from bimix_tune.laws.held_out import HeldOut, leave_out
from bimix_tune.laws.law_fit import LAWS, LawFit
from bimix_tune.laws.observations import Observations, observe
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

__all__ = ["LAWS", "HeldOut", "LawFit", "fit", "optimise"]

FEW_MIXTURES = 4
"""With fewer, `auto` takes the simplest law without a comparison."""
BETTER = 0.95
"""A richer law is taken if its held-out error is below this part of the simpler one's."""


def fit(curves: Sequence[LossCurve], space: SearchSpace, law: str = "auto") -> LawFit:
    """Fit a law to all checkpoints of all curves.

    Args:
        curves: Runs, finished or not, of at least two mixtures. Targets that the space does
            not name are ignored.
        space: Domains and targets.
        law: A name in `LAWS`, or "auto" for the one with the least held-out error.

    Raises:
        FitError: There are no curves or one mixture only, a curve lacks a domain, no curve
            has a target, units or scales differ, or the law is unknown.
    """
    if law != "auto" and law not in LAWS:
        raise FitError(f"unknown law {law!r}" + did_you_mean(law, ["auto", *LAWS]))
    seen = observe(curves, space)
    names = [law] if law != "auto" else _rivals(space)
    if seen.group.max() + 1 < FEW_MIXTURES:
        names = names[:1]
    best = _candidate(LAWS[names[0]], seen, space)
    for name in names[1:]:
        richer = _candidate(LAWS[name], seen, space)
        if _error(richer.held_out) < BETTER * _error(best.held_out):
            best = richer
    return _finished(best, seen, space)


def _rivals(space: SearchSpace) -> list[str]:
    """Laws that differ for the targets that count, the first to be taken without a comparison.

    If none of them has its own domain `bimix` says that all mixtures are equally good: a search
    would repeat one for ever, and is better off with proportions of yet uncertain effect.
    """
    counting = [i for i, w in zip(space.own, space.weights, strict=True) if w > 0]
    if None not in counting:
        return [name for name in LAWS if name != "additive"]
    return [name for name in LAWS if name != "bimix" or any(i is not None for i in counting)]


def optimise(fit: LawFit, space: SearchSpace, tokens: float) -> Mixture:
    """The mixture with the least predicted objective.

    Args:
        fit: A fitted law; its own space gives the targets and their weights.
        space: Gives the bounds; its domains are those of the fit, in any order.
        tokens: Training tokens at which losses are judged.

    Raises:
        FitError: The space has other domains than the fit, or ``tokens`` is not a finite
            number > 0.
    """
    if set(space.names) != set(fit.space.names):
        raise FitError(
            f"the space to optimise over has domains {sorted(space.names)}, "
            f"but the law was fitted to {sorted(fit.space.names)}"
        )
    order = [fit.space.names.index(name) for name in space.names]
    terms = fit.terms(tokens)
    terms = terms._replace(carriers=terms.carriers[:, order])
    return space.mixture(optimum.minimise(terms, space.low, space.high, space.prior))


class _Candidate(NamedTuple):
    """A fit, its log losses of runs left out (V, R), and the same as losses at the end."""

    law: Law
    full: Estimate
    left_out: Array
    held_out: HeldOut


def _candidate(law: Law, seen: Observations, space: SearchSpace) -> _Candidate:
    full = estimate(law, seen, space)
    left_out = leave_out(law, space, seen, full)
    return _Candidate(law, full, left_out, _held_out(seen, left_out, space))


def _finished(best: _Candidate, seen: Observations, space: SearchSpace) -> LawFit:
    law, full, left_out, held_out = best
    noise = posterior.run_noise(seen.log_loss[:, seen.last] - left_out, full, seen)
    return LawFit(
        law.name,
        space,
        seen.unit,
        full.theta,
        seen.reference,
        posterior.ensemble(law, space, seen, full, noise),
        noise,
        held_out,
        _status(law.name, seen, held_out),
        _warnings(full, seen, space),
    )


def _held_out(seen: Observations, left_out: Array, space: SearchSpace) -> HeldOut:
    """Judge at equal tokens: by the runs that reached the end, or by all if those are few."""
    runs = seen.complete if len(seen.complete) >= 3 else np.arange(len(seen.last))
    last = seen.last[runs]
    observed = np.where(seen.weight[:, last] > 0, np.exp(seen.log_loss[:, last]), np.nan)
    return HeldOut(
        tuple(seen.names[n] for n in runs),
        np.exp(left_out[:, runs]).T,
        observed.T,
        space.weights,
    )


def _error(held_out: HeldOut) -> float:
    """Relative error, mean over the measured targets by weight."""
    error = held_out.relative_error
    weights = np.where(np.isfinite(error), held_out.weights, 0.0)
    return float(np.nansum(weights * error) / max(weights.sum(), 1e-300))


def _status(name: str, seen: Observations, held_out: HeldOut) -> str:
    runs, mixtures = len(seen.last), int(seen.group.max()) + 1
    rank = held_out.spearman
    tail = "" if np.isnan(rank) else f", rank correlation {rank:.2f}"
    error = _error(held_out)
    return f"{name} law from {runs} runs ({mixtures} mixtures), held-out error {error:.1%}{tail}"


def _warnings(full: Estimate, seen: Observations, space: SearchSpace) -> tuple[str, ...]:
    notes = []
    mixtures = int(seen.group.max()) + 1
    if mixtures < FEW_MIXTURES:
        notes.append(f"only {mixtures} different mixtures: the fit leans on typical values")
    r = seen.r[seen.last]
    still = ((r.max(0) + 0.01) / (r.min(0) + 0.01) < 1.5) & (space.low < space.high)
    if still.any():
        names = [n for n, s in zip(space.names, still, strict=True) if s]
        notes.append(f"the proportion of {', '.join(names)} hardly varied: its effect is a guess")
    if not full.converged:
        notes.append("the least-squares fit did not converge")
    steep = full.theta[:, ALPHA] > 0.0
    if steep.any():
        names = [n for n, s in zip(space.target_names, steep, strict=True) if s]
        notes.append(f"the exponent alpha of {names} is above 1, far from any published value")
    return tuple(notes)
