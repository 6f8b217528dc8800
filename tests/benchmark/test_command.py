import pytest
from typer.testing import CliRunner

from bimix_tune import BimixError
from bimix_tune.benchmark import read_results
from bimix_tune.cli import benchmark as command
from bimix_tune.cli.app import app


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *args: CliRunner().invoke(app, ["benchmark", "laws", *map(str, args)])


def test_a_benchmark_from_tables_to_tables(invoke, write_swarm, tmp_path):
    data = write_swarm(tmp_path / "data" / "tiny")
    plan = ("--runs", "6, 8", "--draws", "2", "--laws", "bimix,log-linear", "--output", "out")
    done = invoke("--data", data.parent, *plan)
    assert done.exit_code == 0, done.output
    assert "tiny 1M: 24 runs, 3 domains, 3 targets" in done.output
    assert "log-linear" in done.output
    assert len(read_results(tmp_path / "out" / "results.jsonl")) == 8
    text = (tmp_path / "out" / "table.md").read_text()
    assert "## tiny 1M" in text
    assert "Fitted to 8 runs, 2 draws." in text


def test_without_data_it_takes_an_invented_swarm(invoke, monkeypatch):
    asked = {}

    def compare(swarms, output, **options):
        asked.update(options, swarms=[s.name for s in swarms], output=str(output))
        return []

    monkeypatch.setattr(command, "compare_laws", compare)
    done = invoke("--laws", "auto")
    assert done.exit_code == 0, done.output
    assert "on an invented swarm, whose truth is BiMix with transfer" in done.output
    assert asked["swarms"] == ["synthetic"]
    assert (asked["runs"], asked["draws"], asked["workers"]) == ([8, 16, 32], 10, 1)
    assert asked["output"] == "runs/benchmark-laws"


def test_stopped_it_says_how_to_go_on(invoke, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "compare_laws", stop)
    done = invoke("--laws", "mean")
    assert done.exit_code == 130
    assert "the same command continues" in done.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--data", "nowhere"), "no such folder: nowhere"),
        (("--laws", "bimix,transfr"), "unknown law 'transfr'; did you mean 'transfer'"),
        (("--runs", "eight"), "--runs takes whole numbers such as 8,16, but got 'eight'"),
        (("--runs", "500"), "must leave 5 to judge by"),
    ],
)
def test_bad_input_is_an_error_that_names_it(invoke, args, message):
    done = invoke(*args)
    assert isinstance(done.exception, BimixError)
    assert message in str(done.exception)


def test_it_explains_itself_with_an_example(invoke):
    done = invoke("--help")
    assert done.exit_code == 0
    assert "bimix-tune benchmark laws --data" in done.output
