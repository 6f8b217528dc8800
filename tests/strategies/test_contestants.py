"""What every strategy must do, and what tells some of them apart."""

import importlib.util

import numpy as np
import pytest

from bimix_tune import Domain, LossCurve, SearchSpace, Target
from bimix_tune.errors import BimixError, ConfigError, FitError, MissingExtraError
from bimix_tune.laws.optimum import Custom, Regret, Worst
from bimix_tune.strategies import (
    LIBRARIES,
    STRATEGIES,
    Setting,
    available,
    baseline_mixtures,
    botorch_search,
    climb,
    optuna_samplers,
    static,
    strategy_class,
)
from bimix_tune.strategies.random_search import OLMIX_SWARM, REGMIX_SWARM, flat
from bimix_tune.strategies.training_free import TrainingFree

TOKENS, RUNS = 1000, 7
ENTROPY_LABELS = ("SE", "CE", "JE", "VNE")
SPACE = SearchSpace(
    [
        Domain("web", prior=0.6, tokens=10**6, high=0.8),
        Domain("code", prior=0.3, tokens=10**5, low=0.05),
        Domain("books", prior=0.1, tokens=10**5),
    ],
    [
        Target("web", weight=2.0, domain="web"),
        Target("code", domain="code"),
        Target("exams"),
        Target("poems", weight=0.0),
    ],
)
HELP = np.array([[1.0, 0.0, 0.1], [0.0, 1.0, 0.0], [0.1, 0.3, 0.6], [0.0, 0.0, 1.0]])


def losses(r):
    """Of an invented law: every target gains from the domains that help it, (V,)."""
    return 1.5 + (HELP @ r + 0.02) ** -0.3


def train(r, space=SPACE):
    """Two checkpoints of a run; with a little noise that the mixture decides."""
    noise = 1.0 + 1e-3 * np.sin(1e4 * r[0] + np.arange(4.0))
    ends = losses(r) * noise
    return LossCurve(space.mixture(r), [500, TOKENS], [1.1 * ends, ends], space.target_names)


def setting(seed=0, pool=False, runs=RUNS, **others):
    known = baseline_mixtures(SPACE, budget=TOKENS)
    known |= {label: SPACE.fit_in([0.5, 0.2, 0.3]) for label in ENTROPY_LABELS}
    if pool:
        others["candidates"] = flat(np.random.default_rng(9), SPACE, 40)
    return Setting(SPACE, TOKENS, runs, seed=seed, known=known, **others)


def search(strategy):
    """The mixtures that a strategy runs in its budget, (n, K)."""
    asked = []
    for _ in range(strategy.setting.runs):
        r = strategy.ask()
        if r is None:
            break
        asked.append(r)
        strategy.tell(train(r), complete=True)
    return np.array(asked)


def existing(name):
    """The class of a name, unless its library or its module is not there."""
    module = STRATEGIES[name].partition(":")[0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} does not exist yet")
    try:
        return strategy_class(name)
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _small_efforts(monkeypatch):
    """The same methods with fewer random mixtures and iterations, to be fast."""
    monkeypatch.setattr(static.RegMix, "draws", 2000)
    monkeypatch.setattr(static.RegMix, "best", 16)
    monkeypatch.setattr(climb, "DRAWS", 1000)
    monkeypatch.setattr(botorch_search, "RESTARTS", 2)
    monkeypatch.setattr(botorch_search, "ITERATIONS", 10)


@pytest.fixture(params=STRATEGIES)
def strategy(request):
    return existing(request.param)


