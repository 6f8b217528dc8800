import dataclasses
import math
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from bimix_tune.curves import LossCurve
from bimix_tune.errors import MissingExtraError
from bimix_tune.loop.result import SearchResult
from bimix_tune.report import verdict, write_report
from bimix_tune.space import SearchSpace, Target

SECTIONS = ["answer", "confirmation", "mixtures", "gains", "progress", "law", "curves", "runs"]
SECTIONS += ["settings"]
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a browser would see: ids, tags, links, and text outside scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.scripts = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id" and v]
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset", "data") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts += data if len(data) < 1_000_000 else ""
        elif self.open and self.open[-1] != "style":
            self.text += data + " "


def page_of(result: SearchResult, folder: Path) -> Page:
    page = Page(write_report(result, folder / "report.html"))
    assert not page.open
    return page


def test_a_whole_report(result: SearchResult, tmp_path: Path) -> None:
    page = page_of(result, tmp_path)
    assert [i for i in page.ids if i in SECTIONS] == SECTIONS
    assert len(page.ids) == len(set(page.ids))
    plots = {i for i in page.ids if i.startswith("plot-")}
    panels = {f"plot-law-{i}" for i in range(1 + len(result.space.target_names))}
    names = ("confirmation", "mixtures", "gains", "progress", "curves", "transfer", "effects")
    assert plots == panels | {f"plot-{n}" for n in names}
    assert verdict(result).sentence in page.text
    assert str(result.folder) in page.text and "made up" in page.text
    assert "DivergedError: loss became NaN" in page.text


def test_nothing_is_loaded_from_elsewhere(result: SearchResult, tmp_path: Path) -> None:
    page = page_of(result, tmp_path)
    assert page.links and all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert "link" not in page.tags and "img" not in page.tags and "iframe" not in page.tags


def test_user_strings_are_escaped(result: SearchResult, tmp_path: Path) -> None:
    nasty = "</script><script>alert(1)</script>"
    records = tuple(
        dataclasses.replace(r, cause=nasty, notes={nasty: nasty}) if r.state == "FAIL" else r
        for r in result.records
    )
    baselines = {**result.baselines, nasty: result.baselines["CE"]}
    space = SearchSpace(result.space.domains, result.space.targets, nasty)
    hostile = dataclasses.replace(
        result, records=records, baselines=baselines, space=space, folder=Path("runs/<i>")
    )
    page, plain = page_of(hostile, tmp_path), page_of(result, tmp_path)
    assert page.tags.count("script") == plain.tags.count("script")
    assert page.tags.count("b") == plain.tags.count("b") and "i>" not in page.tags
    assert "<b>&x" in page.text  # as text
    assert nasty in page.text
    assert "<b>&x" not in page.scripts and "alert(1)</" not in page.scripts


def test_plotly_is_inlined_once_and_the_page_is_small(large: SearchResult, tmp_path: Path) -> None:
    path = write_report(large, tmp_path / "report.html")
    assert path.stat().st_size < 6_000_000
    assert path.read_text(encoding="utf-8").count(get_plotlyjs()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_page_is_written_into_a_new_folder(result: SearchResult, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert write_report(result, path) == path and path.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fit": None}, "No law could be fitted"),
        ({"confirmation": None}, "Predicted by the law"),
        ({"fit": None, "confirmation": None}, "There are no losses of the recommendation"),
        ({"records": ()}, "No run was recorded"),
        ({"records": (), "baselines": {}, "fit": None, "confirmation": None}, "No run left"),
    ],
)
def test_partial_results(
    result: SearchResult, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    page = page_of(dataclasses.replace(result, **change), tmp_path)  # type: ignore[arg-type]
    assert said in page.text
    assert [i for i in page.ids if i in SECTIONS] == SECTIONS


def test_missing_losses(result: SearchResult, tmp_path: Path) -> None:
    def holed(curve: LossCurve | None) -> LossCurve | None:
        if curve is None:
            return None
        losses = np.array(curve.losses)
        losses[:, 1] = np.nan
        names = curve.targets
        return LossCurve(curve.mixture, curve.tokens, losses, names, curve.decayed, curve.seed)

    records = tuple(
        dataclasses.replace(r, curve=holed(r.curve), objective=math.nan) for r in result.records
    )
    page = page_of(dataclasses.replace(result, records=records), tmp_path)
    assert [i for i in page.ids if i in SECTIONS] == SECTIONS


def test_one_target(make: Callable[..., SearchResult], tmp_path: Path) -> None:
    space = SearchSpace(["own", "other"], [Target("exam", domain="own")])
    page = page_of(make(space, tmp_path / "one", 6, "bimix"), tmp_path)
    assert "1 target," in page.text
    assert "plot-transfer" not in page.ids  # the law knows the own domain only


PRODUCT, SUM = "L = (ε + r′)^−α (B s^−β + C)", "L = (B s^−β + C) (1 + Σ W h(r))"


def test_sums_over_domains_have_their_equation_and_their_figure(
    make: Callable[..., SearchResult], tmp_path: Path
) -> None:
    names = ["a", "b", "c"]
    own = [Target(n, domain=n) for n in names]
    both = SearchSpace(names, [*own, Target("exams"), Target("quiz")])
    page = page_of(make(both, tmp_path / "both", 6, "additive"), tmp_path)
    assert f"a, b, c: {PRODUCT}" in page.text and f"exams, quiz: {SUM}" in page.text
    assert {"plot-transfer", "plot-additive"} <= set(page.ids)
    alone = SearchSpace(names, [Target("exams")])
    page = page_of(make(alone, tmp_path / "alone", 6, "additive"), tmp_path)
    assert SUM in page.text and PRODUCT not in page.text
    assert "plot-additive" in page.ids and "plot-transfer" not in page.ids


def test_products_do_not_have_the_equation_of_a_sum(
    make: Callable[..., SearchResult], tmp_path: Path
) -> None:
    space = SearchSpace(["a", "b"], [Target("a", domain="a"), Target("exams")])
    page = page_of(make(space, tmp_path / "some", 6, "bimix"), tmp_path)
    assert PRODUCT in page.text and SUM not in page.text
    assert not {"plot-transfer", "plot-additive"} & set(page.ids)


def test_cautions(result: SearchResult, tmp_path: Path) -> None:
    assert result.fit is not None
    fit = dataclasses.replace(result.fit, warnings=("the fit is <doubtful>",))
    some = dataclasses.replace(
        result, fit=fit, target_tokens=10**12, recommendation=result.baselines["CE"]
    )
    text = page_of(some, tmp_path).text
    assert "the same mixture as the baseline CE" in text
    assert "saw at most 50 M tokens" in text and "1 T tokens" in text
    assert "the fit is <doubtful>" in text
    assert "saw at most" not in page_of(result, tmp_path).text


def test_without_plotly_the_extra_is_named(
    result: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("bimix_tune.report.")]:
        if name != "bimix_tune.report.verdict":
            monkeypatch.delitem(sys.modules, name)
    for name in [n for n in sys.modules if n.split(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bimix-tune\[report\]'"):
        write_report(result, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
