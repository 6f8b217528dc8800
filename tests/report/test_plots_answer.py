import math

import numpy as np

from bimix_tune.loop.result import RECOMMENDATION, SearchResult, compare
from bimix_tune.report import plots_answer
from bimix_tune.report.losses import TargetLosses


def test_bars_fill_the_whole_and_names_are_escaped(large: SearchResult) -> None:
    shown = {RECOMMENDATION: large.recommendation, **large.baselines}
    figure = plots_answer.mixtures(large.space, shown)
    assert len(figure.data) == 17
    np.testing.assert_allclose(np.sum([bar.x for bar in figure.data], axis=0), 100)
    last = figure.data[-1]
    np.testing.assert_allclose(np.array(last.base, float) + np.array(last.x, float), 100)
    looks = {(bar.marker.color, bar.marker.pattern.shape) for bar in figure.data}
    assert len(looks) == 17
    assert figure.layout.yaxis.ticktext == tuple(shown)


def test_names_are_escaped(result: SearchResult) -> None:
    figure = plots_answer.mixtures(result.space, {"<i>": result.recommendation})
    assert figure.layout.yaxis.ticktext == ("&lt;i&gt;",)
    assert "&lt;b&gt;&amp;x" in [bar.name for bar in figure.data]
    assert all("<b>&x" not in bar.hovertemplate for bar in figure.data)


def test_forest_shows_mean_interval_and_zero(result: SearchResult) -> None:
    found = result.confirmation
    assert found is not None
    figure = plots_answer.forest(found, result.unit)
    points = figure.data[1:]
    assert [p.x[0] for p in points] == [c.mean for c in found.comparisons]
    halves = [p.error_x.array[0] for p in points]
    np.testing.assert_allclose(halves, [c.high - c.mean for c in found.comparisons])
    assert figure.layout.shapes[0].x0 == figure.layout.shapes[0].x1 == 0
    assert result.unit in figure.layout.xaxis.title.text
    low, high = figure.layout.xaxis.range
    assert low < 0 < max(c.high for c in found.comparisons) < high


def test_forest_of_one_seed_has_no_interval() -> None:
    found = compare({RECOMMENDATION: {1: 3.0}, "CE": {1: 3.1}})
    assert found is not None
    point = plots_answer.forest(found, "bits/byte").data[1]
    assert point.error_x.array == (0,) and "no interval" in point.hovertemplate
    assert point.marker.color == "white"  # hollow: nothing is claimed


def test_gains_are_positive_where_the_recommendation_is_better(result: SearchResult) -> None:
    v = len(result.space.target_names)
    own = np.ones(v)
    other = own + np.array([0.2, -0.1, 0.0, np.nan, 0.4])
    beyond = np.ones((v + 1, 1), dtype=bool)
    beyond[2] = False
    losses = TargetLosses("made up", own, {"<CE>": other}, beyond)
    figure = plots_answer.gains(losses, result.space, result.unit)
    column = np.array(figure.data[0].z)[:, 0]
    np.testing.assert_allclose(column[1:], [0.2, -0.1, 0.0, np.nan, 0.4])
    assert math.isnan(column[0])  # an objective with a missing part is not known
    texts = [row[0] for row in figure.data[0].text]
    assert texts == ["–", "+0.200", "(-0.100)", "0.000", "–", "+0.400"]
    assert figure.data[0].zmin == -figure.data[0].zmax
    assert figure.layout.xaxis.ticktext == ("&lt;CE&gt;",)
