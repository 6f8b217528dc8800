"""Counts as people write them."""

import pytest

from bimix_tune.errors import ConfigError
from bimix_tune.quantities import LARGEST, parse_count


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("60k", 60_000),
        (" 1.5 m ", 1_500_000),
        ("1.1M", 1_100_000),
        ("100B", 10**11),
        ("3T", 3 * 10**12),
        ("1e6", 10**6),
        (1e6, 10**6),
        ("60_000", 60_000),
        ("-5", -5),
        (7, 7),
    ],
)
def test_counts_are_read(value, count):
    got = parse_count(value)
    assert (got, type(got)) == (count, int)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "k",
        "two",
        "1.5",
        2.5,
        "1.0001k",
        "1e-3",
        float("inf"),
        float("nan"),
        True,
        None,
        [1],
        "1e999",
        LARGEST + 1,
        "5 5",
        "5kk",
    ],
)
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(
        ConfigError, match=r"^x must be a whole number such as .*, but got"
    ) as error:
        parse_count(value, "x")
    assert str(error.value).endswith(repr(value))
