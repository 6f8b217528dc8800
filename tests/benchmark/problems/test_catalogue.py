import subprocess
import sys

import pytest

from bimix_tune.benchmark import load_data
from bimix_tune.benchmark.problems import Problem, problem_names, problems
from bimix_tune.errors import ConfigError

OWN = """
from bimix_tune.benchmark.problems.synthetic import Transfer

class Mine(Transfer):
    trait = "mine"

mine = Mine.of(7)
number = 7
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_names_alone_read_and_fit_nothing():
    code = "import sys; from bimix_tune.benchmark.problems import problem_names, starter; "
    code += "print(len(problem_names()), starter.starter_swarm.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, read = done.stdout.split()
    assert int(count) == len(problem_names()) == 18
    assert read == "0"


def test_recorded_swarms_give_pools_and_surrogates_of_the_smallest_scale(write_swarm, tmp_path):
    data = load_data(write_swarm(tmp_path / "My_swarm", scales=("60M", "1M")))
    added = problem_names(data)[len(problem_names()) :]
    assert added == [f"my-swarm-{n}" for n in ("mean", "one", "worst", "surrogate-mean")]
    for name, scale in (("my-swarm-mean", "1M"), ("my-swarm-60m-domain-1", "60M")):
        (made,) = problems([name], data)
        assert (made.name, made.swarm.scale) == (name, scale)


def test_an_unknown_name_is_refused_with_a_hint(own):
    with pytest.raises(ConfigError, match="no problem 'transfer-8'; did you mean 'transfer-7'"):
        problems(["transfer-8"])
    with pytest.raises(ConfigError, match="no such file"):
        problems(["nowhere.py:mine"])
    with pytest.raises(ConfigError, match=r"no problem 'mein' in .*did you mean 'mine'"):
        problems([f"{own}:mein"])
    with pytest.raises(ConfigError, match="no problem 'number'"):
        problems([f"{own}:number"])
    with pytest.raises(ConfigError, match="cannot be made without arguments"):
        problems([f"{own}:Mine"])


def test_a_file_that_fails_is_named(own):
    own.write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"own\.py cannot be run: ZeroDivisionError"):
        problems([f"{own}:mine"])


def test_a_problem_of_ones_own_comes_from_a_file(own):
    first, second = problems([f"{own}:mine", "transfer-7"])
    assert isinstance(first, Problem)
    assert (first.name, second.name) == ("mine-7", "transfer-7")
    own.write_text(OWN + "class Free(Mine):\n    def __init__(self):\n        pass\n")
    (made,) = problems([f"{own}:Free"])
    assert type(made).__name__ == "Free"


def test_what_must_be_named_does_not_run_by_itself():
    def make():
        return problems(["transfer-7"])[0]

    assert len(problems(["costly"], more={"costly": make})) == 1
    assert "costly" not in [p.name for p in problems(None, more={"costly": make})]
