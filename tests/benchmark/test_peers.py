import importlib.util

import numpy as np
import pytest

from bimix_tune.benchmark import peers
from bimix_tune.benchmark.peers import PEERS, missing_library
from bimix_tune.space import SearchSpace, Target

NAMES = ("web", "code", "books")
SPACE = SearchSpace(NAMES)
INSTALLED = [name for name in PEERS if missing_library(name) is None]


def mixtures(count, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(3), size=count)


def recovered(peer, truth, runs, space=SPACE):
    """Greatest relative error on mixtures that were not fitted."""
    predict = peer(mixtures(runs), truth(mixtures(runs)), space)
    fresh = mixtures(40, seed=1)
    return np.abs(predict(fresh).losses / truth(fresh) - 1).max()


def test_mean_is_the_mean():
    losses = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    predicted = peers.mean(mixtures(2), losses, SPACE)(mixtures(4))
    np.testing.assert_allclose(predicted.losses, np.tile([2.0, 3.0, 4.0], (4, 1)))
    np.testing.assert_allclose(predicted.objective, 3.0)


def test_bimix_paper_recovers_a_power_of_the_own_proportion():
    def truth(r):
        return np.array([2.0, 3.0, 1.5]) * np.maximum(r, 5e-4) ** -np.array([0.1, 0.3, 0.0])

    assert recovered(peers.bimix_paper, truth, 4) < 1e-9


def test_bimix_paper_reads_a_zero_as_the_smallest_share_and_knows_owners():
    space = SearchSpace(NAMES, [Target("a", domain="code"), Target("other")])
    r = np.array([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [0.3, 0.7, 0.0]])
    losses = np.column_stack([2.0 * r[:, 1] ** -0.2, [3.0, 3.0, 3.0]])
    predicted = peers.bimix_paper(r, losses, space)(np.array([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(predicted.losses, [[2.0 * 5e-4**-0.2, 3.0]])


def test_bimix_paper_has_no_negative_exponent():
    rising = mixtures(8) + 1.0
    predicted = peers.bimix_paper(mixtures(8), rising, SPACE)(mixtures(5, seed=1))
    np.testing.assert_allclose(np.ptp(predicted.losses, axis=0), 0.0, atol=1e-12)


def test_mixing_law_recovers_an_exponential_above_a_floor():
    t = np.array([[-1.5, 0.3, 0.5], [0.2, -2.5, 0.1], [0.3, 0.0, -1.0]])

    def truth(r):
        return np.array([1.0, 2.0, 0.5]) + np.exp(r @ t.T)

    assert recovered(peers.mixing_law, truth, 16) < 1e-3


def test_mixing_law_does_not_explode_with_few_runs():
    rng = np.random.default_rng(0)
    space = SearchSpace([str(i) for i in range(17)])
    r = rng.dirichlet(np.full(17, 0.2), size=56)
    losses = 3 + (0.01 + r) ** -0.1
    predicted = peers.mixing_law(r[:16], losses[:16], space)(r[16:]).losses
    spread = np.ptp(losses[:16], axis=0)
    assert (predicted <= losses[:16].max(axis=0) + spread + 1e-9).all()
    assert (predicted >= losses[:16].min(axis=0) - 0.5 * spread - 1e-9).all()


def test_log_linear_recovers_an_exponential_without_one():
    t = np.array([[-1.5, 0.3, 0.5], [0.2, -2.5, 0.1], [0.3, 0.0, -1.0]])

    def truth(r):
        return np.exp(0.3 + r @ t.T)

    assert recovered(peers.log_linear, truth, 6) < 1e-4


def test_log_linear_with_noise_alone_shrinks_towards_the_mean():
    rng = np.random.default_rng(0)
    losses = 3.0 * np.exp(0.05 * rng.standard_normal((12, 3)))
    predicted = peers.log_linear(mixtures(12), losses, SPACE)(mixtures(50, seed=1)).losses
    plain = np.linalg.lstsq(mixtures(12), np.log(losses), rcond=None)[0]
    assert predicted.std() < 0.5 * np.exp(mixtures(50, seed=1) @ plain).std()


def test_lightgbm_finds_a_step():
    pytest.importorskip("lightgbm")
    r = mixtures(200)
    losses = np.where(r > 0.3, 2.0, 3.0)
    fresh = mixtures(50, seed=1)
    wrong = np.abs(peers.lightgbm(r, losses, SPACE)(fresh).losses - np.where(fresh > 0.3, 2, 3))
    assert (wrong > 0.5).mean() < 0.05


def test_gp_objective_interpolates_and_knows_where_it_does_not():
    pytest.importorskip("sklearn")

    def truth(r):
        return (0.05 + r) ** -0.2

    predict = peers.gp_objective(mixtures(40), truth(mixtures(40)), SPACE)
    fresh = mixtures(40, seed=1)
    predicted, aim = predict(fresh), truth(fresh).mean(axis=1)
    assert predicted.losses is None
    assert 1 - ((predicted.objective - aim) ** 2).sum() / ((aim - aim.mean()) ** 2).sum() > 0.9
    corner, known = predict(np.eye(3)).sd, predict(mixtures(40)).sd
    assert corner.min() > known.max()


@pytest.mark.parametrize("name", INSTALLED)
def test_every_peer_takes_a_domain_that_never_varies(name):
    space = SearchSpace((*NAMES, "unused"), [Target("web", 3, "web"), Target("other", 1)])
    r = np.column_stack([mixtures(10), np.zeros(10)])
    losses = np.column_stack([(0.1 + r[:, 0]) ** -0.2, 2 - 0.1 * r[:, 1]])
    predicted = PEERS[name](r, losses, space)(r[:4])
    assert predicted.objective.shape == (4,)
    assert np.isfinite(predicted.objective).all()
    if predicted.losses is not None:
        assert predicted.losses.shape == (4, 2)
        np.testing.assert_allclose(predicted.objective, predicted.losses @ [0.75, 0.25])


def test_a_library_that_is_missing_is_named(monkeypatch):
    assert missing_library("mean") is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing_library("lightgbm") == "lightgbm"
    assert missing_library("gp-objective") == "sklearn"
