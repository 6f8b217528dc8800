import numpy as np

from bimix_tune.report import plots_law, theme


def test_held_out_leaves_out_what_was_not_measured() -> None:
    figure = plots_law.held_out(
        ["1", "<2>", "3"],
        np.array([1.0, 2.0, 3.0]),
        np.array([1.1, 2.2, np.nan]),
        "bits/byte",
        "#000",
    )
    diagonal, points = figure.data
    assert list(points.x) == [1.0, 2.0] and list(points.y) == [1.1, 2.2]
    assert list(points.text) == ["1", "&lt;2&gt;"]
    assert list(diagonal.x) == list(diagonal.y) == [1.0, 2.2]
    assert "bits/byte" in figure.layout.xaxis.title.text


def test_held_out_of_nothing_is_empty() -> None:
    nothing = np.full(2, np.nan)
    figure = plots_law.held_out(["1", "2"], nothing, nothing, "bits/byte", "#000")
    assert len(figure.data[1].x) == 0


def test_agreement() -> None:
    observed = np.array([1.0, 2.0, 4.0])
    assert plots_law.agreement(1.1 * observed, observed) == "error 10 %, ranks 1.00"
    assert plots_law.agreement(-observed, observed).endswith("ranks -1.00")
    assert plots_law.agreement(observed[:2], observed[:2]) == "error 0 %"
    assert plots_law.agreement(np.ones(3), observed) == "error 42 %"
    assert plots_law.agreement(observed, np.full(3, np.nan)) == "not measured"


def test_transfer_keeps_rows_and_columns_apart() -> None:
    matrix = np.array([[1.0, 0.2, 0.001], [0.0, 1.0, 0.5]])
    figure = plots_law.transfer(matrix, ["t", "<u>"], ["a", "b", "c"])
    np.testing.assert_array_equal(figure.data[0].z, matrix)
    assert list(figure.data[0].text[0]) == ["1.00", "0.20", "0"]
    assert list(figure.data[0].text[1]) == ["0", "1.00", "0.50"]
    assert figure.layout.yaxis.ticktext == ("t", "&lt;u&gt;")
    assert figure.layout.xaxis.ticktext == ("a", "b", "c")


def test_coefficients_of_a_sum_fill_their_scale() -> None:
    figure = plots_law.additive(np.array([[0.024, 0.0004, 0.2]]), ["t"], ["a", "b", "c"])
    assert list(figure.data[0].text[0]) == ["0.024", "0", "0.200"]
    assert figure.data[0].zmax == 0.2
    assert plots_law.additive(np.zeros((1, 2)), ["t"], ["a", "b"]).data[0].zmax == 1.0


def test_effects_are_blue_where_a_loss_falls_and_begin_with_the_objective() -> None:
    matrix = np.array([[0.0, -0.001], [-5.123, 2.0], [1.0, 0.5]])
    figure = plots_law.effects(matrix, ["t", "<u>"], ["a", "b"], "bits/byte")
    trace = figure.data[0]
    assert figure.layout.yaxis.ticktext == ("objective", "t", "&lt;u&gt;")
    assert [list(row) for row in trace.text[:2]] == [["0.00", "0.00"], ["-5.12", "+2.00"]]
    assert (trace.zmin, trace.zmax) == (-5.123, 5.123)
    assert trace.colorscale[0] == (0.0, theme.DIVERGING[-1][1])
    assert trace.colorscale[-1] == (1.0, theme.DIVERGING[0][1])
    large = plots_law.effects(100 * matrix, ["t", "u"], ["a", "b"], "bits/byte").data[0]
    assert large.text[1][0] == "-512"


def test_lines_and_nothing_have_a_scale_about_zero() -> None:
    trace = plots_law.linear(np.array([[0.1, -0.4]]), ["t"], ["a", "b"]).data[0]
    assert list(trace.text[0]) == ["+0.100", "-0.400"]
    assert (trace.zmin, trace.zmax) == (-0.4, 0.4)
    assert plots_law.linear(np.zeros((1, 2)), ["t"], ["a", "b"]).data[0].zmax == 1.0
