"""Curves as arrays: what is lifted to the end, what the falls are, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune.curves import LossCurve
from bimix_tune.errors import FitError
from bimix_tune.laws.observations import EARLIER_WEIGHT, TYPICAL_NOISE, observe
from bimix_tune.mixture import Mixture
from bimix_tune.space import SearchSpace, Target

SPACE = SearchSpace(["a", "b"])
TOKENS = np.array([1e6, 2e6, 4e6])


def curve(share, log_losses, decayed=(False, False, True), tokens=TOKENS, **fields):
    """A run of proportions ``share, 1 - share``; log losses (S, 2)."""
    count = len(log_losses)
    mixture = Mixture(SPACE.names, [share, 1 - share])
    return LossCurve(mixture, tokens[:count], np.exp(log_losses), None, decayed[:count], **fields)


def random_curves(seed, count=5, noise=0.1):
    rng = np.random.default_rng(seed)
    base = np.array([[1.5, 1.2], [1.2, 1.0], [1.0, 0.9]])
    return [
        curve(s, base + noise * rng.standard_normal((3, 2)), run=f"r{n}")
        for n, s in enumerate(rng.uniform(0.1, 0.9, count))
    ]


def logs(curves):
    return np.stack([np.log(c.losses) for c in curves])  # (R, S, V)


def test_complete_runs_are_their_ends():
    curves = random_curves(0)
    seen = observe(curves, SPACE)
    np.testing.assert_array_equal(seen.r, [list(c.mixture.values()) for c in curves])
    np.testing.assert_allclose(seen.log_loss, logs(curves)[:, -1].T, rtol=1e-15)
    assert np.all(seen.tokens == 4e6) and np.all(seen.decayed == 1) and np.all(seen.weight == 1)
    assert seen.complete.all() and seen.reference == 4e6 and seen.unit == "nats/token"
    assert seen.names == ("r0", "r1", "r2", "r3", "r4") and seen.mixtures == 5


@pytest.mark.parametrize("kept", [1, 2])
@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_a_stopped_run_is_lifted_by_the_mean_fall_of_the_complete_ones(kept, seed):
    """And weighs less, by how much their falls differ among each other."""
    *whole, last = random_curves(seed)
    y = logs(whole)
    stopped = curve(0.5, np.log(last.losses[:kept]))
    seen = observe([*whole, stopped], SPACE)
    fall = y[:, kept - 1] - y[:, -1]
    expected = np.log(last.losses[kept - 1]) - fall.mean(0)
    np.testing.assert_allclose(seen.log_loss[:, -1], expected, rtol=1e-12)
    weight = TYPICAL_NOISE**2 / (TYPICAL_NOISE**2 + fall.var(0, ddof=1))
    np.testing.assert_allclose(seen.weight[:, -1], weight, rtol=1e-10)
    assert np.all(seen.tokens[:, -1] == 4e6) and np.all(seen.decayed[:, -1] == 1)
    assert seen.complete.tolist() == [True] * 4 + [False]


def test_a_stopped_run_stays_where_it_is_if_few_are_complete():
    *whole, last = random_curves(1, 3)
    seen = observe([*whole, curve(0.5, np.log(last.losses[:2]))], SPACE)
    np.testing.assert_allclose(seen.log_loss[:, -1], np.log(last.losses[1]))
    assert np.all(seen.tokens[:, -1] == 2e6) and np.all(seen.decayed[:, -1] == 0)
    assert np.all(seen.weight[:, -1] == 1)


def test_a_stopped_run_stays_where_no_complete_run_was_measured():
    whole = random_curves(1)
    seen = observe([*whole, curve(0.5, [[1.0, 1.1]], (False,), np.array([3e6]))], SPACE)
    np.testing.assert_allclose(seen.log_loss[:, -1], [1.0, 1.1])
    assert np.all(seen.tokens[:, -1] == 3e6)


def test_a_run_that_never_decayed_is_not_complete():
    whole = random_curves(2, 4)
    flat = curve(0.5, np.log(whole[0].losses), (False,) * 3)
    seen = observe([*whole, flat], SPACE)
    assert seen.complete.tolist() == [True] * 4 + [False]
    assert np.all(seen.decayed[:, -1] == 0) and np.all(seen.tokens[:, -1] == 4e6)
    assert observe([flat, curve(0.2, np.log(whole[0].losses), (False,) * 3)], SPACE).complete.all()


def test_tokens_within_a_percent_are_the_end():
    curves = random_curves(2, 3)
    y = np.log(curves[0].losses)
    near, far = (curve(0.5, y, tokens=np.array([1e6, 2e6, s * 4e6])) for s in (0.995, 0.9))
    assert observe([*curves, near], SPACE).complete[-1]
    assert not observe([*curves, far], SPACE).complete[-1]


def test_a_missing_end_is_lifted_for_its_target_alone():
    whole = random_curves(3)
    y = np.log(random_curves(4)[0].losses)
    y[-1, 1] = np.nan
    seen = observe([*whole, curve(0.5, y)], SPACE)
    fall = (logs(whole)[:, 1, 1] - logs(whole)[:, 2, 1]).mean()
    np.testing.assert_allclose(seen.log_loss[:, -1], [y[2, 0], y[1, 1] - fall])
    assert seen.weight[0, -1] == 1 and 0 < seen.weight[1, -1] < 1


def test_a_missing_end_that_cannot_be_lifted_counts_where_it_was_last_measured():
    """For its target alone: here no run measured the second one at the end."""
    curves = []
    for run in random_curves(3):
        y = np.log(run.losses)
        y[-1, 1] = np.nan
        curves.append(curve(float(run.mixture["a"]), y))
    seen = observe(curves, SPACE)
    np.testing.assert_allclose(seen.log_loss, [logs(curves)[:, 2, 0], logs(curves)[:, 1, 1]])
    assert np.all(seen.tokens.T == [4e6, 2e6]) and np.all(seen.decayed.T == [1, 0])
    assert np.all(seen.weight == 1)


def test_a_target_that_a_run_lacks_has_no_weight():
    whole = random_curves(3)
    y = np.log(whole[0].losses)
    gap = y.copy()
    gap[:, 1] = np.nan
    lacking = LossCurve(whole[0].mixture, TOKENS, whole[0].losses[:, :1], ["a"], whole[0].decayed)
    for other in (curve(0.5, gap), lacking):
        seen = observe([*whole, other], SPACE)
        assert seen.weight[:, -1].tolist() == [1, 0] and seen.log_loss[1, -1] == 0
        assert np.isfinite(seen.log_loss).all() and np.isfinite(seen.falls.value).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_falls_are_means_over_the_runs_with_both_points(seed):
    curves = random_curves(seed)
    y = logs(curves)
    falls = observe(curves, SPACE).falls
    np.testing.assert_array_equal(falls.tokens, TOKENS[:2])
    assert np.all(falls.end_tokens == 4e6) and np.all(falls.end_decayed == 1)
    np.testing.assert_allclose(falls.value, (y[:, :2] - y[:, [2]]).mean(0).T, rtol=1e-11)
    np.testing.assert_allclose(falls.weight.sum(1), 5 * EARLIER_WEIGHT)


def test_falls_between_ends_of_decay_count_in_full():
    """A branch that decayed earlier says how far the end is below; the others share a half."""
    flags = (False, True, True)
    curves = [
        curve(s, np.log(c.losses), flags)
        for s, c in zip((0.2, 0.6), random_curves(0, 2), strict=True)
    ]
    falls = observe(curves, SPACE).falls
    assert falls.decayed.tolist() == [0, 1]
    np.testing.assert_allclose(falls.weight, np.tile([2 * EARLIER_WEIGHT, 2.0], (2, 1)))


def test_falls_skip_what_is_missing():
    curves = random_curves(0)
    y = np.log(curves[0].losses)
    y[0, 0] = np.nan
    falls = observe([curve(0.5, y), *curves[1:]], SPACE).falls
    rest = logs(curves[1:])
    np.testing.assert_allclose(falls.value[0, 0], (rest[:, 0] - rest[:, 2]).mean(0)[0])
    assert falls.weight[0, 0] == pytest.approx(falls.weight[1, 0] * 4 / 5)


def test_single_checkpoints_have_no_falls():
    curves = [curve(s, [[1.0, 2.0]], (True,)) for s in (0.2, 0.6)]
    falls = observe(curves, SPACE).falls
    assert falls.value.shape == falls.weight.shape == (2, 0) and falls.tokens.shape == (0,)


def test_checkpoints_are_kept_as_they_were():
    curves = random_curves(0, 3)
    points = observe([*curves, curve(0.5, [[1.0, np.nan]])], SPACE).checkpoints
    assert points.run.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert points.tokens.tolist() == [*TOKENS, *TOKENS, *TOKENS, 1e6]
    expected = [*logs(curves).reshape(-1, 2), [1.0, np.nan]]
    np.testing.assert_allclose(points.log_loss.T, expected, rtol=1e-15)


def test_repeats_are_one_mixture():
    a, b, c = random_curves(0, 3)
    again = LossCurve(a.mixture, TOKENS, a.losses * 1.01, None, a.decayed, seed=1)
    near = curve(float(b.mixture["a"]) + 1e-9, np.log(b.losses))
    seen = observe([a, b, c, again, near], SPACE)
    assert seen.mixtures == 3
    assert seen.group[0] == seen.group[3] and seen.group[1] == seen.group[4]


def test_only_keeps_rows_and_renumbers():
    curves = [*random_curves(0), random_curves(0)[1]]
    whole = observe(curves, SPACE)
    part = whole.only(np.array([1, 4, 5]))
    direct = observe([curves[i] for i in (1, 4, 5)], SPACE)
    for name in ("r", "tokens", "decayed", "log_loss", "weight", "complete", "group"):
        np.testing.assert_array_equal(getattr(part, name), getattr(direct, name), err_msg=name)
    for name in ("run", "tokens", "log_loss"):
        kept, alone = (getattr(s.checkpoints, name) for s in (part, direct))
        np.testing.assert_array_equal(kept, alone, err_msg=name)
    assert part.mixtures == 2 and part.names == ("r1", "r4", "r1")
    assert part.falls is whole.falls and part.reference == whole.reference


def test_columns_are_in_the_order_of_the_space():
    curves = random_curves(0)
    turned = SearchSpace(["b", "a"], [Target("b", domain="b"), Target("a", domain="a")])
    plain, other = observe(curves, SPACE), observe(curves, turned)
    np.testing.assert_array_equal(other.r, plain.r[:, ::-1])
    np.testing.assert_array_equal(other.log_loss, plain.log_loss[::-1])


def test_refuses_nothing_to_fit():
    one = random_curves(0, 1)
    with pytest.raises(FitError, match="at least 2 different mixtures, but got none"):
        observe([], SPACE)
    with pytest.raises(FitError, match=r"all 2 curves have the same mixture.*at least 2"):
        observe(one * 2, SPACE)
    assert observe(one, SPACE, fewest_mixtures=1).mixtures == 1


def test_refuses_what_does_not_fit_the_space():
    curves = random_curves(0)
    with pytest.raises(FitError, match="curve 'r0' does not fit the space: unknown domain 'b'"):
        observe(curves, SearchSpace(["a", "c"]))
    with pytest.raises(FitError, match=r"curve 'r0'.*no proportion for \['web'\]"):
        observe(curves, SearchSpace(["a", "b", "web"]))
    with pytest.raises(FitError, match=r"no curve has a loss of target \['news'\].*\['a', 'b'\]"):
        observe(curves, SearchSpace(["a", "b"], [Target("a", domain="a"), Target("news")]))


def test_refuses_runs_that_are_not_alike():
    a, *rest = random_curves(0)
    y = np.log(a.losses)
    with pytest.raises(FitError, match=r"one unit, but got \['bits/byte', 'nats/token'\]"):
        observe([curve(0.5, y, unit="bits/byte"), *rest], SPACE)
    with pytest.raises(FitError, match=r"one scale \(model size\), but got \['', '1B'\]"):
        observe([curve(0.5, y, scale="1B"), *rest], SPACE)
