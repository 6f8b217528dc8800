import dataclasses
import math
from typing import Any

import numpy as np

from bimix_tune.loop.result import CONFIRMATION, RunRecord, SearchResult, search_records
from bimix_tune.report import plots_search
from bimix_tune.report.losses import weighted


def traces(figure: Any) -> dict[str, Any]:
    """Traces in the legend by name."""
    return {t.name: t for t in figure.data if t.showlegend is not False}


def test_progress_shows_every_run_of_the_search_once(result: SearchResult) -> None:
    figure = plots_search.progress(result)
    found = traces(figure)
    marks = [t for t in figure.data if t.name.startswith(("base", "start", "prop", "fail"))]
    drawn = sorted(x for t in marks for x in t.x if not math.isnan(x))
    assert drawn == [r.number for r in search_records(result.records)]
    assert found["proposal, stopped"].marker.color == "white"
    assert "DivergedError" in found["failed (no result)"].text[0]


def test_best_line_never_rises_and_counts_complete_runs_only(result: SearchResult) -> None:
    best = traces(plots_search.progress(result))["best so far"]
    values = np.array(best.y)
    assert (np.diff(values) <= 0).all()
    records = search_records(result.records)
    assert values[-1] == min(r.objective for r in records if r.state == "COMPLETE" and r.objective)


def test_expectations_carry_their_deviation(result: SearchResult) -> None:
    shown = traces(plots_search.progress(result))["expected by the law (± 1 sd)"]
    known = [r for r in search_records(result.records) if r.predicted]
    assert list(shown.y) == [r.predicted[0] for r in known if r.predicted]
    assert set(shown.error_y.array) == {0.012}


def test_an_outlier_does_not_flatten_the_axis(result: SearchResult) -> None:
    first = result.records[5]
    wild = dataclasses.replace(first, objective=1e3)
    records = tuple(wild if r is first else r for r in result.records)
    figure = plots_search.progress(dataclasses.replace(result, records=records))
    tops = [np.nanmax(t.y) for t in figure.data if t.mode == "markers" and t.text]
    assert max(tops) < 10
    inside, beyond = (t for t in figure.data if t.name == "startup")
    assert inside.marker.symbol == "diamond" and beyond.marker.symbol == "triangle-up"
    assert list(beyond.x) == [first.number] and "1000.0000" in beyond.text[0]


def test_all_baselines_are_in_sight_although_most_runs_are_near_the_best(
    result: SearchResult,
) -> None:
    values = {"natural": 3.5, "uniform": 3.3}
    records = tuple(
        dataclasses.replace(r, objective=values.get(r.label, 3.0 + 1e-3 * r.number))
        for r in search_records(result.records)
    )
    figure = plots_search.progress(dataclasses.replace(result, records=records))
    shown = traces(figure)["baseline"]
    assert max(shown.y) == 3.5 and shown.marker.symbol == "square"


def test_progress_of_runs_without_losses(result: SearchResult) -> None:
    dead = RunRecord(0, "proposal", "", "FAIL", None, None, None, None, 0, math.nan, "x")
    odd = dataclasses.replace(dead, number=1, state="COMPLETE", objective=math.nan)
    waiting = dataclasses.replace(dead, number=2, state="WAITING", cause="")
    some = dataclasses.replace(result, records=(dead, odd, waiting))
    assert [t.name for t in plots_search.progress(some).data] == ["failed (no result)"]


def test_curves_have_a_choice_of_targets(result: SearchResult) -> None:
    figure = plots_search.curves(result)
    names = ["objective", *result.space.target_names]
    buttons = figure.layout.updatemenus[0].buttons
    assert [b.label for b in buttons] == [n.replace("&", "&amp;").replace("<", "&lt;").replace(
        ">", "&gt;") for n in names]  # fmt: skip
    groups = len(figure.data) // len(names)
    for column, button in enumerate(buttons):
        visible = np.array(button.args[0]["visible"]).reshape(len(names), groups)
        assert visible[column].all() and visible.sum() == groups
        assert result.unit in button.args[1]["yaxis.title.text"]
    assert figure.layout.xaxis.type == "log"


def test_curves_draw_the_recorded_losses(result: SearchResult) -> None:
    own = next(t for t in plots_search.curves(result).data if t.name == "recommendation")
    runs = [r for r in result.records if r.role == CONFIRMATION and r.label == "recommendation"]
    ends = [float(weighted(r.curve.losses[-1], result.space)) for r in runs if r.curve]
    gaps = np.flatnonzero(np.isnan(own.y))
    np.testing.assert_allclose(np.array(own.y)[gaps - 1], ends, rtol=1e-6)


def test_many_curves_are_thinned(result: SearchResult) -> None:
    proposal = next(r for r in result.records if r.role == "proposal")
    many = tuple(dataclasses.replace(proposal, number=i) for i in range(400))
    figure = plots_search.curves(dataclasses.replace(result, records=many))
    assert figure.data[0].name == f"runs of the search ({plots_search.MOST_CURVES})"
    assert np.isnan(figure.data[0].y).sum() == plots_search.MOST_CURVES
