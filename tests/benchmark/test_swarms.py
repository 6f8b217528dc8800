import dataclasses

import numpy as np
import pytest

from bimix_tune import LossCurve, Mixture, write_curves
from bimix_tune.benchmark import load_swarms, swarms_of, synthetic_swarm
from bimix_tune.errors import CurveError

DOMAINS = ("web", "code")


def runs(count, tokens, scale="", targets=None, missing=()):
    rng = np.random.default_rng(0)
    curves = []
    for i in range(count):
        r = rng.dirichlet(np.ones(2))
        losses = rng.uniform(2, 3, (len(tokens), len(targets or DOMAINS)))
        losses[[tokens.index(t) for t in missing], 0] = np.nan
        curves.append(
            LossCurve(Mixture(DOMAINS, r), tokens, losses, targets, scale=scale, run=f"{i}")
        )
    return curves


def test_one_swarm_for_each_scale_with_enough_runs(write_swarm, tmp_path):
    write_swarm(tmp_path / "all" / "first", scales=("1M", "60M"))
    write_swarm(tmp_path / "all" / "few", runs=19)
    (tmp_path / "all" / "notes.txt").write_text("no swarm")
    assert [s.name for s in load_swarms(tmp_path / "all")] == ["first 1M", "first 60M"]
    assert [s.name for s in load_swarms(tmp_path / "all" / "first")] == ["first 1M", "first 60M"]


def test_curves_as_json_lines_are_a_data_set(swarm, tmp_path):
    write_curves(tmp_path / "mine" / "curves.jsonl", swarm.curves)
    (loaded,) = load_swarms(tmp_path)
    assert loaded.name == "mine"
    np.testing.assert_allclose(loaded.final, swarm.final)


def test_meta_says_which_domain_a_target_belongs_to(write_swarm, tmp_path):
    own = {"loss_domain 0": "domain 1", "loss_domain 1": None}
    (swarm,) = load_swarms(write_swarm(tmp_path / "a", own=own))
    assert swarm.space.own == (1, None, None)
    (swarm,) = load_swarms(write_swarm(tmp_path / "b"))
    assert swarm.space.own == (0, 1, 2)


def test_parts_of_targets_named_after_domains_do_not_count_twice():
    (swarm,) = swarms_of("a", runs(20, [10], targets=("web", "web news", "code")))
    assert swarm.space.target_names == ("web", "code")
    (swarm,) = swarms_of(
        "a", runs(20, [10], targets=("news", "forums", "science")), {"news": "web"}
    )
    assert swarm.space.own == (0, None, None)


def test_runs_are_judged_where_most_were_measured_and_cut_there():
    curves = runs(22, [10, 20, 30]) + runs(3, [10, 20, 30, 40]) + runs(2, [10, 20])
    (swarm,) = swarms_of("a", curves)
    assert swarm.tokens == 30
    assert len(swarm.curves) == 25
    assert {tuple(c.tokens) for c in swarm.curves} == {(10, 20, 30)}


def test_a_checkpoint_where_a_target_is_missing_is_not_judged():
    (swarm,) = swarms_of("a", runs(24, [10, 20, 30], missing=[30]))
    assert swarm.tokens == 20
    assert np.isfinite(swarm.final).all()


def test_earlier_checkpoints_of_a_few_runs_are_dropped():
    (swarm,) = swarms_of("a", runs(15, [30]) + runs(6, [10, 30]))
    assert {tuple(c.tokens) for c in swarm.curves} == {(30,)}


def test_runs_without_a_common_token_count_are_no_swarm():
    assert swarms_of("a", runs(15, [30]) + runs(15, [40])) == []


def test_the_synthetic_swarm_repeats_itself_and_knows_its_truth():
    swarm = synthetic_swarm(runs=30)
    again = synthetic_swarm(runs=30)
    assert swarm.digest == again.digest
    assert synthetic_swarm(runs=30, seed=1).digest != swarm.digest
    off = np.log(swarm.final / swarm.truth)
    assert 0.003 < off.std() < 0.007
    np.testing.assert_allclose(synthetic_swarm(runs=20, noise=0).final, synthetic_swarm(20).truth)


def test_the_digest_follows_the_data(swarm):
    assert dataclasses.replace(swarm, curves=swarm.curves[:-1]).digest != swarm.digest
    assert dataclasses.replace(swarm, truth=None).digest != swarm.digest


def test_a_folder_without_swarms_is_refused(write_swarm, tmp_path):
    with pytest.raises(CurveError, match="no such folder"):
        load_swarms(tmp_path / "nothing")
    with pytest.raises(CurveError, match=r"expected runs\.csv"):
        load_swarms(tmp_path)
    with pytest.raises(CurveError, match="no model scale has 20 runs"):
        load_swarms(write_swarm(tmp_path / "few", runs=5))
    folder = write_swarm(tmp_path / "broken")
    (folder / "meta.json").write_text("[]")
    with pytest.raises(CurveError, match=r"meta\.json: expected an object"):
        load_swarms(folder)