@pytest.mark.parametrize("pool", [False, True], ids=["free", "pool"])
def test_contract(strategy, pool):
    searcher = strategy(setting(pool=pool))
    asked = search(searcher)
    recommended = searcher.recommend()
    assert len(asked) == (1 if issubclass(strategy, TrainingFree) else RUNS)
    for r in (*asked, recommended):
        assert r.shape == (3,)
        assert abs(r.sum() - 1) < 1e-9
        assert SPACE.violation(SPACE.mixture(r), 1e-9) is None
    if pool:
        rows = {tuple(r) for r in searcher.setting.candidates}
        assert {tuple(r) for r in (*asked, recommended)} <= rows
        assert len({tuple(r) for r in asked}) == len(asked)
    again = strategy(setting(pool=pool))
    for expected in asked:
        np.testing.assert_array_equal(again.ask(), expected)
        again.tell(train(expected), complete=True)
        again.recommend()  # changes nothing
    np.testing.assert_array_equal(again.recommend(), recommended)


def test_all_candidates_can_be_run():
    searcher = strategy_class("random")(setting(pool=True, runs=99))
    assert len(search(searcher)) == 40
    assert searcher.ask() is None


MODEL_BASED = ("botorch", "gp-targets", "regmix", "mixing-law", "olmix", "climb")


@pytest.mark.parametrize("name", MODEL_BASED)
@pytest.mark.parametrize(
    "objective",
    [
        Worst(),
        Regret({"web": 2.0, "code": 2.5, "exams": 2.2, "poems": 2.0}),
        Custom(lambda loss: loss["web"] * loss["code"]),
    ],
    ids=["worst", "regret", "custom"],
)
def test_other_objectives_with_the_fewest_runs(name, objective):
    searcher = existing(name)(setting(objective=objective.bind(SPACE.target_names), runs=4))
    assert len(search(searcher)) == 4
    assert SPACE.violation(SPACE.mixture(searcher.recommend())) is None


def typical():
    """The median of the objective over random mixtures."""
    return np.median(
        [setting().value(losses(r)) for r in flat(np.random.default_rng(1), SPACE, 500)]
    )


@pytest.mark.parametrize(
    ("name", "runs"), [("botorch", 12), ("gp-targets", 12), ("mixing-law", 16), ("climb", 28)]
)
def test_models_beat_a_typical_mixture(name, runs):
    searcher = existing(name)(setting(runs=runs))
    search(searcher)
    assert searcher.setting.value(losses(searcher.recommend())) < typical()


def test_regmix_learns_once_its_trees_can_split():
    """LightGBM has no leaf of fewer than 20 runs."""
    searcher = existing("regmix")(setting(runs=60))
    for r in REGMIX_SWARM.many(searcher.rng, SPACE, 59):
        searcher.tell(train(r), complete=True)
    assert searcher.setting.value(losses(searcher.recommend())) < typical()


def test_tpe_learns():
    """Over five seeds, the median of its best true value against that of random search."""

    def median(name):
        found = []
        for seed in range(5):
            searcher = strategy_class(name)(setting(seed=seed, runs=40))
            found.append(min(searcher.setting.value(losses(r)) for r in search(searcher)))
        return np.median(found)

    assert median("tpe-ilr") < median("random")


def test_tpe_hears_of_the_mixtures_that_were_run():
    searcher = strategy_class("tpe-ilr")(setting(pool=True))
    asked = search(searcher)
    told = [t for t in searcher._study.trials if t.state.name == "COMPLETE"]
    points = np.array([list(t.params.values()) for t in told])
    low, high = optuna_samplers.ILR.low, optuna_samplers.ILR.high
    inside = (np.abs(points) < min(-low, high)).all(axis=1)
    found = np.array([optuna_samplers.ILR.mixture(p) for p in points])
    np.testing.assert_allclose(found[inside], asked[inside], atol=1e-9)
    assert inside.sum() > 4


@pytest.mark.parametrize("name", ["ILR", "SHARE", "FAQ"])
def test_coordinates_have_an_inverse(name):
    box = getattr(optuna_samplers, name)
    rng = np.random.default_rng(0)
    for _ in range(20):
        u = rng.uniform(box.low, box.high, 4 - box.spare)
        r = box.mixture(u)
        assert r.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(box.inverse(r, u), u, atol=1e-6)


