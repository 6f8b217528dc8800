"""Numbers of tokens, parameters and bytes as people write them: ``60k``, ``1.5M``, ``3T``, ``1e9``.

YAML 1.1 reads ``1e9`` as text and knows no suffixes, so everything that takes a count from a
user reads it here.
"""

from __future__ import annotations

import re
from decimal import Decimal

from bimix_tune.errors import ConfigError

SUFFIXES = {"": 0, "k": 3, "m": 6, "b": 9, "t": 12}
"""Decimal exponents by suffix; the case does not matter."""
LARGEST = 10**18

_COUNT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?)\s*([kmbt]?)", re.ASCII)


def parse_count(value: object, name: str = "a count") -> int:
    """The whole number that a text or a number means.

    Args:
        value: ``60_000``, ``6e4``, ``"60k"``, ``"0.06M"``, ``"6e4"`` ...
        name: What it is, for the error.

    Raises:
        ConfigError: It is no whole number, or beyond `LARGEST`.

    >>> parse_count("1.5M"), parse_count("3T"), parse_count(1e6)
    (1500000, 3000000000000, 1000000)
    """
    text = "" if isinstance(value, bool) else str(value).replace("_", "").strip().lower()
    found = _COUNT.fullmatch(text)
    number = Decimal(found[1]).scaleb(SUFFIXES[found[2]]) if found else Decimal("Infinity")
    if abs(number) > LARGEST or number != int(number):
        raise ConfigError(
            f"{name} must be a whole number such as 5000, 60k, 1.5M or 1e9, but got {value!r}"
        )
    return int(number)
