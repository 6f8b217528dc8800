"""Studies with constraints on something other than the proportions."""

import numpy as np
import optuna
import pytest

from bimix_tune import report_losses, suggest_mixture
from bimix_tune.constraints import MARGIN, Limited, constraints_of
from bimix_tune.evidence import evidence_of


def cost(mixture):
    """Feasible up to zero; the best mixture without it has 0.5."""
    return 3 * mixture["code"] + 2 * mixture["law"] ** 2 - 0.6


def constrain(trial, values):
    """As `Trial.set_constraint`, or a sampler's ``constraints_func`` before Optuna 5, does."""
    if hasattr(trial, "set_constraint"):
        for name, value in values.items():
            trial.set_constraint(name, value)
    else:
        storage = trial.study._storage
        storage.set_trial_system_attr(trial._trial_id, "constraints", list(values.values()))


def objective_of(problem, recorded):
    def objective(trial):
        mixture = suggest_mixture(trial, problem.space)
        constrain(trial, {"cost": cost(mixture)})
        losses = problem.losses(mixture)
        return report_losses(trial, 1000, losses) if recorded else np.mean(list(losses.values()))

    return objective


@pytest.mark.parametrize("recorded", [True, False], ids=["losses", "values"])
def test_the_search_ends_at_the_best_feasible_mixture(problem, recorded):
    study = problem.study()
    study.optimize(objective_of(problem, recorded), n_trials=20)
    feasible = [t for t in study.trials if max(constraints_of(t).values()) <= 0]
    r, losses = problem.table(20_000)
    allowed = np.array([cost(problem.space.mixture(row)) <= 0 for row in r])
    best = losses[allowed].mean(axis=1).min()
    assert losses.mean(axis=1).min() < best - 0.1  # the constraint bites
    assert best - 0.005 < min(t.value for t in feasible) < best + 0.02
    assert len([t for t in feasible if t.number >= 12]) >= 4


def test_infeasible_trials_teach_the_law(problem):
    study = problem.study()
    study.optimize(objective_of(problem, True), n_trials=6)
    evidence = evidence_of(study, problem.space, None)
    assert len(evidence.curves) == 6
    assert evidence.space.target_names == (*problem.names, "constraint cost") or (
        evidence.space.target_names == (*problem.names, "constraint 0")
    )
    assert evidence.space.weights[-1] == 0
    values = np.array([max(constraints_of(t).values()) for t in study.trials])
    found = np.array([c.losses[-1, -1] for c in evidence.curves])
    assert ((found <= evidence.limits[-1]) == (values <= 0)).all()
    assert found.min() == 1


def test_values_of_constraints_in_both_of_optunas_forms():
    trial = optuna.trial.create_trial(
        value=0.0, system_attrs={"constraints": (1.0, -2.0), "constraints:memory": 3.0}
    )
    assert constraints_of(trial) == {"0": 1.0, "1": -2.0, "memory": 3.0}
    broken = optuna.trial.create_trial(value=0.0, system_attrs={"constraints": (np.nan, 1.0)})
    assert constraints_of(broken) == {"1": 1.0}


def test_constraints_of_few_trials_or_without_effect_are_left_out(problem):
    study = problem.study()

    def objective(trial):
        if trial.number < 3:
            constrain(trial, {"rare": trial.number})
        return problem.objective(trial)

    study.optimize(objective, n_trials=7)
    assert evidence_of(study, problem.space, None).space is problem.space
    for _ in range(5):
        trial = study.ask()
        suggest_mixture(trial, problem.space)
        constrain(trial, {"same": 1.0})
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert evidence_of(study, problem.space, None).space is problem.space


def test_the_price_begins_before_the_limit_and_has_the_right_slope():
    limited = Limited(np.array([np.inf, 1.5]), scale=0.1)
    weights = np.array([1.0, 0.0])
    free = np.array([[2.0, 1.5 - MARGIN], [2.0, 1.0]])
    assert limited.value(free, weights).tolist() == [2.0, 2.0]
    at = np.array([2.0, 1.52])
    steps = 1e-6 * np.eye(2)
    up, down = limited.value(at + steps, weights), limited.value(at - steps, weights)
    assert limited.gradient(at, weights) == pytest.approx((up - down) / 2e-6, rel=1e-6)
