import math

import numpy as np
import pytest

from bimix_tune.benchmark.scores import Prediction, coverage, regret, score, spearman, width

HALVES = np.array([0.5, 0.5])


def test_scores_of_two_runs_by_hand():
    losses = np.array([[1.0, 2.0], [2.0, 4.0]])
    truth = np.array([[1.0, 4.0], [2.0, 2.0]])
    predicted = Prediction(losses, losses @ HALVES, np.array([0.6, 0.4]))
    scores = score(predicted, truth, truth, HALVES)
    assert scores.error == pytest.approx((0.0 + 0.5 + 0.0 + 1.0) / 4)
    # Objectives: predicted 1.5 and 3, true 2.5 and 2; the mean is off by 0.25 twice.
    assert scores.r2 == pytest.approx(1 - (1.0 + 1.0) / (2 * 0.25**2))
    assert scores.spearman == pytest.approx(-1)
    assert scores.regret == 1.0
    assert scores.coverage == 0.5
    assert scores.width == pytest.approx(1.96 * 0.5 / 0.25, rel=1e-4)


def test_coverage_is_of_measured_losses_and_errors_are_of_the_truth():
    truth = np.array([[1.0], [2.0]])
    predicted = Prediction(truth, truth[:, 0], np.array([0.1, 0.1]))
    scores = score(predicted, truth, truth + np.array([[0.19], [0.2]]), np.ones(1))
    assert scores.error == 0.0
    assert scores.coverage == 0.5


def test_a_model_without_losses_or_interval_is_judged_by_its_objective():
    truth = np.array([[1.0], [2.0], [3.0]])
    scores = score(Prediction(None, np.array([1.0, 3.0, 2.0])), truth, truth, np.ones(1))
    assert math.isnan(scores.error)
    assert math.isnan(scores.coverage)
    assert math.isnan(scores.width)
    assert scores.spearman == pytest.approx(0.5)


def test_a_constant_ranks_nothing_and_its_regret_is_that_of_chance():
    true = np.array([1.0, 2.0, 6.0])
    assert spearman(np.ones(3), true) == 0.0
    assert regret(np.ones(3), true) == pytest.approx((3.0 - 1.0) / 5.0)


def test_a_truth_without_differences_has_no_scores():
    flat = np.ones((3, 1))
    scores = score(Prediction(flat, np.arange(3.0)), flat, flat, np.ones(1))
    assert all(math.isnan(v) for v in (scores.r2, scores.spearman, scores.regret, scores.width))


def test_ties_share_their_rank():
    # Ranks 1.5, 1.5, 3 against 1, 2, 3: covariance 0.5, variances 0.5 and 2/3 (times n).
    assert spearman(np.array([0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(
        0.75**0.5
    )


def test_no_interval_no_coverage():
    assert math.isnan(coverage(Prediction(None, np.ones(2)), np.ones(2)))


def test_an_interval_of_the_spread_itself_is_two_deviations_wide():
    measured = np.random.default_rng(0).normal(3.0, 0.2, 1000)
    guess = Prediction(None, np.full(1000, 3.0), np.full(1000, measured.std()))
    assert width(guess, measured) == pytest.approx(1.96, rel=1e-4)
    assert coverage(guess, measured) == pytest.approx(0.95, abs=0.02)
