"""Searches beat random mixtures and brute force, keep every bound, and say how they ended."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune import simplex
from bimix_tune.errors import FitError, SpaceError
from bimix_tune.laws.optimum.exact import minimise
from bimix_tune.laws.optimum.groups import Group
from bimix_tune.laws.optimum.objectives import Custom, Regret
from bimix_tune.laws.optimum.problem import Problem
from bimix_tune.laws.optimum.search import solve
from bimix_tune.laws.terms import Terms


class Powers:
    """Losses that are one power each."""

    def __init__(self, terms):
        self.terms = terms

    def losses(self, r):
        return self.terms.parts(r)

    def slopes(self, r):
        return np.array([self.terms.slopes(row) for row in r])


class Waves:
    """Powers with ripples on top: several local optima."""

    def __init__(self, terms, rng):
        v, k = terms.carriers.shape
        self.powers = Powers(terms)
        self.directions, self.phase = rng.normal(0, 8, (v, k)), rng.uniform(0, 6, v)

    def losses(self, r):
        return self.powers.losses(r) + 0.2 * np.sin(r @ self.directions.T + self.phase)

    def slopes(self, r):
        ripple = 0.2 * np.cos(r @ self.directions.T + self.phase)
        return self.powers.slopes(r) + ripple[..., None] * self.directions


class Steps:
    """Losses of a forest: piecewise constant, without derivatives."""

    slopes = None

    def __init__(self, terms):
        self.terms = terms

    def losses(self, r):
        return np.round(self.terms.parts(np.round(r, 3)), 3)


def terms_of(rng, k, v):
    carriers = np.eye(v, k) + rng.exponential(0.2, (v, k)) * (rng.random((v, k)) < 0.5) + 1e-3
    return Terms(
        rng.uniform(1.0, 3.0, v),
        np.exp(rng.uniform(np.log(0.05), np.log(0.4), v)),
        np.exp(rng.uniform(np.log(1e-3), np.log(0.1), v)),
        carriers,
        np.where(rng.random(v) < 0.5, 1.0, rng.uniform(0.4, 1.0, v)),
    )


def names(prefix, count):
    return tuple(f"{prefix}{i}" for i in range(count))


def problem_of(rng, k, v, surface=Powers, tight=False, **options):
    terms = terms_of(rng, k, v)
    centre = rng.dirichlet(np.ones(k))
    low = centre * rng.random(k) if tight else np.zeros(k)
    high = np.minimum(1.0, centre * (1 + rng.exponential(2.0, k))) if tight else np.ones(k)
    made = surface(terms) if surface is not Waves else Waves(terms, rng)
    prior = rng.dirichlet(np.full(k, 3.0))
    if options.get("objective") == "regret":
        reference = made.losses(prior[None])[0]
        options["objective"] = Regret(dict(zip(names("t", v), reference, strict=True)))
    return Problem(made, names("d", k), names("t", v), low, high, prior, **options)


def log_sum(losses):
    return float(np.log(np.sum(np.exp(list(losses.values())))))


OBJECTIVES = ["mean", "worst", "regret", log_sum]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10_000),
    st.integers(2, 8),
    st.sampled_from(OBJECTIVES),
    st.booleans(),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([Powers, Waves]),
)
def test_nothing_random_is_better(seed, k, objective, tight, kl, surface):
    rng = np.random.default_rng(seed)
    problem = problem_of(rng, k, k + 1, surface, tight, objective=objective, kl=kl)
    found = solve(problem)
    assert found.converged, found.status
    assert problem.region.violation(found.proportions) < 1e-9
    land = problem.landscape
    best = land.total(found.proportions[None])[0]
    near = rng.dirichlet(found.proportions * 1000 + 1e-2, 1000)
    wishes = near if surface is Waves else np.vstack([near, rng.dirichlet(np.ones(k), 3000)])
    assert land.total(problem.region.inside(wishes)).min() >= best - 1e-6 * abs(best)
    assert found.value == pytest.approx(float(land.value(found.proportions[None])[0]))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 9), st.booleans())
def test_agrees_with_the_exact_solvers(seed, k, tight):
    problem = problem_of(np.random.default_rng(seed), k, k, tight=tight)
    terms = problem.surface.terms
    exact = minimise(terms, problem.low, problem.high, problem.prior)
    value = problem.landscape.value(exact[None])[0]
    assert solve(problem).value == pytest.approx(value, rel=1e-7)


GROUPS = (
    Group(("d0", "d1"), 0.2, 0.4),
    Group(("d1", "d2", "d3"), 0.0, 0.6),
    Group(("d0", "d1", "d2", "d3", "d4"), 0.0, 1.0),  # says nothing
)
TIED = (Group(("d0", "d2"), 0.3, 0.3), GROUPS[1])


def with_terms(problem, **options):
    terms = problem.surface.terms._replace(c=problem.surface.terms.c / len(problem.targets))
    return dataclasses.replace(problem, terms=terms, **options)


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.sampled_from([(), GROUPS, TIED]),
)
def test_exact_and_local_searches_agree(seed, kl, groups):
    problem = problem_of(np.random.default_rng(seed), 5, 4, kl=kl, groups=groups)
    exact, local = solve(with_terms(problem)), solve(problem)
    assert exact.status.startswith("exact") and exact.converged
    assert problem.region.violation(exact.proportions) < 1e-9
    one, two = problem.landscape.total(np.array([exact.proportions, local.proportions]))
    assert one == pytest.approx(two, rel=1e-6)
    assert one <= two + 1e-8


def test_takes_the_exact_solver_only_where_it_can():
    plain = problem_of(np.random.default_rng(0), 4, 4)
    terms = with_terms(plain).terms
    found = solve(with_terms(plain))
    np.testing.assert_array_equal(
        found.proportions, minimise(terms, plain.low, plain.high, plain.prior)
    )
    for options in ({"objective": "worst"}, {"worst": True}):
        assert solve(with_terms(plain, **options)).status.startswith("local search")


def test_groups_that_leave_no_inside_are_searched():
    plain = problem_of(np.random.default_rng(0), 4, 4)
    high = np.array([0.2, 0.3, 1.0, 1.0])
    edge = with_terms(plain, high=high, groups=(Group(("d0", "d1"), 0.5, 1.0),))
    found = solve(edge)
    assert found.status.startswith("local search") and found.converged
    np.testing.assert_allclose(found.proportions[:2], [0.2, 0.3], atol=1e-9)


@pytest.mark.parametrize("objective", ["worst", "regret"])
@pytest.mark.parametrize("worst", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_greatest_losses_against_a_grid(objective, worst, seed):
    problem = problem_of(np.random.default_rng(seed), 3, 4, objective=objective, worst=worst)
    side = np.linspace(0, 1, 301)
    a, b = (x.ravel() for x in np.meshgrid(side, side))
    grid = np.stack([a, b, 1 - a - b], axis=1)[a + b <= 1 + 1e-12]
    values = problem.landscape.value(np.maximum(grid, 0.0))
    value = solve(problem).value
    if worst:
        assert value == pytest.approx(values.max(), abs=1e-9)  # at a corner
    else:
        assert value <= values.min() + 1e-9
        assert value >= values.min() - 0.02


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from(OBJECTIVES))
def test_the_pull_brings_the_optimum_to_the_prior(seed, objective):
    distances = []
    for kl in (0.0, 0.02, 0.2, 2.0, 2e4):
        problem = problem_of(np.random.default_rng(seed), 4, 5, objective=objective, kl=kl)
        r = solve(problem).proportions
        ratio = np.log(np.maximum(r, 1e-12) / problem.prior)
        distances.append(float((r * ratio).sum()))
    assert np.all(np.diff(distances) < 1e-5)
    assert distances[-1] < 1e-5


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10_000),
    st.sampled_from(OBJECTIVES),
    st.booleans(),
    st.sampled_from([Powers, Waves, Steps]),
)
def test_groups_are_kept(seed, objective, tied, surface):
    rng = np.random.default_rng(seed)
    half = 0.5 * rng.random()
    groups = (
        Group(("d0", "d1"), half, half if tied else half + 0.2),
        Group(("d1", "d2", "d3"), 0.0, 0.6),
    )
    problem = problem_of(rng, 6, 6, surface, objective=objective, groups=groups)
    found = solve(problem)
    assert problem.region.violation(found.proportions) < 1e-9
    others = problem.region.inside(rng.dirichlet(np.ones(6), 500))
    slack = 0.05 if surface is Steps else 1e-6  # the mean of good mixtures, not the best
    if surface is not Waves:
        assert problem.landscape.total(others).min() >= found.value - slack


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10_000),
    st.sampled_from(OBJECTIVES),
    st.sampled_from([Powers, Waves, Steps]),
    st.sampled_from([0.0, 0.1]),
)
def test_the_worst_is_worse_than_the_best(seed, objective, surface, kl):
    best, worst = (
        problem_of(np.random.default_rng(seed), 4, 4, surface, objective=objective, kl=kl, worst=w)
        for w in (False, True)
    )
    least, most = solve(best).value, solve(worst).value
    assert most > least
    if kl == 0 and surface is Powers:  # convex losses are greatest at a corner
        assert most >= best.landscape.value(np.eye(4)).max() - 1e-9


def test_a_given_start_is_used():
    """A narrow valley that no random mixture meets."""

    class Valley:
        floor = np.array([0.611, 0.137, 0.05, 0.1, 0.05, 0.052])

        def losses(self, r):
            far = ((r - self.floor) ** 2).sum(-1, keepdims=True)
            return 1.0 - np.exp(-far / 2e-4)

        def slopes(self, r):
            far = ((r - self.floor) ** 2).sum(-1, keepdims=True)
            rise = np.exp(-far / 2e-4) / 2e-4
            return (rise * 2 * (r - self.floor))[:, None, :]

    def place(starts):
        even = np.full(6, 1 / 6)
        fields = (names("d", 6), ("t",), np.zeros(6), np.ones(6), even)
        return solve(Problem(Valley(), *fields, starts=starts)).value

    assert place(Valley.floor[None] + [[0.005, -0.005, 0, 0, 0, 0]]) < 1e-6
    assert place(None) > 0.9


def test_fixed_proportions_stay():
    rng = np.random.default_rng(3)
    base = problem_of(rng, 4, 4)
    low, high = np.array([0.0, 0.3, 0.0, 0.0]), np.array([1.0, 0.3, 1.0, 0.0])
    for objective in OBJECTIVES[:2]:
        fields = (base.surface, base.names, base.targets, low, high, base.prior, objective)
        r = solve(Problem(*fields, kl=0.01)).proportions
        assert r[1] == 0.3 and r[3] == 0.0
    only = np.array([0.1, 0.3, 0.6, 0.0])
    found = solve(Problem(base.surface, base.names, base.targets, only, only, base.prior))
    np.testing.assert_allclose(found.proportions, only)
    assert found.converged and found.status == "the bounds leave one mixture"


@pytest.mark.parametrize("objective", ["mean", "worst"])
def test_a_search_that_is_cut_short_says_so(objective):
    problem = problem_of(np.random.default_rng(0), 8, 8, objective=objective)
    cut = solve(problem, iterations=1)
    assert not cut.converged
    assert "Iteration limit" in cut.status and "still gained" in cut.status
    assert cut.value >= solve(problem).value


def test_simulation_comes_near_the_optimum():
    rng = np.random.default_rng(0)
    smooth = problem_of(rng, 5, 5, kl=0.01)
    fields = (smooth.names, smooth.targets, smooth.low, smooth.high, smooth.prior)
    found = solve(Problem(Steps(smooth.surface.terms), *fields, kl=0.01))
    assert "simulation" in found.status and "has settled" in found.status and found.converged
    best = solve(smooth)
    reach = np.ptp(smooth.landscape.value(rng.dirichlet(np.ones(5), 500)))
    assert smooth.landscape.value(found.proportions[None])[0] < best.value + 0.02 * reach


def test_simulation_does_not_average_two_valleys():
    class Two:
        slopes = None

        def losses(self, r):
            return -np.abs(r[:, :1] - r[:, 1:2])

    found = solve(Problem(Two(), ("a", "b"), ("t",), np.zeros(2), np.ones(2), np.full(2, 0.5)))
    assert found.value < -0.9


def test_the_same_problem_has_the_same_answer():
    one, two = (problem_of(np.random.default_rng(1), 5, 5, Waves) for _ in range(2))
    np.testing.assert_array_equal(solve(one).proportions, solve(two).proportions)


def test_maximising_a_function():
    problem = problem_of(np.random.default_rng(0), 3, 3)
    fields = (problem.surface, problem.names, problem.targets, problem.low, problem.high)
    down = solve(Problem(*fields, problem.prior, log_sum))
    up = solve(Problem(*fields, problem.prior, Custom(lambda by: -log_sum(by), maximise=True)))
    np.testing.assert_allclose(down.proportions, up.proportions, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weights": np.ones(2)}, FitError, r"weights must have shape \(3,\), but have \(2,\)"),
        ({"weights": np.array([1, -1, 1.0])}, FitError, "weights must be finite numbers >= 0"),
        ({"weights": np.zeros(3)}, FitError, "at least one target must have a weight > 0"),
        ({"prior": np.array([np.nan, 1])}, FitError, "prior must be finite numbers >= 0"),
        ({"starts": np.ones((1, 3))}, FitError, r"starts must have shape \(1, 2\)"),
        ({"kl": -0.1}, FitError, "kl must be a finite number >= 0, but got -0.1"),
        ({"kl": np.inf}, FitError, "kl must be a finite number >= 0, but got inf"),
        ({"objective": "best"}, FitError, "unknown objective 'best'"),
        ({"high": np.full(2, 0.4)}, SpaceError, "upper bounds sum to 0.8"),
        ({"groups": (Group(("a",), 0.9), Group(("b",), 0.2))}, SpaceError, "is at best"),
    ],
)
def test_problems_that_make_no_sense(change, error, message):
    fields = {
        "surface": Powers(terms_of(np.random.default_rng(0), 2, 3)),
        "names": ("a", "b"),
        "targets": names("t", 3),
        "low": np.zeros(2),
        "high": np.ones(2),
        "prior": np.full(2, 0.5),
    }
    with pytest.raises(error, match=message):
        Problem(**(fields | change))


@pytest.mark.parametrize(
    ("losses", "slopes", "message"),
    [
        (lambda r: np.ones((len(r), 2)), None, r"losses of a surface must have shape \(\d+, 1\)"),
        (lambda r: np.full((len(r), 1), np.nan), None, "losses of a surface must be finite"),
        (lambda r: r[:, :1], lambda r: np.ones((len(r), 2)), "slopes of a surface must have shape"),
        (lambda r: r[:, :1], lambda r: np.full((len(r), 1, 2), np.inf), "must be finite, but are"),
    ],
)
def test_surfaces_that_break_their_word(losses, slopes, message):
    class Broken:
        pass

    surface = Broken()
    surface.losses, surface.slopes = losses, slopes
    even = np.full(2, 0.5)
    with pytest.raises(FitError, match=message):
        solve(Problem(surface, ("a", "b"), ("t",), np.zeros(2), np.ones(2), even))


def test_starts_are_moved_into_the_bounds():
    rng = np.random.default_rng(2)
    problem = problem_of(rng, 4, 4, Waves, tight=True, starts=rng.dirichlet(np.ones(4), 3))
    found = solve(problem)
    np.testing.assert_array_equal(
        found.proportions, simplex.settle(found.proportions, problem.low, problem.high)
    )
