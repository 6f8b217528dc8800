import pytest
from typer.testing import CliRunner

from bimix_tune import BimixError
from bimix_tune.benchmark import read_results
from bimix_tune.cli import benchmark as command
from bimix_tune.cli.app import app
from bimix_tune.errors import MissingExtraError


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(command, "CACHE", tmp_path / "cache")
    return lambda *args: CliRunner().invoke(app, ["benchmark", *map(str, args)])


@pytest.fixture
def invoke(run):
    return lambda *args: run("laws", "--workers", "0", *args)


@pytest.fixture
def asked(monkeypatch):
    """What the comparison is called with."""
    got = {}

    def compare(data, output, **options):
        swarms = [s.name for d in data for s in d.swarms]
        got.update(options, swarms=swarms, pairs=[d.pair.name for d in data if d.pair])
        got["output"] = str(output)
        return []

    monkeypatch.setattr(command, "compare_laws", compare)
    return got


def test_a_benchmark_from_tables_to_tables(invoke, write_swarm, tmp_path):
    data = write_swarm(tmp_path / "data" / "tiny")
    plan = ("--runs", "6, 8,100", "--draws", "2", "--laws", "bimix,log-linear", "--output", "out")
    done = invoke("--data", data.parent, *plan)
    assert done.exit_code == 0, done.output
    assert "tiny 1M: 24 runs, 3 domains, 3 targets" in done.output
    assert "log-linear" in done.output
    assert len(read_results(tmp_path / "out" / "results.jsonl")) == 16
    assert "n = 100: not on tiny 1M (of 24 runs)" in done.output
    text = (tmp_path / "out" / "table.md").read_text()
    assert "### final: tiny 1M" in text
    assert "### extrapolate: tiny 1M" in text
    assert "Fitted to 8 runs, 2 draws." in text
    assert "tiny 1M" in (tmp_path / "out" / "report.html").read_text()


def test_failures_are_noted(invoke, write_swarm, tmp_path):
    write_swarm(tmp_path / "tiny", scales=("1M", "2M"))
    plan = ("--data", "tiny", "--tasks", "scales", "--draws", "2", "--output", "out")
    done = invoke(*plan, "--laws", "mean,auto + small", "--swarms", "tiny 1M to 2M")
    assert done.exit_code == 0, done.output
    assert "tiny 1M to 2M: 24 and 24 runs" in done.output
    assert "scales: tiny 1M to 2M" in done.output


def test_without_plotly_there_is_no_page_but_a_note(invoke, write_swarm, monkeypatch, tmp_path):
    def missing(*args):
        raise MissingExtraError("writing report.html needs 'plotly'")

    monkeypatch.setattr(command, "write_page", missing)
    write_swarm(tmp_path / "tiny")
    plan = ("--runs", "6", "--draws", "1", "--laws", "mean", "--output", "out")
    done = invoke("--data", "tiny", *plan)
    assert done.exit_code == 0, done.output
    assert "note: writing report.html needs 'plotly'" in done.output


def test_without_data_it_takes_invented_runs(invoke, asked):
    done = invoke("--laws", "auto")
    assert done.exit_code == 0, done.output
    assert "on invented runs, whose truth is BiMix with transfer" in done.output
    assert asked["swarms"] == ["synthetic 1M"]
    assert asked["pairs"] == ["synthetic 1M to 8M"]
    assert (asked["runs"], asked["draws"]) == ([8, 16, 32, 64, 128, 256], 10)
    assert asked["tasks"] == ["final", "extrapolate", "scales"]
    assert asked["output"] == "runs/benchmark-laws"


def test_without_data_it_takes_what_was_fetched(invoke, asked, write_swarm, tmp_path):
    write_swarm(tmp_path / "cache" / "swarms" / "fetched")
    done = invoke("--laws", "auto")
    assert done.exit_code == 0, done.output
    assert asked["swarms"] == ["fetched 1M"]


def test_workers_and_cluster_are_passed_on(run, asked):
    assert run("laws", "--workers", "3", "--address", "host:1").exit_code == 0
    assert (asked["workers"], asked["address"]) == (3, "host:1")
    assert run("laws").exit_code == 0
    assert (asked["workers"], asked["address"]) == (None, None)


def test_swarms_are_chosen_by_name(invoke, asked, write_swarm, tmp_path):
    for name in ("a", "b"):
        write_swarm(tmp_path / "data" / name, scales=("1M", "2M"))
    assert invoke("--data", "data", "--swarms", "a,b 2M").exit_code == 0
    assert asked["swarms"] == ["a 1M", "a 2M", "b 2M"]
    assert asked["pairs"] == ["a 1M to 2M"]


def test_fetch_puts_the_data_where_laws_looks_for_it(run, monkeypatch, tmp_path):
    def fetch(folder, say):
        say("downloading data/train_mixture_1m.csv")
        return folder / "regmix"

    monkeypatch.setattr(command, "fetch_regmix", fetch)
    done = run("fetch")
    assert done.exit_code == 0, done.output
    assert "downloading data/train_mixture_1m.csv" in done.output
    assert f"data set: {tmp_path / 'cache' / 'swarms' / 'regmix'}" in done.output
    assert "data set: there/regmix" in run("fetch", "--output", "there").output


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
        (("--runs", "500", "--tasks", "final"), "must leave 5 to judge by"),
        (("--tasks", "finale"), "unknown task 'finale'; did you mean 'final'"),
        (("--swarms", "sythetic"), "no swarm 'sythetic'; did you mean 'synthetic"),
    ],
)
def test_bad_input_is_an_error_that_names_it(invoke, args, message):
    done = invoke(*args)
    assert isinstance(done.exception, BimixError)
    assert message in str(done.exception)


def test_it_explains_itself_with_an_example(run):
    done = run("laws", "--help")
    assert done.exit_code == 0
    assert "bimix-tune benchmark laws --data" in done.output
