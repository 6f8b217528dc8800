import dataclasses

import numpy as np

from bimix_tune import LossCurve, Mixture
from bimix_tune.benchmark import data_set

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


def swarms_of(curves, own=None):
    return data_set("a", curves, own).swarms


def test_parts_of_targets_named_after_domains_do_not_count_twice():
    (swarm,) = swarms_of(runs(20, [10], targets=("web", "web news", "code")))
    assert swarm.space.target_names == ("web", "code")
    (swarm,) = swarms_of(runs(20, [10], targets=("news", "forums", "science")), {"news": "web"})
    assert swarm.space.own == (0, None, None)


def test_runs_are_judged_where_most_were_measured_and_cut_there():
    curves = runs(22, [10, 20, 30]) + runs(3, [10, 20, 30, 40]) + runs(2, [10, 20])
    (swarm,) = swarms_of(curves)
    assert swarm.tokens == 30
    assert len(swarm.curves) == 25
    assert {tuple(c.tokens) for c in swarm.curves} == {(10, 20, 30)}


def test_a_checkpoint_where_a_target_is_missing_is_not_judged():
    (swarm,) = swarms_of(runs(24, [10, 20, 30], missing=[30]))
    assert swarm.tokens == 20
    assert np.isfinite(swarm.final).all()


def test_earlier_checkpoints_of_a_few_runs_are_dropped():
    (swarm,) = swarms_of(runs(15, [30]) + runs(6, [10, 30]))
    assert {tuple(c.tokens) for c in swarm.curves} == {(30,)}


def test_runs_without_a_common_token_count_are_no_swarm():
    assert swarms_of(runs(15, [30]) + runs(15, [40])) == ()


def test_the_pair_is_the_smallest_scale_of_many_runs_and_the_largest_of_some():
    found = data_set(
        "a",
        runs(4, [30], "2B")
        + runs(6, [30], "1B")
        + runs(26, [30], "160M")
        + runs(18, [10, 20], "70M")
        + runs(14, [30], "10M"),
    )
    assert [s.name for s in found.swarms] == ["a 160M"]
    assert found.pair.name == "a 70M to 1B"
    assert (found.pair.small.tokens, found.pair.big.tokens) == (20, 30)
    assert (len(found.pair.small.curves), len(found.pair.big.curves)) == (18, 6)
    assert found.pair.big.scale == "1B"
    assert found.unpaired == ""


def test_scales_that_cannot_be_paired_say_so():
    for curves in (
        runs(26, [30], "1B") + runs(4, [30], "2B"),
        runs(26, [30], "1B") + runs(6, [30], "70M"),
        runs(26, [30], "small") + runs(6, [30], "large"),
    ):
        found = data_set("a", curves)
        assert found.pair is None
        assert found.unpaired == "no scale of 15 runs below one of 5"


def test_the_digest_follows_the_data(data):
    (swarm,) = data.swarms
    assert dataclasses.replace(swarm, curves=swarm.curves[:-1]).digest != swarm.digest
    assert dataclasses.replace(swarm, truth=None).digest != swarm.digest
    assert dataclasses.replace(data.pair, small=data.pair.big).digest != data.pair.digest
