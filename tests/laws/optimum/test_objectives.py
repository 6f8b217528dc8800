"""Objectives say one number about losses, its slope, and what is wrong with a request."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bimix_tune.errors import FitError
from bimix_tune.laws.optimum.objectives import (
    Custom,
    Mean,
    Objective,
    Regret,
    Worst,
    as_objective,
    greatest,
)

TARGETS = ("web", "code", "books")
REFERENCE = {"web": 3.0, "code": 1.0, "books": 2.5}
LOSSES = arrays(float, 3, elements=st.floats(0.1, 9.0))
WEIGHTS = np.array([0.5, 0.0, 0.25])


def bits(losses):
    return sum(math.log2(1 + loss) for loss in losses.values())


@pytest.mark.parametrize("wanted", ["mean", "worst", Regret(REFERENCE), Custom(bits, True), bits])
@given(LOSSES)
def test_gradient_is_the_slope(wanted, losses):
    losses = losses + np.array([0.0, 0.013, 0.029])  # seldom are two equal
    objective = as_objective(wanted, TARGETS)
    weights = np.array([0.5, 0.2, 0.25])
    steps = 1e-6 * np.eye(3)
    up, down = (objective.value(losses + s, weights) for s in (steps, -steps))
    slope = (up - down) / 2e-6
    kink = isinstance(objective, Worst | Regret) and np.abs(slope - slope.round()).max() > 1e-6
    if not kink:
        np.testing.assert_allclose(objective.gradient(losses, weights), slope, atol=1e-6)


@pytest.mark.parametrize("wanted", ["mean", "worst", Regret(REFERENCE), bits])
def test_values_of_many_mixtures(wanted):
    losses = np.random.default_rng(0).uniform(1, 4, (2, 5, 3))
    objective = as_objective(wanted, TARGETS)
    assert isinstance(objective, Objective)
    values = objective.value(losses, WEIGHTS)
    assert values.shape == (2, 5)
    assert values[1, 3] == pytest.approx(float(objective.value(losses[1, 3], WEIGHTS)))


def test_values_by_hand():
    losses = np.array([3.5, 9.0, 2.0])
    assert Mean().value(losses, WEIGHTS) == pytest.approx((0.5 * 3.5 + 0.25 * 2) / 0.75)
    assert Worst().value(losses, WEIGHTS) == 3.5  # the 9 has no weight
    assert as_objective(Regret(REFERENCE), TARGETS).value(losses, WEIGHTS) == 0.5
    assert as_objective(lambda by: by["code"], TARGETS).value(losses, WEIGHTS) == 9.0
    most = Custom(lambda by: by["code"], maximise=True).bind(TARGETS)
    assert most.value(losses, WEIGHTS) == -9.0


def test_which_objectives_are_greatest_losses():
    assert greatest(Mean(), 3) is None
    assert greatest(Custom(bits), 3) is None
    np.testing.assert_array_equal(greatest(Worst(), 3), np.zeros(3))
    np.testing.assert_array_equal(greatest(Regret(REFERENCE).bind(TARGETS), 3), [3.0, 1.0, 2.5])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("wurst", "unknown objective 'wurst'; did you mean 'worst'"),
        (7, "an objective is a name .* but got 7"),
        (Worst, "the objective is a class, Worst"),
        (Regret({"web": 1.0, "code": 1.0}), r"no loss for \['books'\]"),
        (Regret({**REFERENCE, "boks": 1.0}), "'boks', which is no target; did you mean 'books'"),
    ],
)
def test_what_is_no_objective(wanted, message):
    with pytest.raises(FitError, match=message):
        as_objective(wanted, TARGETS)


@pytest.mark.parametrize("loss", [math.nan, math.inf, "2.5", None])
def test_reference_losses_are_numbers(loss):
    with pytest.raises(FitError, match=r"reference loss of 'web' must be a finite number"):
        Regret({"web": loss})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda by: by["cod"], "asks for the loss of 'cod'; did you mean 'code'"),
        (lambda by: math.nan, "must be finite, but is nan at losses"),
        (lambda by: "low", "must give a number, but gave 'low'"),
        (lambda by: None, "must give a number, but gave None"),
    ],
)
def test_functions_that_give_no_number(function, message):
    with pytest.raises(FitError, match=message):
        as_objective(function, TARGETS).value(np.ones(3), WEIGHTS)


def test_a_defect_of_the_function_is_no_error_of_ours():
    with pytest.raises(KeyError, match="web"):
        as_objective(lambda by: {}["web"], TARGETS).value(np.ones(3), WEIGHTS)


@pytest.mark.parametrize("wanted", ["mean", "worst", Regret(REFERENCE), bits])
def test_losses_that_are_not_finite(wanted):
    with pytest.raises(FitError, match=r"losses must be finite numbers, but are \[1.0, nan, 1.0\]"):
        as_objective(wanted, TARGETS).value(np.array([[1, 1, 1], [1, np.nan, 1]]), WEIGHTS)


@pytest.mark.parametrize("objective", [Regret(REFERENCE), Custom(bits)])
def test_the_order_of_targets_is_never_guessed(objective):
    with pytest.raises(FitError, match="must know the order of the targets"):
        objective.value(np.ones(3), WEIGHTS)
