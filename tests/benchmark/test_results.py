import math

import pytest

from bimix_tune.benchmark import Result, markdown, read_results, summarise
from bimix_tune.benchmark.results import append_result, drop_torn_line
from bimix_tune.benchmark.summary import failures
from bimix_tune.errors import CurveError


def result(draw, law="bimix", **scores):
    return Result("pile", "abc", 8, draw, law, **scores)


def test_a_result_survives_the_file(tmp_path):
    path = tmp_path / "results.jsonl"
    written = [result(0, error=0.25, seconds=1.5), result(1, failure="FitError: no")]
    for one in written:
        append_result(path, one)
    first, second = read_results(path)
    assert (first.key, first.error, first.seconds) == (written[0].key, 0.25, 1.5)
    assert math.isnan(first.r2)
    assert second.failure == "FitError: no"
    assert "NaN" not in path.read_text()


def test_no_file_no_results(tmp_path):
    drop_torn_line(tmp_path / "results.jsonl")
    assert read_results(tmp_path / "results.jsonl") == []


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"swarm": "a"}', '{"what": 1}'])
def test_a_file_of_something_else_is_refused(tmp_path, line):
    path = tmp_path / "results.jsonl"
    append_result(path, result(0))
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CurveError, match="line 2 is no result"):
        read_results(path)


def test_a_torn_line_is_cut_off(tmp_path):
    path = tmp_path / "results.jsonl"
    append_result(path, result(0))
    whole = path.read_text()
    with path.open("a") as file:
        file.write(whole[:30])
    drop_torn_line(path)
    assert path.read_text() == whole


def test_summaries_are_medians_but_coverage_is_a_mean():
    results = [
        result(0, error=0.01, r2=0.5, coverage=1.0, seconds=1.0),
        result(1, error=0.02, r2=-900.0, coverage=0.5, seconds=9.0),
        result(2, error=0.06, r2=0.9, coverage=0.9, seconds=2.0),
        result(3, failure="FitError: no"),
    ]
    (summary,) = summarise(results)
    assert (summary.draws, summary.failures) == (3, 1)
    assert (summary.error, summary.r2, summary.seconds) == (0.02, 0.5, 2.0)
    assert summary.coverage == pytest.approx(0.8)
    assert math.isnan(summary.spearman)
    cells = summary.cells()
    assert cells == ("bimix, 1 failed", "2.00 %", "0.50", "–", "–", "80 %", "–", "2.00")


def test_absurd_numbers_stay_short():
    (summary,) = summarise([result(0, r2=-1.23456e9)])
    assert summary.cells()[2] == "-1.2e+09"


def test_markdown_has_a_table_for_each_swarm_and_n():
    results = [result(0, error=0.01), result(0, "mean", error=0.5)]
    results.append(Result("other", "abc", 16, 0, "mean", error=0.25))
    results.append(Result("other", "abc", 16, 0, "mean", "extrapolate", error=0.0311))
    text = markdown(summarise(results))
    assert text.count("| law |") == 3
    assert "### final: pile\n\nFitted to 8 runs, 1 draws." in text
    assert "| mean | 25.0 % |" in text.split("### final: other")[1]
    assert "| mean | 3.11 % |" in text.split("### extrapolate: other")[1]


def test_failures_are_said_once_for_each_cause():
    results = [result(0), result(1, failure="FitError: no"), result(2, failure="FitError: no")]
    results += [result(1, "auto", failure="FitError: no"), result(2, "mean", failure="Died: x")]
    assert failures(results) == [
        "bimix (final), auto (final): 3 fits failed: FitError: no",
        "mean (final): 1 fits failed: Died: x",
    ]


def test_results_without_a_task_are_those_of_the_first(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"swarm": "a", "data": "b", "n": 8, "draw": 0, "law": "mean"}\n')
    assert read_results(path)[0].key == ("final", "a", "b", "", 8, 0, "mean")
