"""What we write into an Optuna trial and read back from it.

A mixture is one float parameter ``r_<domain>`` per domain, holding the real proportion, so
that dashboards, importances and exports of any study show what was trained. Losses are user
attributes ``losses@<tokens>``, one per checkpoint: append-only and readable by people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from bimix_tune.curves import NATS_PER_TOKEN, LossCurve
from bimix_tune.errors import CurveError, MixtureError, did_you_mean
from bimix_tune.laws.optimum.objectives import ObjectiveLike, as_objective
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import SUM_TOLERANCE
from bimix_tune.space import SearchSpace

PREFIX = "r_"
LOSSES = "losses@"
MIXTURE = "mixture"
WEIGHTS = "target_weights"
HELD_BACK = "held_back"
"""Trials with this user attribute judge a search; nothing is learnt from them."""
CONTINUES = "continues"
"""The number of the pruned trial that this one goes on with, whose checkpoints it repeats."""
ENQUEUED = "fixed_params"
"""Where Optuna keeps the parameters of `Study.enqueue_trial` among the system attributes."""
PROPOSED = "bimix:mixture"
"""System attribute with the whole mixture of a proposal. The parameters of a running trial appear
in a storage one by one; this tells other processes at once where a run is under way."""


def distributions(space: SearchSpace) -> dict[str, FloatDistribution]:
    """The Optuna parameters of a mixture: ``r_<domain>`` within its bounds."""
    return {PREFIX + d.name: FloatDistribution(d.low, d.high) for d in space.domains}


def suggest_mixture(trial: Trial, space: SearchSpace) -> Mixture:
    """Ask the study's sampler for a mixture.

    Under a `BiMixSampler` the parameters sum to one as they are. Any other sampler knows
    nothing of the sum: then the nearest mixture within the bounds (Kullback-Leibler) is used
    and recorded as the user attribute ``mixture``, so that one objective runs under every
    sampler.

    Args:
        trial: A running trial.
        space: The mixtures allowed; also says how `report_losses` weighs the targets.

    Returns:
        The mixture to train on.

    Raises:
        MixtureError: The trial was enqueued with a proportion outside its bounds, or with a full
            mixture that does not sum to one.
    """
    params = {
        name: trial.suggest_float(PREFIX + name, low, high)
        for name, low, high in zip(space.names, space.low, space.high, strict=True)
    }
    for domain, r in zip(space.domains, params.values(), strict=True):
        if not domain.low - SUM_TOLERANCE <= r <= domain.high + SUM_TOLERANCE:
            raise MixtureError(
                f"trial {trial.number} was enqueued with proportion {r:g} of {domain.name!r}, "
                f"outside its bounds [{domain.low:g}, {domain.high:g}]"
            )
    weights = dict(zip(space.target_names, space.weights.tolist(), strict=True))
    trial.set_user_attr(WEIGHTS, weights)
    total = sum(params.values())
    if abs(total - 1) <= SUM_TOLERANCE:
        return Mixture(params.keys(), params.values())
    study = getattr(trial, "study", None)  # a FixedTrial or FrozenTrial has none
    stored = study.get_trials(deepcopy=False)[trial.number].system_attrs if study else {}
    fixed = stored.get(ENQUEUED, {})
    if all(PREFIX + name in fixed for name in space.names):
        raise MixtureError(
            f"trial {trial.number} was enqueued with proportions that sum to {total:.6g}, not to 1"
        )
    mixture = space.fit_in([params[name] for name in space.names])
    trial.set_user_attr(MIXTURE, dict(mixture))
    return mixture


def report_losses(
    trial: Trial,
    tokens: int,
    losses: Mapping[str, float],
    *,
    decayed: bool = False,
    unit: str = NATS_PER_TOKEN,
    objective: ObjectiveLike = "mean",
) -> float:
    """Record the losses of one checkpoint and report the objective of them to Optuna.

    In a study with several objectives Optuna takes no reports, and the losses are recorded only;
    return `bimix_tune.objective_values` from the objective there.

    Args:
        trial: The running trial, after `suggest_mixture`.
        tokens: Training tokens seen, Optuna's step. An evaluation before training, at 0, goes
            to Optuna alone: no law says anything there.
        losses: Validation loss of every target with a positive weight; more are kept too.
        decayed: Whether the learning rate had decayed to its end.
        unit: Unit of the losses.
        objective: The same as that of the `BiMixSampler`; the mean is by weight.

    Returns:
        The objective: return it from the objective after the last checkpoint. It is NaN,
        and nothing is recorded, where a loss is NaN or infinite; Optuna then fails the trial.

    Raises:
        CurveError: Tokens are negative, a target of the space is missing from the losses, or a
            loss is no positive number.
    """
    if not tokens >= 0:
        raise CurveError(f"tokens must be >= 0, but got {tokens!r}")
    for name, value in losses.items():
        if not isinstance(value, Real) or isinstance(value, bool):
            raise CurveError(f"the loss of {name!r} must be a number, but got {value!r}")
    weights: Mapping[str, float] = trial.user_attrs.get(WEIGHTS) or dict.fromkeys(losses, 1.0)
    missing = [name for name, weight in weights.items() if weight > 0 and name not in losses]
    if missing:
        raise CurveError(
            f"no loss given for target {missing[0]!r}" + did_you_mean(missing[0], losses)
        )
    if not all(math.isfinite(v) for v in losses.values()):
        return math.nan
    wrong = [name for name, value in losses.items() if value <= 0]
    if wrong:
        raise CurveError(f"a loss must be > 0, but that of {wrong[0]!r} is {losses[wrong[0]]!r}")
    record = {"losses": {k: float(v) for k, v in losses.items()}, "decayed": decayed, "unit": unit}
    if int(tokens) > 0:
        trial.set_user_attr(f"{LOSSES}{int(tokens)}", record)
    given = [name for name in weights if name in losses]
    row, by = np.array([[losses[n], weights[n]] for n in given]).T
    value = float(as_objective(objective, given).value(row, by))
    study = getattr(trial, "study", None)
    if study is None or len(study.directions) == 1:
        trial.report(value, step=int(tokens))
    return value


def mixture_of(trial: FrozenTrial, space: SearchSpace) -> Mixture | None:
    """The mixture that a trial was or is trained on, or None if it has none of this space."""
    params = trial.user_attrs.get(MIXTURE) or {
        name: trial.params[PREFIX + name] for name in space.names if PREFIX + name in trial.params
    }
    if len(params) < len(space.names) and not trial.state.is_finished():
        params = trial.system_attrs.get(PROPOSED, {})
    if set(params) != set(space.names) or abs(sum(params.values()) - 1) > SUM_TOLERANCE:
        return None
    return Mixture(space.names, [params[name] for name in space.names])


def raise_unless_whole(trial: FrozenTrial, space: SearchSpace) -> None:
    """Complain about a trial that asked for proportions which are no mixture.

    Raises:
        MixtureError: It asked for some proportions but not all, or for ones that do not sum to
            one, and there is no record of what was used instead.
    """
    shares = {n: trial.params[PREFIX + n] for n in space.names if PREFIX + n in trial.params}
    if not shares or MIXTURE in trial.user_attrs:
        return
    missing = [PREFIX + n for n in space.names if n not in shares]
    if missing:
        raise MixtureError(
            f"trial {trial.number} asked for {len(shares)} proportions but not for {missing}, so "
            "its mixture does not sum to one: ask for all by suggest_mixture(trial, space)"
        )
    total = sum(shares.values())
    if abs(total - 1) > SUM_TOLERANCE:
        raise MixtureError(
            f"the proportions of trial {trial.number} sum to {total:.6g}, not to 1; use "
            "suggest_mixture(trial, space), and enqueue mixtures that sum to one"
        )


def checkpoints_of(trial: FrozenTrial) -> list[tuple[int, dict[str, Any]]]:
    """Recorded checkpoints as (tokens, record), in order of tokens."""
    return sorted(
        (int(key.removeprefix(LOSSES)), record)
        for key, record in trial.user_attrs.items()
        if key.startswith(LOSSES)
    )


def curve_of(
    trial: FrozenTrial, space: SearchSpace, mixture: Mixture | None = None
) -> LossCurve | None:
    """The loss curve recorded in a trial, or None if it holds no mixture or no losses.

    Args:
        trial: Any trial.
        space: Domains and targets.
        mixture: That of the trial, where it is known already.
    """
    mixture, points = mixture or mixture_of(trial, space), checkpoints_of(trial)
    if mixture is None or not points:
        return None
    table = [[r["losses"].get(t, math.nan) for t in space.target_names] for _, r in points]
    return LossCurve(
        mixture,
        [tokens for tokens, _ in points],
        table,
        space.target_names,
        [bool(r["decayed"]) for _, r in points],
        seed=int(trial.user_attrs.get("seed", 0)),
        unit=points[0][1]["unit"],
        run=str(trial.number),
    )


def lessons(study: Study, states: Sequence[TrialState]) -> list[FrozenTrial]:
    """Trials in these states that may be learnt from: all but those held back, and of a trial
    and the one that continues it only the latter.

    A `HyperbandPruner` shows its samplers only the trials of one bracket. A law learns from all:
    it knows what a loss at fewer tokens says. Hence not `Study.get_trials`.
    """
    trials = study._get_trials(deepcopy=False, states=tuple(states), use_cache=False)
    found, continued = [], set()
    for trial in trials:
        attrs = trial.user_attrs
        if not attrs.get(HELD_BACK):
            found.append(trial)
            if CONTINUES in attrs:
                continued.add(attrs[CONTINUES])
    return [t for t in found if t.number not in continued] if continued else found


def curves_of(study: Study, space: SearchSpace) -> list[LossCurve]:
    """Curves of all finished and pruned trials (a running trial's curve is not yet settled)."""
    trials = lessons(study, (TrialState.COMPLETE, TrialState.PRUNED))
    return [curve for t in trials if (curve := curve_of(t, space)) is not None]
