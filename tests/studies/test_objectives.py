"""Studies with several objectives."""

import math

import numpy as np
import optuna
import pytest

from bimix_tune import (
    BiMixSampler,
    SearchSpace,
    Target,
    objective_values,
    report_losses,
    suggest_mixture,
)
from bimix_tune.errors import CurveError, SpaceError
from bimix_tune.evidence import evidence_of
from bimix_tune.goals import goal_matrix
from bimix_tune.trials import checkpoints_of

GOALS = ("code", {"web": 1, "books": 2})
BEYOND = np.array([3.0, 4.5])
"""Objectives that a useful mixture undercuts."""


def area(points):
    """What a front of two objectives dominates up to `BEYOND`: its hypervolume."""
    total, ceiling = 0.0, BEYOND[1]
    for first, second in sorted(map(tuple, np.minimum(points, BEYOND))):
        if second < ceiling:
            total += (BEYOND[0] - first) * (ceiling - second)
            ceiling = second
    return total


def two_losses(problem):
    def objective(trial):
        losses = problem.losses(suggest_mixture(trial, problem.space))
        report_losses(trial, 1000, losses)
        return objective_values(losses, GOALS)

    return objective


def front_of(problem, sampler):
    study = problem.study(sampler, directions=["minimize"] * 2)
    study.optimize(two_losses(problem), n_trials=25)
    return study


def test_the_front_is_filled_better_than_by_chance(problem):
    ours = front_of(problem, problem.sampler(objectives=GOALS))
    random = front_of(problem, optuna.samplers.RandomSampler(seed=0))
    _, losses = problem.table(20_000)
    best = area(losses @ goal_matrix(GOALS, problem.space).T)
    found, chance = (area([t.values for t in study.trials]) for study in (ours, random))
    assert chance < 0.7 * best
    assert found > 0.85 * best
    assert len(ours.best_trials) >= 12
    ends = np.array([t.values for t in ours.best_trials])
    assert (np.ptp(ends, axis=0) > [1.5, 0.6]).all()  # from end to end


def test_values_alone_may_go_either_way(problem):
    study = problem.study(directions=["minimize", "maximize"])

    def objective(trial):
        losses = problem.losses(suggest_mixture(trial, problem.space))
        first, second = objective_values(losses, GOALS)
        return first, -second

    study.optimize(objective, n_trials=25)
    random = front_of(problem, optuna.samplers.RandomSampler(seed=0))
    found = area([(t.values[0], -t.values[1]) for t in study.trials])
    assert found > 1.3 * area([t.values for t in random.trials])


def test_without_goals_each_target_is_an_objective(problem):
    study = problem.study(directions=["minimize"] * 4)

    def objective(trial):
        losses = problem.losses(suggest_mixture(trial, problem.space))
        report_losses(trial, 1000, losses)
        return objective_values(losses, problem.names)

    study.optimize(objective, n_trials=9)
    assert {t.state.name for t in study.trials} == {"COMPLETE"}
    assert evidence_of(study, problem.space, None).goals.tolist() == np.eye(4).tolist()


def test_losses_are_recorded_but_not_reported(problem):
    study = front_of(problem, optuna.samplers.RandomSampler(seed=0))
    trial = study.trials[0]
    assert trial.intermediate_values == {}
    assert [tokens for tokens, _ in checkpoints_of(trial)] == [1000]


def test_objectives_without_a_meaning_are_refused(problem):
    study = problem.study(directions=["minimize"] * 2)
    with pytest.raises(ValueError, match="2 objectives and the space 4 targets"):
        study.optimize(two_losses(problem), n_trials=9)


def test_losses_cannot_be_maximised(problem):
    sampler = problem.sampler(objectives=GOALS)
    study = problem.study(sampler, directions=["minimize", "maximize"])
    with pytest.raises(ValueError, match="losses are minimised"):
        study.optimize(two_losses(problem), n_trials=9)


def test_another_number_of_objectives_is_refused(problem):
    study = problem.study(problem.sampler(objectives=GOALS))
    with pytest.raises(ValueError, match="2 `objectives`, but the study 1"):
        suggest_mixture(study.ask(), problem.space)


@pytest.mark.parametrize(
    ("goals", "message"),
    [
        (["cod"], "unknown target 'cod'; did you mean 'code'"),
        ([{}], "not all zero"),
        ([{"web": -1.0}], ">= 0"),
        ([{"web": math.nan}], ">= 0"),
        ([{"web": 0.0}], "not all zero"),
    ],
)
def test_objectives_are_checked_at_once(problem, goals, message):
    with pytest.raises(SpaceError, match=message):
        BiMixSampler(problem.space, objectives=goals)


def test_one_objective_may_have_weights_of_its_own(problem):
    study = problem.study(problem.sampler(objectives=["code"]))

    def objective(trial):
        losses = problem.losses(suggest_mixture(trial, problem.space))
        report_losses(trial, 1000, losses)
        return losses["code"]

    study.optimize(objective, n_trials=12)
    assert study.best_params["r_code"] > 0.6


def test_objective_values_weigh_by_any_positive_scale():
    losses = {"web": 3.0, "code": 1.0, "law": 2.0}
    assert objective_values(losses, ["web", {"code": 3, "law": 1, "web": 0}]) == (3.0, 1.25)
    assert math.isnan(objective_values({**losses, "web": math.nan}, ["web", "code"])[0])
    with pytest.raises(CurveError, match="'lav'; did you mean 'law'"):
        objective_values(losses, ["lav"])


def test_a_target_outside_all_objectives_still_counts_for_none():
    space = SearchSpace(["web", "code"], [Target("web"), Target("code"), Target("law")])
    assert goal_matrix(["law", {"web": 2, "code": 2}], space).tolist() == [[0, 0, 1], [0.5, 0.5, 0]]
