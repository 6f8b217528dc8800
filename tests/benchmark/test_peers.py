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


def test_mean_is_the_mean():
    losses = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])
    predicted = peers.mean(mixtures(2), losses, SPACE)(mixtures(4))
    np.testing.assert_allclose(predicted.losses, np.tile([2.0, 3.0, 4.0], (4, 1)))
    np.testing.assert_allclose(predicted.objective, 3.0)


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
