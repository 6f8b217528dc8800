import dataclasses
import json

import numpy as np
import pytest

from bimix_tune.benchmark.contest import Game, Match, play
from bimix_tune.benchmark.contest.code import code_digest
from bimix_tune.benchmark.contest.recommending import judged
from bimix_tune.strategies.base import Setting


def game(problem, strategy, runs=6, seed=0):
    return Game(problem, strategy.__name__.lower(), strategy, runs, seed, "abc")


def test_a_match_holds_what_each_run_cost_and_was_worth(bowl, toys):
    found = play(game(bowl, toys["random"]))
    assert (found.problem, found.strategy, found.runs, found.seed) == ("bowl", "random", 6, 0)
    assert found.failure == ""
    assert found.tokens == (1000.0,) * 6
    r = np.array(found.proportions)
    assert r.shape == (6, 3)
    assert found.regret == pytest.approx(bowl.regret(r), abs=1e-4)
    assert found.measured == pytest.approx(bowl.truth(r), abs=1e-4)
    assert found.best_seen == found.own == min(found.regret)
    assert np.isfinite(found.law)
    assert min(found.seconds) > 0


def test_a_stopped_run_costs_what_it_saw_and_measures_nothing(bowl, toys):
    found = play(game(bowl, toys["impatient"]))
    assert found.tokens == (1000.0, 500.0) * 3
    assert np.isnan(found.measured).tolist() == [False, True] * 3
    assert found.best_seen == min(found.regret[::2])
    assert all(np.isfinite(found.regret))


def test_a_strategy_is_asked_at_all_checkpoints_but_the_last(bowl, toys):
    seen = []

    class Watching(toys["impatient"]):
        def learn(self, curve, complete):
            seen.append((self.asked, tuple(curve.tokens), complete))

    play(game(bowl, Watching, runs=2))
    first = ((250,), (250, 500), (250, 500, 750))
    assert seen[0] == (first, (250, 500, 750, 1000), True)
    assert seen[1] == ((*first, (250,), (250, 500)), (250, 500), False)


def test_a_stopped_run_is_not_trained_on(bowl, toys):
    play(game(bowl, toys["impatient"], runs=2))
    assert [t for t in bowl.log if t <= 1000] == [250, 500, 750, 1000, 250]  # 500 was the last


def test_the_noise_is_that_of_the_seed_and_the_run_alone(toys):
    problems = [toys["bowl"](noise=0.1) for _ in range(3)]
    players = (("random", 0), ("corner", 0), ("random", 1))
    for problem, (name, seed) in zip(problems, players, strict=True):
        play(game(problem, toys[name], seed=seed))
    first, second, third = ([s for s in p.log if s > 1000] for p in problems)
    assert first == second
    assert len({*first, *third}) == 12


def test_the_same_seed_gives_the_same_match(toys):
    found = [play(game(toys["bowl"](noise=0.1), toys["impatient"], seed=3)) for _ in range(2)]
    fields = ("proportions", "measured", "regret", "own", "law")
    one, two = ([str(getattr(m, f)) for f in fields] for m in found)
    assert one == two


def test_a_strategy_is_told_nothing_of_the_truth(bowl, toys):
    seen = []

    class Nosy(toys["random"]):
        def __init__(self, setting):
            super().__init__(setting)
            seen.append(setting)

    play(game(bowl, Nosy, runs=2))
    (setting,) = seen
    assert type(setting) is Setting
    values = [getattr(setting, f.name) for f in dataclasses.fields(setting)]
    assert not any(v is bowl or getattr(v, "__self__", None) is bowl for v in values)
    assert setting.seed != 0  # not that of the match, from which the noise comes too


def test_a_strategy_may_want_no_more(bowl, toys):
    assert len(play(game(bowl, toys["content"])).regret) == 3


def test_what_a_strategy_breaks_off_with_is_kept_with_its_runs(bowl, toys):
    found = play(game(bowl, toys["broken"]))
    assert found.failure == "KeyError: 'no luck'"
    assert len(found.regret) == 2
    assert found.best_seen == min(found.regret)


def test_mixtures_outside_the_space_are_a_failure(bowl, toys):
    found = play(game(bowl, toys["outside"]))
    assert found.failure.startswith("MixtureError")
    assert found.regret == ()
    assert np.isnan(found.best_seen)


def test_recommendations_that_fail_are_noted(bowl, toys):
    class Silent(toys["random"]):
        def recommend(self):
            raise ValueError("no idea")

    class Still(toys["corner"]):  # one mixture only: no law can be fitted
        pass

    found = play(game(bowl, Silent))
    assert found.notes == ("own: ValueError: no idea",)
    assert np.isnan(found.own)
    assert np.isfinite(found.law)
    (note,) = play(game(bowl, Still)).notes
    assert note.startswith("law: FitError")


def test_in_a_pool_each_candidate_is_run_once_and_recommended(pool, toys):
    found = play(game(pool, toys["random"], runs=8))
    r = np.array(found.proportions)
    assert len({tuple(row) for row in r}) == 8
    regrets = pool.regret(pool.candidates)
    for value in (*found.regret, found.best_seen, found.own, found.law):
        assert np.abs(regrets - value).min() < 1e-12
    assert judged(pool, pool.candidates[3] + [1e-9, -1e-9, 0]) == regrets[3]


def test_a_match_survives_the_file(bowl, toys):
    for name in ("impatient", "outside"):
        found = play(game(bowl, toys[name]))
        line = found.to_json()
        assert "NaN" not in line
        assert str(Match.from_json(line)) == str(found)
    with pytest.raises(KeyError):
        Match.from_json(json.dumps({"problem": "a"}))


def test_a_lost_match_is_a_failure(bowl, toys):
    lost = game(bowl, toys["random"]).lost("WorkerDied")
    assert lost.key == play(game(bowl, toys["random"])).key
    assert lost.failure == "WorkerDied"


def test_the_digest_follows_the_code_of_a_strategy_and_what_it_needs(tmp_path, toys, monkeypatch):
    from bimix_tune.benchmark.contest import code

    before = code_digest(toys["random"])
    assert before != code_digest(toys["corner"])
    files = {p.name for p in code._needed(code.Path(code.match.__file__))}
    assert {"recommending.py", "base.py", "curves.py"} <= files
    copy = tmp_path / "match.py"
    copy.write_text(code.Path(code.match.__file__).read_text() + "\n# changed\n")
    monkeypatch.setattr(code.match, "__file__", str(copy))
    code_digest.cache_clear()
    assert code_digest(toys["random"]) != before
    code_digest.cache_clear()
