"""The page is whole, loads nothing, and shows the numbers."""

import re

import numpy as np
import pytest

pytest.importorskip("plotly")

from bimix_tune.benchmark import Result, plots, summarise, write_page
from bimix_tune.benchmark.heat_map import heat_map
from bimix_tune.benchmark.ranking import rank

LAWS = ["auto", *(f"law {i}" for i in range(12)), "mean", "auto + small"]


def summaries(laws=LAWS, swarms=("pile 1M", "<b>web</b> 2M"), tasks=("final",), runs=(8, 16, 32)):
    rng = np.random.default_rng(0)
    return summarise(
        Result(
            swarm, "abc", n, draw, law, task,
            error=float(rng.uniform(0.01, 0.1)),
            spearman=float(rng.uniform(-0.2, 1)),
            coverage=0.95 if law == "auto" else float("nan"),
            seconds=0.2,
        )
        for task in tasks for swarm in swarms for n in runs for law in laws for draw in range(2)
    )  # fmt: skip


def test_the_page_stands_alone_and_shows_every_law(tmp_path):
    path = write_page(summaries(tasks=("final", "scales")), tmp_path / "report.html")
    text = path.read_text()
    body = re.sub(r"<script>.*?</script>", "", text, count=1, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!#)', body)
    assert "<b>web</b>" not in body
    for law in LAWS:
        assert law in body
    for name in ("final-rank-error", "final-error", "final-spearman", "scales-coverage"):
        assert f'id="plot-{name}"' in body
    assert 'id="extrapolate"' not in body


def test_auto_is_in_front_and_no_two_other_laws_look_the_same():
    figure = plots.against_runs(summaries(), plots.ERROR)
    shown = {t.name: t for t in figure.data if t.showlegend}
    assert set(shown) == set(LAWS)
    assert figure.data[-1].name in plots.MAIN
    assert shown["auto"].line.width > 2 * shown["law 3"].line.width
    looks = {(t.line.color, t.line.dash, t.marker.symbol) for t in shown.values()}
    assert len(looks) == len(LAWS)


def test_panels_have_a_line_for_each_law_that_has_the_score():
    figure = plots.against_runs(summaries(), plots.COVERAGE)
    assert [t.name for t in figure.data] == ["auto", "auto"]
    assert [tuple(t.x) for t in figure.data] == [(8, 16, 32)] * 2
    assert figure.data[0].text == ("95%",) * 3
    band = figure.layout.shapes[0]
    assert (band.y0, band.y1) == (0.93, 0.97)


def test_the_axis_of_rank_correlations_is_stretched_towards_one():
    heights = [plots.RHO.shown(v) for v in (-0.5, 0.0, 0.9, 0.99, 1.0)]
    assert heights[:4] == pytest.approx([0.0, 0.0, 1.0, 2.0])
    assert heights[4] == plots.RHO.shown(0.9999) < 4


def test_the_best_of_each_column_of_the_heat_map_is_darkest():
    found = rank(summaries(), "error")
    (trace,) = heat_map(found, plots.ERROR).data
    z = np.array(trace.z)
    assert z.shape == (len(LAWS), 6)
    np.testing.assert_array_equal(z.argmax(axis=0), found.values.argmin(axis=0))
    assert z.max(axis=0) == pytest.approx(np.ones(6))


def test_a_ranking_of_correlations_survives_perfect_and_missing_ones():
    given = [Result("a", "b", 8, 0, law, spearman=rho) for law, rho in (("x", 1.0), ("y", 0.5))]
    given += [Result("a", "b", 16, 0, "x", spearman=0.2), Result("a", "b", 16, 0, "y")]
    (trace,) = heat_map(rank(summarise(given), "spearman", True), plots.RHO).data
    assert list(trace.text[0]) == ["1.000", "0.20"]
    assert list(trace.text[1]) == ["0.50", "–"]


def test_cells_of_many_columns_are_short():
    few, many = summaries(), summaries(swarms=[f"data_set {i}M" for i in range(7)])
    for given, shape in ((few, r"\d\.\d\d|10\.\d|10"), (many, r"\d\.\d|10")):
        (trace,) = heat_map(rank(given, "error"), plots.ERROR).data
        cells = [cell for row in trace.text for cell in row]
        assert all(re.fullmatch(shape, cell) for cell in cells)
    (trace,) = heat_map(rank(many, "spearman", True), plots.RHO).data
    assert all(re.fullmatch(r"-?\.\d\d", cell) for row in trace.text for cell in row)
