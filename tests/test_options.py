"""Options of a run file are checked against the types that a class declares."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bimix_tune.errors import ConfigError
from bimix_tune.options import names, typed

TYPES = {
    "count": int,
    "maybe": int | None,
    "rate": float,
    "limit": float | None,
    "list": tuple[str, ...],
    "words": str | Sequence[str],
    "path": str | Path | None,
    "model": str | Path | Mapping[str, Any],
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", "2k", 2000),
        ("count", 3.0, 3),
        ("maybe", None, None),
        ("maybe", "1M", 1_000_000),
        ("rate", "1e-3", 0.001),
        ("rate", 2, 2.0),
        ("limit", None, None),
        ("list", ["a", 2024], ("a", "2024")),
        ("words", "a b", "a b"),
        ("words", ["a", 3], ["a", "3"]),
        ("path", Path("x"), Path("x")),
        ("model", {"n_layer": 2}, {"n_layer": 2}),
    ],
)
def test_values_become_what_is_declared(name, value, expected):
    got = typed("trainer", TYPES, {name: value})[name]
    assert (got, type(got)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("count", "two", "must be a whole number"),
        ("count", None, "must be a whole number"),
        ("maybe", float("inf"), "must be a whole number"),
        ("rate", "x", "must be a valid number"),
        ("rate", float("inf"), "must be a finite number"),
        ("limit", True, "must be a number"),
        ("list", "code", "must be a valid list"),
        ("list", [["a"]], "must be a valid string"),
        ("words", {"a": 1}, "must be a valid string"),
        ("path", [], "must be a valid string"),
    ],
)
def test_other_values_are_named(name, value, rule):
    with pytest.raises(ConfigError, match=rf"^trainer\.{name} {rule}.*but got") as error:
        typed("trainer", TYPES, {name: value})
    assert str(error.value).endswith(f"but got {value!r}")


def test_a_text_is_no_list_of_letters():
    assert names("targets", ["a", "b"]) == ("a", "b")
    with pytest.raises(
        ConfigError, match=r"targets must be a list, but got 'code': write \[code\]"
    ):
        names("targets", "code")
