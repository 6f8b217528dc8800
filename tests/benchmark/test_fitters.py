import importlib.util

import numpy as np
import pytest

from bimix_tune.benchmark import contenders
from bimix_tune.benchmark import contenders as _names
from bimix_tune.benchmark.fitters import WITH_SMALL, code_digest, fitted
from bimix_tune.benchmark.judging import judge
from bimix_tune.benchmark.tasks import plan
from bimix_tune.errors import ConfigError
from bimix_tune.laws import LAWS, fit
from bimix_tune.laws.peers import PEERS as PUBLISHED

MODULE = "bimix_tune.benchmark.fitters"


def one_task(data, law, kind="final", n=12):
    return plan([data], [law], [kind], [n], 1)[0][0]


def order(data, law, kind="final"):
    """Mean rank correlation over four draws: losses differ by one percent in all, which is little
    more than twice the noise, so that a single draw of 12 runs says little."""
    return np.mean([judge(task).spearman for task in plan([data], [law], [kind], [12], 4)[0]])


OURS = [law for law in LAWS if law not in PUBLISHED]
SMOOTH = [law for law in PUBLISHED if law != "lightgbm"]


@pytest.mark.parametrize("law", OURS)
def test_laws_are_judged_with_their_interval(data, law):
    result = judge(one_task(data, law))
    assert result.failure == ""
    assert result.error < 0.06
    assert 0.0 <= result.coverage <= 1.0
    assert result.width > 0
    assert result.seconds > 0


@pytest.mark.parametrize("law", SMOOTH)
def test_published_laws_are_judged_without_an_interval(data, law):
    result = judge(one_task(data, law))
    assert result.failure == ""
    assert result.error < 0.06
    assert np.isnan(result.coverage)


def test_the_law_behind_the_synthetic_swarm_beats_the_mean(data):
    transfer, mean = (judge(one_task(data, law)) for law in ("transfer", "mean"))
    assert transfer.error < 0.3 * mean.error
    assert order(data, "transfer") > 0.8
    assert mean.spearman == 0.0
    assert np.isnan(mean.coverage)
    assert np.isnan(mean.width)


def test_a_law_extrapolates_what_the_mean_cannot(data):
    transfer, mean = (judge(one_task(data, law, "extrapolate")) for law in ("transfer", "mean"))
    assert transfer.error < 0.02 < 0.1 < mean.error
    assert order(data, "transfer", "extrapolate") > 0.8


def test_small_runs_are_asked_for_the_scale_of_the_big_ones(data, monkeypatch):
    asked = {}

    def both(curves, space, law="auto", scale=None, judge=True):
        asked.update(scales=[c.scale for c in curves], scale=scale, law=law)
        return fit(curves, space, law, scale=scale, judge=judge)

    monkeypatch.setattr(f"{MODULE}.fit", both)
    result = judge(one_task(data, WITH_SMALL, "scales"))
    assert result.failure == ""
    assert asked == {"scales": ["1M"] * 24 + ["8M"] * 2, "scale": "8M", "law": "auto"}


def test_a_peer_sees_the_ends_only(data):
    task = one_task(data, "mean")
    predicted = fitted("mean", task.fitted, task.space, task.tokens)(task.r)
    expected = np.mean([c.losses[-1] for c in task.fitted], axis=0)
    np.testing.assert_allclose(predicted.losses, np.tile(expected, (len(task.r), 1)))


def test_unknown_laws_are_refused():
    with pytest.raises(ConfigError, match="unknown law 'bimx'; did you mean 'bimix'"):
        contenders(["mean", "bimx"])
    with pytest.raises(ConfigError, match="no law to compare: none was named"):
        contenders([])


def test_a_peer_without_its_library_is_left_out_with_a_word(monkeypatch):
    everything = {*_names()[0], "lightgbm", "gp-objective"}
    assert {*OURS, *SMOOTH, WITH_SMALL, "mean"} <= everything
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    names, notes = contenders()
    assert everything - set(names) == {"lightgbm", "gp-objective"}
    assert notes[0] == "lightgbm is left out: 'lightgbm' is not installed"
    with pytest.raises(ConfigError, match="no law to compare: lightgbm is left out"):
        contenders(["lightgbm"])


def test_the_code_has_a_digest():
    assert len(code_digest()) == 12
