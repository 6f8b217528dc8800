import numpy as np
import pytest

from bimix_tune import write_curves
from bimix_tune.benchmark import choose, load_data, synthetic_data, synthetic_swarm
from bimix_tune.errors import CurveError


def names(data):
    return [s.name for d in data for s in d.swarms]


def test_one_swarm_for_each_scale_with_enough_runs_the_smallest_first(write_swarm, tmp_path):
    write_swarm(tmp_path / "all" / "first", scales=("60M", "1M"))
    write_swarm(tmp_path / "all" / "few", runs=19)
    (tmp_path / "all" / "notes.txt").write_text("no swarm")
    found = load_data(tmp_path / "all")
    assert names(found) == ["first 1M", "first 60M"]
    assert [d.pair and d.pair.name for d in found] == [None, "first 1M to 60M"]
    assert names(load_data(tmp_path / "all" / "first")) == ["first 1M", "first 60M"]


def test_curves_as_json_lines_are_a_data_set(swarm, tmp_path):
    write_curves(tmp_path / "mine" / "curves.jsonl", swarm.curves)
    ((loaded,),) = (d.swarms for d in load_data(tmp_path))
    assert loaded.name == "mine 1M"
    np.testing.assert_allclose(loaded.final, swarm.final)


def test_meta_says_which_domain_a_target_belongs_to(write_swarm, tmp_path):
    own = {"loss_domain 0": "domain 1", "loss_domain 1": None}
    (found,) = load_data(write_swarm(tmp_path / "a", own=own))
    assert found.swarms[0].space.own == (1, None, None)
    (found,) = load_data(write_swarm(tmp_path / "b"))
    assert found.swarms[0].space.own == (0, 1, 2)


def test_data_sets_and_single_swarms_can_be_chosen(write_swarm, tmp_path):
    for name in ("a", "b"):
        write_swarm(tmp_path / name, scales=("1M", "2M"))
    data = load_data(tmp_path)
    assert names(choose(data, ["a"])) == ["a 1M", "a 2M"]
    assert choose(data, ["a"])[0].pair is data[0].pair
    (one,) = choose(data, ["b 2M"])
    assert (names([one]), one.pair) == (["b 2M"], None)
    (pair,) = choose(data, ["b 1M to 2M"])
    assert (pair.swarms, pair.pair) == ((), data[1].pair)
    with pytest.raises(CurveError, match="no swarm 'a 3M'; did you mean 'a "):
        choose(data, ["a", "a 3M"])


def test_the_synthetic_swarm_repeats_itself_and_knows_its_truth():
    swarm = synthetic_swarm(runs=30)
    assert swarm.digest == synthetic_swarm(runs=30).digest
    assert synthetic_swarm(runs=30, seed=1).digest != swarm.digest
    off = np.log(swarm.final / swarm.truth)
    assert 0.003 < off.std() < 0.007
    np.testing.assert_allclose(synthetic_swarm(runs=20, noise=0).final, synthetic_swarm(20).truth)


def test_the_synthetic_scales_have_fresh_mixtures_and_lower_losses():
    pair = synthetic_data(runs=24, domains=3).pair
    assert pair.name == "synthetic 1M to 8M"
    assert not np.isclose(pair.big.proportions[0], pair.small.proportions).all(axis=1).any()
    assert pair.big.final.mean() < 0.85 * pair.small.final.mean()


def test_a_folder_without_swarms_is_refused(write_swarm, tmp_path):
    with pytest.raises(CurveError, match="no such folder"):
        load_data(tmp_path / "nothing")
    with pytest.raises(CurveError, match=r"expected runs\.csv"):
        load_data(tmp_path)
    with pytest.raises(CurveError, match="no model scale has 20 runs"):
        load_data(write_swarm(tmp_path / "few", runs=5))
    folder = write_swarm(tmp_path / "broken")
    (folder / "meta.json").write_text("[]")
    with pytest.raises(CurveError, match=r"meta\.json: expected an object"):
        load_data(folder)
