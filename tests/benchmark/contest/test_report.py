"""Tables and the page show every problem and strategy, and the page loads nothing."""

import re

import numpy as np
import pytest

from bimix_tune.benchmark.contest import Ground, Summary, failures, markdown, sheets, write_page

STRATEGIES = (
    "random",
    "tpe-ilr",
    "bimix",
    "bimix-tune",
    "gp <b>",
    *(f"peer {i}" for i in range(9)),
)


@pytest.fixture
def summary(make_match):
    def make(
        problems=("pool one", "<i>bowl</i>", "third"), strategies=STRATEGIES, skip=(), **options
    ):
        rng = np.random.default_rng(0)
        matches = []
        for problem in problems:
            for at, strategy in enumerate(strategies):
                for seed in range(4):
                    regret = tuple(np.cumprod(rng.uniform(0.4 + 0.04 * at, 1, size=8)))
                    if (problem, strategy) not in skip:
                        matches.append(make_match(problem, strategy, seed, regret))
        grounds = [Ground(p, "pool", {0.05: 0.2, 0.01: 0.05}) for p in problems]
        return Summary(matches, grounds, **options)

    return make


def test_sheets_have_a_row_for_each_strategy_in_order_of_rank(summary):
    made = summary()
    found = {s.name: s for s in sheets(made)}
    assert list(found) == ["ranks", "final", "tops", "tokens", "recommended", "effort"]
    for sheet in found.values():
        assert [row[0] for row in sheet.rows] == made.strategies
        assert {len(row) for row in sheet.rows} == {len(sheet.head)}
    assert found["final"].head[1:] == ("mean", "pool one", "<i>bowl</i>", "third")
    for column in range(1, 5):
        values = [float(row[column]) for row in found["final"].rows]
        best = {i for i, j in found["final"].best if j == column}
        assert min(values) == values[best.pop()]
    reference = made.strategies.index("tpe-ilr")
    assert found["tokens"].rows[reference][1:] == ("1.00",) * 3
    assert made.ours == ["bimix-tune", *(n for n in made.strategies if n == "bimix")]
    assert found["ranks"].head[-1] == f"{made.ours[0]} wins"
    assert found["ranks"].rows[made.strategies.index(made.ours[0])][-1] == "–"


def test_what_is_not_reached_is_more_than_there_was(summary, make_match):
    matches = [make_match(strategy=n, regret=r) for n, r in (
        ("tpe-ilr", (0.5, 0.2)), ("random", (0.5, 0.4)),
    )]  # fmt: skip
    made = Summary(matches, [Ground("bowl", "pool", {0.05: 0.1, 0.01: 0.1})])
    found = {s.name: dict(r[:2] for r in s.rows) for s in sheets(made)}
    assert found["tops"] == {"tpe-ilr": "> 2", "random": "> 2"}
    assert found["tokens"] == {"tpe-ilr": "1.00", "random": "> 1.00"}


def test_without_the_reference_there_is_no_table_of_tokens(summary):
    made = summary(reference="nobody")
    assert "tokens" not in {s.name for s in sheets(made)}


def test_wide_sheets_come_in_parts(summary):
    final = next(s for s in sheets(summary()) if s.name == "final")
    assert final.widths == (10, 5, 5, 11, 5)  # bimix-tune, 0.123, 0.123, <i>bowl</i>, third
    parts = list(final.parts(40))
    assert [p.head for p in parts] == [final.head[:4], ("strategy", "third")]
    assert {(i, j) for i, j in parts[1].best} == {(i, 1) for i, j in final.best if j == 4}
    assert [p.head[1:] for p in final.parts(1)] == [(name,) for name in final.head[1:]]


def test_markdown_has_all_tables_and_what_went_wrong(summary, make_match):
    made = summary(passed_over=("entropy does not play third: no corpus",), command="bimix-tune x")
    text = markdown(made)
    assert text.count("| strategy |") == 6
    assert "- entropy does not play third: no corpus" in text
    assert "    bimix-tune x" in text
    assert "**" in text
    broken = Summary(
        [make_match(failure="KeyError: 1")] * 2, [Ground("bowl", "pool", {0.05: 1, 0.01: 1})]
    )
    assert failures(broken) == ["random on bowl, 2 matches: KeyError: 1"]
    assert "- random on bowl, 2 matches: KeyError: 1" in markdown(broken)


def test_the_page_stands_alone_and_shows_everything(summary, tmp_path):
    pytest.importorskip("plotly")
    made = summary(command="bimix-tune benchmark strategies --seeds 4", skip=[("third", "random")])
    text = write_page(made, tmp_path / "report.html").read_text()
    body = re.sub(r"<script>.*?</script>", "", text, count=1, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!#)', body)
    assert "https://" not in re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
    assert "<i>bowl</i>" not in body
    for name in ("pool one", "&lt;i&gt;bowl&lt;/i&gt;", "third", *STRATEGIES[:4], *STRATEGIES[5:]):
        assert name in body
    for plot in ("ranks", "runs", "tokens", "final", "recommended", "times"):
        assert f'id="plot-{plot}"' in body
    assert "bimix-tune benchmark strategies --seeds 4" in body
    assert "did not play every problem: random" in body


@pytest.mark.parametrize("count", [1, 2])
def test_small_contests_have_a_page_too(summary, tmp_path, count):
    pytest.importorskip("plotly")
    made = summary(problems=("a", "b")[:count], strategies=STRATEGIES[:count])
    assert "Ranking" in write_page(made, tmp_path / "report.html").read_text()


def test_no_two_names_of_the_diagram_overlap_and_ours_is_in_front(summary):
    pytest.importorskip("plotly")
    from bimix_tune.benchmark.contest import plots
    from bimix_tune.benchmark.contest.diagram import LINE, diagram
    from bimix_tune.report import theme

    made = summary(problems=tuple(f"p{i}" for i in range(12)))
    figure = diagram(made, made.comparison)
    for side in ("left", "right"):
        heights = sorted(a.y for a in figure.layout.annotations if a.xanchor == side and a.y > 0)
        assert len(heights) == 7
        assert np.diff(heights).min() >= LINE
    lines = plots.against_runs(made).data
    assert lines[-1].line.color == theme.ACCENT
    shown = [t.name for t in lines if t.showlegend]
    assert len(shown) == len(set(shown)) == len(STRATEGIES)
