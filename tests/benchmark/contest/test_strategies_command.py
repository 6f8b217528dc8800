import pytest
from typer.testing import CliRunner

from bimix_tune import BimixError, strategies
from bimix_tune.benchmark import problems
from bimix_tune.cli import strategies_benchmark as command
from bimix_tune.cli.app import app
from bimix_tune.errors import ConfigError, MissingExtraError, did_you_mean


@pytest.fixture
def invoke(monkeypatch, tmp_path, toys):
    """The command with the toys in the registries."""
    known = {"bowl": toys["bowl"](runs=3), "pool": toys["pool"](runs=3)}

    def chosen(names, data, more=None):
        for name in names or ():
            if name not in known:
                raise ConfigError(f"unknown problem {name!r}" + did_you_mean(name, known))
        return [p for n, p in known.items() if names is None or n in names]

    def one(name):
        if name == "absent":
            raise MissingExtraError("'absent' is not installed")
        if name not in playing:
            raise ConfigError(f"unknown strategy {name!r}" + did_you_mean(name, playing))
        return toys[name]

    def available(name, setting):
        return "needs a space" if name == "corner" and setting.candidates is not None else None

    playing = dict.fromkeys(("random", "corner", "absent", "broken"), "toys")
    monkeypatch.setattr(strategies, "STRATEGIES", playing, raising=False)
    monkeypatch.setattr(strategies, "strategy_class", one, raising=False)
    monkeypatch.setattr(strategies, "available", available, raising=False)
    monkeypatch.setattr(problems, "problems", chosen, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command.console, "_width", 110)
    fixed = ("benchmark", "strategies", "--workers", "0")
    return lambda *args: CliRunner().invoke(app, [*fixed, *map(str, args)])


def test_a_contest_from_problems_to_page(invoke, tmp_path):
    done = invoke("--seeds", "2", "--output", "out", "--reference", "random")
    assert done.exit_code == 0, done.output
    assert "bowl: synthetic, 3 domains, 3 targets" in done.output
    assert "pool: pool, 3 domains, 3 targets, 40 candidates" in done.output
    assert "note: absent is left out: 'absent' is not installed" in done.output
    assert "note: corner does not play pool: needs a space" in done.output
    assert "note: broken on bowl, pool, 4 matches: KeyError: 'no luck'" in done.output
    for title in ("Ranks", "Final regret", "Tokens to the final quality of random"):
        assert title in done.output
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"matches.jsonl", "table.md", "report.html"} <= names
    page = (tmp_path / "out" / "report.html").read_text()
    assert "bimix-tune benchmark strategies --seeds 2 --reference random --output out" in page
    again = invoke("--seeds", "2", "--output", "out", "--reference", "random")
    assert again.exit_code == 0
    assert len((tmp_path / "out" / "matches.jsonl").read_text().splitlines()) == 10


def test_names_and_numbers_are_passed_on(invoke, monkeypatch):
    got = {}

    def compare(problems, output, **options):
        got.update(options, problems=[p.name for p in problems], output=str(output))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "compare_strategies", compare)
    done = invoke("--problems", "bowl", "--strategies", "corner, random", "--runs", "7")
    assert done.exit_code == 130
    assert "the same command continues" in done.output
    assert (got["problems"], list(got["strategies"])) == (["bowl"], ["corner", "random"])
    assert (got["seeds"], got["runs"], got["workers"]) == (20, 7, 0)
    assert got["output"] == "runs/benchmark-strategies"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--strategies", "randm"), "unknown strategy 'randm'; did you mean 'random'"),
        (("--strategies", "absent"), "no strategy to compare: absent is left out"),
        (("--problems", "bowel"), "unknown problem 'bowel'; did you mean 'bowl'"),
        (("--seeds", "0"), "seeds must be >= 1"),
        (("--data", "nowhere"), "no such folder: nowhere"),
        (("--problems", "pool", "--strategies", "corner"), "there is no match to play: corner"),
    ],
)
def test_bad_input_is_an_error_that_names_it(invoke, args, message):
    done = invoke(*args)
    assert isinstance(done.exception, BimixError)
    assert message in str(done.exception)


def test_it_explains_itself_with_an_example(invoke):
    done = invoke("--help")
    assert done.exit_code == 0
    assert "bimix-tune benchmark strategies --strategies" in done.output
