import dataclasses

from bimix_tune.loop.result import SearchResult
from bimix_tune.report import tables, theme
from bimix_tune.report.markup import Markup, table
from bimix_tune.space import Domain, SearchSpace


def test_cells_are_escaped_unless_they_are_markup() -> None:
    text = table(["<h>", "n"], [["a&b", Markup("<i>ok</i>")]])
    assert "&lt;h&gt;" in text and "a&amp;b" in text
    assert '<td class="n"><i>ok</i></td>' in text


def test_recommendation_is_sorted_and_counts_epochs(result: SearchResult) -> None:
    space = SearchSpace([Domain("a", tokens=100), Domain("b", tokens=300)])
    some = dataclasses.replace(
        result, space=space, recommendation=space.mixture([0.2, 0.8]), target_tokens=1000
    )
    text = tables.recommendation(some)
    assert text.index(">b<") < text.index(">a<")
    assert ">80.0 %<" in text and ">75.0 %<" in text and ">2.67<" in text and ">2.00<" in text
    assert ">natural<" in text


def test_without_priors_the_comparison_is_with_equal_shares(result: SearchResult) -> None:
    space = SearchSpace(["a", "b"])
    some = dataclasses.replace(result, space=space, recommendation=space.mixture([0.0, 1.0]))
    text = tables.recommendation(some)
    assert ">equal<" in text and "epochs" not in text
    assert "left out" in text and ">0 %<" in text


def test_domains_of_partly_known_size_have_a_dash_for_epochs(result: SearchResult) -> None:
    space = SearchSpace([Domain("a", tokens=100), Domain("b")])
    some = dataclasses.replace(result, space=space, recommendation=space.uniform())
    assert ">–<" in tables.recommendation(some)


def test_states_and_failures(result: SearchResult) -> None:
    text = tables.states(result.records)
    assert "<td>proposal</td>" in text and ">pruned<" in text
    dead = next(r for r in result.records if r.state == "FAIL")
    twice = [dead, dataclasses.replace(dead, number=99), dataclasses.replace(dead, cause="")]
    said = tables.failures(twice)
    assert f"run {dead.number}, 99: {dead.cause}" in said and "cause not recorded" in said
    assert tables.failures([]) == ""


def test_notes_are_merged(result: SearchResult) -> None:
    found = tables.notes(result.records)
    assert found["device"] == "cpu" and found["parameters"] == "3.1 M"
    epochs = [r.notes["epochs"] for r in result.records if "epochs" in r.notes]
    assert found["epochs"] == f"{min(epochs):.4g} to {max(epochs):.4g}"
    mixed = [dataclasses.replace(result.records[0], notes={"host": h}) for h in ("a", "b", "a")]
    assert tables.notes(mixed)["host"] == "2 values"


def test_labels_are_shortened_in_the_middle() -> None:
    name = "a" * 40 + "<z"
    assert theme.label(name, 10) == "aaaaaa…a&lt;z"
    assert len({(theme.colour(i), theme.hatch(i)) for i in range(40)}) == 40
    assert theme.ACCENT not in {theme.baseline_colour(i) for i in range(20)}