def test_olmix_pulls_to_the_natural_mixture():
    class Pulled(static.Olmix):
        kl = 1e6

    near, far = Pulled(setting()), static.Olmix(setting())
    for searcher in (near, far):
        search(searcher)
    natural = SPACE.natural().proportions
    np.testing.assert_allclose(near.recommend(), natural, atol=1e-3)
    assert np.abs(far.recommend() - natural).max() > 0.01


@pytest.mark.parametrize("name", ["regmix", "mixing-law", "olmix"])
def test_static_methods_run_their_optimum_last_and_stop(name):
    searcher = existing(name)(setting())
    asked = search(searcher)
    np.testing.assert_array_equal(asked[-1], searcher.recommend())
    assert searcher.ask() is None


def test_without_a_law_the_best_run_is_recommended(monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise FitError("too few runs")

    monkeypatch.setattr(static.laws, "fit", refuse)
    searcher = static.Olmix(setting())
    asked = search(searcher)
    best = min(asked, key=lambda r: searcher.setting.values(train(r))[-1])
    np.testing.assert_array_equal(searcher.recommend(), best)
    assert "too few runs" in caplog.text


def test_a_proportion_may_be_fixed():
    space = SearchSpace([Domain("a", low=0.2, high=0.2), Domain("b"), Domain("c")])
    for name in ("botorch", "gp-targets", "tpe-ilr", "cma-es-ilr", "regmix"):
        searcher = existing(name)(Setting(space, TOKENS, 6))
        for _ in range(6):
            r = searcher.ask()
            assert r[0] == pytest.approx(0.2, abs=1e-9)
            searcher.tell(LossCurve(space.mixture(r), [TOKENS], [losses(r)[:3]]), complete=True)


def test_swarms_scatter_about_the_prior():
    for swarm in (REGMIX_SWARM, OLMIX_SWARM):
        drawn = swarm.many(np.random.default_rng(0), SearchSpace(["a", "b", "c"]), 4000)
        np.testing.assert_allclose(drawn.mean(axis=0), 1 / 3, atol=0.02)
        assert (drawn.max(axis=1) > 0.99).any() and (drawn.max(axis=1) < 0.5).any()
        assert drawn[drawn > 1e-12].min() >= swarm.least


@pytest.mark.parametrize("label", ["natural", "UniMax", "SE"])
def test_what_is_not_known_is_not_available(label):
    ignorant = Setting(SPACE, TOKENS, RUNS)
    assert label in available(label, ignorant)
    with pytest.raises(ConfigError, match=label):
        strategy_class(label)(ignorant)
    assert available(label, setting()) is None
    assert available("random", ignorant) is None


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_named(name, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == LIBRARIES[name] else real(n)
    )
    assert LIBRARIES[name] in available(name, setting())
    with pytest.raises(MissingExtraError, match=r"bimix-tune\[benchmark\]"):
        strategy_class(name)


def test_unknown_names_get_a_hint():
    with pytest.raises(ConfigError, match="did you mean 'botorch'"):
        strategy_class("botorsch")


OWN = """
from bimix_tune.strategies import Strategy

class Mine(Strategy):
    def propose(self):
        return self.setting.space.uniform().proportions

class Other:
    pass
"""


def test_a_strategy_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    mine = strategy_class(f"{path}:Mine")
    assert mine is strategy_class(f"{path}:Mine")
    np.testing.assert_allclose(mine(setting()).ask(), 1 / 3)
    for name, message in (
        (f"{path}:Mina", "did you mean 'Mine'"),
        (f"{path}:Other", "no subclass of Strategy"),
        (f"{tmp_path}/none.py:Mine", "no file"),
    ):
        with pytest.raises(ConfigError, match=message):
            strategy_class(name)
    path = tmp_path / "broken.py"
    path.write_text("import no_such_library")
    with pytest.raises(BimixError, match="ModuleNotFoundError"):
        strategy_class(f"{path}:Mine")
