import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from bimix_tune import LossCurve, Mixture
from bimix_tune.early_stopping import (
    Course,
    HeldOut,
    Line,
    Prediction,
    judge,
    should_stop,
    verdict,
)


def runs(n=12, noise=0.05, seed=0):
    """Early and final objectives that go together, each (n,)."""
    rng = np.random.default_rng(seed)
    early = rng.normal(3, 0.3, n)
    return early, 0.5 + 0.8 * early + rng.normal(0, noise, n)


def test_prediction_matches_the_textbook_prediction_interval():
    early, final = runs()
    now = 3.4
    fit = stats.linregress(early, final)
    residual = final - fit.intercept - fit.slope * early
    s2 = residual @ residual / 10
    spread = (now - early.mean()) ** 2 / ((early - early.mean()) ** 2).sum()
    predicted = Line(early, final).predict(now)
    assert predicted.centre == pytest.approx(fit.intercept + fit.slope * now, abs=1e-12)
    assert predicted.scale == pytest.approx(math.sqrt(s2 * (1 + 1 / 12 + spread)), abs=1e-12)
    assert predicted.freedom == 10


@pytest.mark.parametrize("freedom", [2, 3, 10, 100])
@pytest.mark.parametrize("best", [-4.0, 0.3, 1.0, 6.0])
def test_improvement_and_chance_are_integrals_of_the_density(best, freedom):
    predicted = Prediction(0.7, 1.3, freedom)
    density = stats.t(freedom, 0.7, 1.3).pdf
    gain = integrate.quad(lambda y: (best - y) * density(y), -np.inf, best)[0]
    chance = integrate.quad(density, -np.inf, best)[0]
    assert predicted.improvement(best) == pytest.approx(gain, rel=1e-6)
    assert predicted.chance(best) == pytest.approx(chance, rel=1e-6)


def test_a_certain_prediction_improves_by_its_distance():
    assert Prediction(2.0, 0.0, 4).improvement(3.0) == 1.0
    assert Prediction(2.0, 0.0, 4).improvement(1.0) == 0.0
    assert Prediction(2.0, 0.0, 4).chance(3.0) == 1.0
    assert Prediction(2.0, 0.0, 4).chance(2.0) == 0.0


@pytest.mark.parametrize("n", [5, 6, 12])
def test_held_out_predictions_are_those_of_lines_through_the_others(n):
    early, final = runs(n)
    held_out = Line(early, final).held_out()
    for i in range(n):
        other = Line(np.delete(early, i), np.delete(final, i)).predict(early[i])
        assert held_out.errors[i] == pytest.approx(final[i] - other.centre, abs=1e-10)
        assert held_out.scales[i] == pytest.approx(other.scale, abs=1e-10)


def test_skill_is_the_squared_error_saved_over_the_mean_of_the_others():
    early, final = runs()
    held_out = Line(early, final).held_out()
    plain = [final[i] - np.delete(final, i).mean() for i in range(len(final))]
    assert held_out.skill == pytest.approx(1 - (held_out.errors**2).sum() / np.square(plain).sum())
    assert held_out.skill > 0.8


def test_nothing_is_earned_where_early_values_predict_no_better_than_the_mean():
    early = np.array([0.0, 1.0] * 4)
    final = np.array([1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.1])
    line = Line(early, final)
    assert line.slope > 0
    assert line.held_out().skill <= 0
    assert not judge(early, final, 99.0, 8, 0.9).earned
    early, final = runs()
    assert not judge(-early, final, 99.0, 12, 0.9).earned  # falling


def test_nothing_is_earned_while_the_best_run_would_have_been_stopped():
    early = np.append(np.linspace(3.0, 4.0, 12), 3.9)
    final = np.append(np.linspace(2.0, 3.0, 12), 1.99)  # late bloomer, by a hair
    rng = np.random.default_rng(0)
    final[:12] += rng.normal(0, 0.004, 12)
    best = int(final.argmin())
    held_out = Line(early, final).held_out()
    assert best == 12
    assert not held_out.would_keep_the_best(0.01)
    assert held_out.skill > 0
    assert not judge(early, final, 9.0, 13, 0.5).earned
    assert judge(early[:12], final[:12], 9.0, 13, 0.5).stop


def test_the_best_is_judged_against_the_best_of_the_others():
    held_out = HeldOut(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.zeros(5), np.zeros(5))
    assert held_out.would_keep_the_best(0.99)  # predicted right, it improves on 2 by 1
    assert not held_out.would_keep_the_best(1.0)


def test_the_allowance_is_a_share_of_the_gain_over_the_median():
    early, final = runs()
    told = judge(early, final, 3.4, 19, 0.9)
    assert told.allowance == pytest.approx(0.1 * (np.median(final) - final.min()) / 20)
    nearest = np.argsort(np.abs(early - 3.4))[:6]  # half of the twelve
    predicted = Line(early[nearest], final[nearest]).predict(3.4)
    assert told.improvement == pytest.approx(predicted.improvement(final.min()), rel=1e-9)
    assert told.chance == pytest.approx(predicted.chance(final.min()), rel=1e-9)


