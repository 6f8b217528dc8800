import os
import signal
import sys

import pytest

from bimix_tune.benchmark.contest import Match, compare_strategies, play, write_parquet
from bimix_tune.benchmark.contest.campaign import plan
from bimix_tune.benchmark.results import read_lines
from bimix_tune.errors import ConfigError, CurveError


def some(toys, *names):
    return {n: toys[n] for n in names}


def test_matches_come_by_problem_strategy_and_seed(bowl, pool, toys, tmp_path):
    seen, notes = [], []
    found = compare_strategies(
        [bowl, pool],
        tmp_path,
        strategies=some(toys, "random", "corner"),
        obstacle=lambda name, setting: (
            "needs a space" if name == "corner" and setting.candidates is not None else None
        ),
        seeds=2,
        runs=3,
        workers=0,
        monitor=lambda *args: seen.append(args),
        say=notes.append,
    )
    wanted = [("bowl", n, s) for n in ("random", "corner") for s in (0, 1)]
    wanted += [("pool", "random", 0), ("pool", "random", 1)]
    assert [(m.problem, m.strategy, m.seed) for m in found] == wanted
    assert all(len(m.regret) == 3 for m in found)
    assert seen == [(n, 6) for n in range(1, 7)]
    assert notes == ["corner does not play pool: needs a space"]
    assert len((tmp_path / "matches.jsonl").read_text().splitlines()) == 6


def test_a_stopped_contest_continues_and_plays_nothing_twice(bowl, toys, tmp_path):
    played = []

    class Counting(toys["random"]):
        def __init__(self, setting):
            played.append(setting.seed)
            super().__init__(setting)
            if len(played) == 3:
                os.kill(os.getpid(), signal.SIGINT)

    options = {"strategies": {"counting": Counting}, "seeds": 4, "runs": 2, "workers": 0}
    with pytest.raises(KeyboardInterrupt):
        compare_strategies([bowl], tmp_path, **options)
    path = tmp_path / "matches.jsonl"
    assert len(path.read_text().splitlines()) == 2
    with path.open("a") as file:
        file.write('{"problem": "bo')  # killed while writing
    found = compare_strategies([bowl], tmp_path, **options)
    assert len(found) == len(read_lines(path, Match.from_json)) == 4
    assert len(played) == 5
    assert played[2] == played[3]  # the one that was cut off
    more = compare_strategies([bowl], tmp_path, **options | {"seeds": 5})
    assert (len(more), len(played)) == (5, 6)


def test_matches_of_other_code_problems_or_budgets_are_played_anew(
    bowl, toys, tmp_path, monkeypatch
):
    options = {"strategies": some(toys, "random"), "seeds": 1, "workers": 0}
    compare_strategies([bowl], tmp_path, runs=2, **options)
    compare_strategies([bowl], tmp_path, runs=3, **options)
    compare_strategies([toys["bowl"](noise=0.1)], tmp_path, runs=2, **options)
    monkeypatch.setattr("bimix_tune.benchmark.contest.campaign.code_digest", lambda s: "new")
    compare_strategies([bowl], tmp_path, runs=2, **options)
    assert len(read_lines(tmp_path / "matches.jsonl", Match.from_json)) == 4


def test_a_pool_is_not_asked_for_more_than_it_holds(pool, toys):
    games, _ = plan([pool], some(toys, "random"), lambda n, s: None, 1, 100)
    assert [g.runs for g in games.values()] == [40]


def test_the_largest_games_are_begun_first(bowl, toys):
    games, _ = plan([bowl], some(toys, "random"), lambda n, s: None, 1, 5)
    (small,) = games.values()
    games, _ = plan([bowl], some(toys, "random"), lambda n, s: None, 1, 10)
    (large,) = games.values()
    assert large.size == 4 * small.size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be >= 1, but got 0"),
        ({"runs": 1}, "runs must be >= 2, but got 1"),
        ({"workers": -1}, "workers must be >= 0, but got -1"),
        ({"strategies": {}}, "there is no match to play: no strategy"),
    ],
)
def test_what_cannot_be_played_is_refused(bowl, toys, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        compare_strategies([bowl], tmp_path, **{"strategies": some(toys, "random"), **options})


def test_problems_of_one_name_and_strange_files_are_refused(bowl, toys, tmp_path):
    plain = {"strategies": some(toys, "random"), "workers": 0}
    with pytest.raises(ConfigError, match="different names"):
        compare_strategies([bowl, bowl], tmp_path, **plain)
    (tmp_path / "matches.jsonl").write_text('{"swarm": 1}\n')
    with pytest.raises(CurveError, match="line 1 is no result"):
        compare_strategies([bowl], tmp_path, **plain)


def test_on_ray_it_goes_as_in_this_process(ray_cluster, bowl, pool, toys, tmp_path):
    # Workers cannot import the toys, as they cannot import a file of the user's own.
    options = {"strategies": some(toys, "random", "impatient", "broken"), "seeds": 2, "runs": 4}
    there = compare_strategies([bowl, pool], tmp_path / "there", workers=2, **options)
    here = compare_strategies([bowl, pool], tmp_path / "here", workers=0, **options)
    for one, two in zip(there, here, strict=True):
        assert (one.key, one.failure) == (two.key, two.failure)
        assert one.regret == pytest.approx(two.regret, abs=1e-12)
        assert one.own == pytest.approx(two.own, abs=1e-12, nan_ok=True)
    assert len(read_lines(tmp_path / "there" / "matches.jsonl", Match.from_json)) == 12


def test_raw_results_are_tables(bowl, toys, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    names = ("impatient", "broken", "outside")
    matches = list(compare_strategies(
        [bowl], tmp_path, strategies=some(toys, *names), seeds=1, workers=0
    ))  # fmt: skip
    whole, steps = (parquet.read_table(p).to_pydict() for p in write_parquet(matches, tmp_path))
    assert whole["strategy"] == list(names)
    assert whole["steps"] == [6, 2, 0]
    assert whole["failure"][0] == ""
    assert steps["step"] == [*range(6), 0, 1]
    assert steps["tokens"][:3] == [1000.0, 500.0, 1000.0]
    assert steps["proportions"][0] == list(matches[0].proportions[0])
    assert steps["regret"] == [v for m in matches for v in m.regret]


def test_without_pyarrow_it_says_so(tmp_path, monkeypatch, make_match):
    from bimix_tune.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"writing parquet needs 'pyarrow'.*\[train\]"):
        write_parquet([make_match()], tmp_path)


def test_games_are_played_one_by_one_too(bowl, toys):
    games, _ = plan([bowl], some(toys, "random"), lambda n, s: None, 1, 2)
    assert [play(g).key for g in games.values()] == list(games)
