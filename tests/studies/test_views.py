"""What Optuna's plots and its dashboard make of a study whose parameters are proportions."""

import io
import json
import warnings

import pytest
from optuna import visualization

from bimix_tune import objective_values, report_losses, suggest_mixture

PAIR = ["r_web", "r_code"]
OPTIONS = {
    "plot_contour": {"params": PAIR},
    "plot_rank": {"params": PAIR},
}
"""Plots of pairs of parameters, where all pairs would take long."""
SEVERAL = ("plot_pareto_front", "plot_hypervolume_history")
SINGLE = [n for n in visualization.__all__ if n.startswith("plot_") and n not in SEVERAL]


@pytest.fixture(scope="module")
def study(problem):
    study = problem.study()
    study.optimize(problem.objective, n_trials=8)
    return study


@pytest.fixture(scope="module")
def pareto(problem):
    goals = ("code", {"web": 1, "books": 2})

    def objective(trial):
        losses = problem.losses(suggest_mixture(trial, problem.space))
        report_losses(trial, 1000, losses)
        return objective_values(losses, goals)

    study = problem.study(problem.sampler(objectives=goals), directions=["minimize"] * 2)
    study.optimize(objective, n_trials=8)
    return study


def draw(module, name, study, **options):
    function = getattr(module, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental functions, and their libraries' own
        return function([study] if name == "plot_edf" else study, **options)


def test_there_are_plots():
    assert {"plot_slice", "plot_param_importances", "plot_parallel_coordinate"} <= set(SINGLE)


@pytest.mark.parametrize("name", SINGLE)
def test_plots(study, name):
    pytest.importorskip("plotly")
    figure = draw(visualization, name, study, **OPTIONS.get(name, {}))
    assert figure.data or figure.layout.shapes


@pytest.mark.parametrize("name", SINGLE)
def test_plots_of_matplotlib(study, name):
    pytest.importorskip("matplotlib").use("Agg")
    if not hasattr(visualization.matplotlib, name):
        pytest.skip("has no twin there")
    assert draw(visualization.matplotlib, name, study, **OPTIONS.get(name, {})) is not None


def test_a_slice_shows_real_proportions(study):
    pytest.importorskip("plotly")
    figure = draw(visualization, "plot_slice", study)
    shown = {axis.title.text for axis in figure.select_xaxes()}
    assert shown == {"r_web", "r_code", "r_books", "r_law"}
    columns = [trace.x for trace in figure.data]
    assert [sum(row) for row in zip(*columns, strict=True)] == pytest.approx([1] * 8, abs=1e-9)


@pytest.mark.parametrize("name", SEVERAL)
def test_plots_of_several_objectives(pareto, name):
    pytest.importorskip("plotly")
    options = {} if name == "plot_pareto_front" else {"reference_point": [10.0, 10.0]}
    assert draw(visualization, name, pareto, **options).data


def request(app, path):
    """The JSON that a WSGI application answers; no network is needed."""
    status = []
    environment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
    }
    body = b"".join(app(environment, lambda line, headers, *_: status.append(line)))
    assert status == ["200 OK"], body
    return json.loads(body)


def test_the_dashboard_lists_mixtures(study, pareto):
    app_module = pytest.importorskip("optuna_dashboard._app", exc_type=ImportError)
    for shown in (study, pareto):
        app = app_module.create_app(shown._storage)
        (listed,) = request(app, "/api/studies")["study_summaries"]
        detail = request(app, f"/api/studies/{listed['study_id']}")
        assert len(detail["trials"]) == 8
        for trial in detail["trials"]:
            shares = {p["name"]: float(p["param_internal_value"]) for p in trial["params"]}
            assert set(shares) == {"r_web", "r_code", "r_books", "r_law"}
            assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