@given(st.floats(0.01, 100), st.floats(-50, 50), st.floats(2.0, 4.0))
def test_verdicts_do_not_depend_on_unit_and_zero_of_the_objective(unit, zero, now):
    early, final = runs()
    one = judge(early, final, now, 12, 0.9)
    other = judge(unit * early + zero, unit * final + zero, unit * now + zero, 12, 0.9)
    assert other.improvement / unit == pytest.approx(one.improvement, rel=1e-4, abs=1e-9)
    assert other.earned == one.earned


@given(st.floats(2.0, 4.0), st.floats(0, 1))
def test_a_worse_run_is_expected_to_improve_less(now, more):
    early, final = runs(noise=0.02)
    line = Line(early, final)
    near = line.predict(now).centre
    assert line.predict(now + more).centre >= near


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0, 30.0])
def test_what_stopping_loses_stays_below_what_is_stated(noise):
    rng = np.random.default_rng(5)
    n, searches, confidence = 25, 150, 0.9
    lost, stated = [], []
    for _ in range(searches):
        early = rng.normal(0, 1, n)
        final = early + rng.normal(0, noise, n)
        courses: list[Course] = []
        shares = 0.0
        for a, b in zip(early, final, strict=True):
            told = verdict(1.0, a, courses, confidence, 6)
            shares += told.allowance * told.stop
            courses.append(Course(np.array([1.0, 2.0]), np.array([a, b]), None if told.stop else b))
        kept = min(c.final for c in courses if c.final is not None)
        lost.append(kept - final.min())
        stated.append(shares)
    assert np.mean(lost) <= np.mean(stated)
    assert np.mean(lost) <= 0.02 * final.std()


def test_most_hopeless_runs_are_stopped_where_early_values_tell():
    rng = np.random.default_rng(3)
    early = rng.normal(0, 1, 12)
    final = early + rng.normal(0, 0.1, 12)
    told = [judge(early, final, x, 12, 0.9).stop for x in final.min() + np.linspace(0.5, 2, 20)]
    assert np.mean(told) > 0.9


def test_no_run_is_stopped_at_or_after_the_end_of_the_others():
    rng = np.random.default_rng(0)
    ended = [
        Course(np.array([10.0, 20.0, 40.0]), np.array([y + 2, y + 1, y]), y)
        for y in 3 + rng.random(8)
    ]
    assert verdict(10, 9.0, ended, 0.9, 6).stop
    assert verdict(20, 9.0, ended, 0.9, 6).stop
    for step in (5, 21, 40, 50):  # before the first, towards the end, at it, past it
        assert not verdict(step, 9.0, ended, 0.9, 6).earned


def test_between_checkpoints_the_others_are_interpolated():
    course = Course(np.array([10.0, 20.0, 40.0]), np.array([5.0, 4.0, 1.0]), 1.0)
    assert course.before_the_end(15) == 4.5
    assert math.isnan(course.before_the_end(30))
    assert math.isnan(Course(np.array([10.0]), np.array([5.0]), 5.0).before_the_end(10))


floats = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=300)
@given(st.lists(st.tuples(floats, floats), max_size=9), floats, st.integers(0, 30))
def test_odd_numbers_never_raise(pairs, now, ended):
    early, final = np.array(pairs, dtype=float).reshape(-1, 2).T
    told = judge(early, final, now, ended, 0.9)
    assert not math.isnan(told.chance)
    if not math.isfinite(now):
        assert not told.stop


def curve(level, share=0.5, steps=4, targets=("a", "b")):
    tokens = [100, 200, 300, 400][:steps]
    losses = [[level + 3 - s / 200 + share, level + 3 - s / 200 - share] for s in tokens]
    return LossCurve(Mixture(["x", "y"], [0.5, 0.5]), tokens, losses, targets)


def mean(losses):
    return losses.mean(axis=-1)


def test_curves_are_judged_by_any_objective_outside_of_optuna():
    rng = np.random.default_rng(0)
    ended = [curve(level) for level in rng.random(8)]
    complete = [True] * 8
    assert should_stop(curve(2.0, steps=1), ended, complete, mean)
    assert not should_stop(curve(-0.5, steps=1), ended, complete, mean)
    assert not should_stop(curve(2.0, steps=1), ended, [True] * 5 + [False] * 3, mean)
    assert not should_stop(curve(2.0), ended, complete, mean)  # it is at its end


def test_targets_are_matched_by_name():
    levels = np.random.default_rng(0).random(8)
    ended = [curve(level) for level in levels]
    turned = [
        LossCurve(c.mixture, c.tokens, c.losses[:, ::-1], ("b", "a")) for c in ended[:4]
    ] + ended[4:]

    def first(losses):
        return losses[:, 0]

    for now in (curve(2.0, steps=2), curve(-0.5, steps=2)):
        plain = should_stop(now, ended, [True] * 8, first)
        assert should_stop(now, turned, [True] * 8, first) == plain
    other = [curve(level, targets=("a", "c")) for level in levels]
    assert not should_stop(curve(2.0, steps=1), other, [True] * 8, mean)
