"""Secrets in text: they come from the environment and are shown nowhere."""

from __future__ import annotations

import os
import re

from bimix_tune.errors import ConfigError

_IN_URL = re.compile(r"(://[^:@/\s]*:)[^@\s]+@")
_IN_QUERY = re.compile(r"([?&]\w*(?:password|passwd|pwd|token|secret)=)[^&\s\"']+", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def masked(text: str) -> str:
    """The text with the passwords of the URLs in it replaced by ``***``.

    >>> masked("cannot open postgresql://me:secret@host/db?sslpassword=x")
    'cannot open postgresql://me:***@host/db?sslpassword=***'
    """
    return _IN_QUERY.sub(r"\1***", _IN_URL.sub(r"\1***@", text))


def expanded(key: str, text: str) -> str:
    """The text with ``$NAME`` and ``${NAME}`` replaced by environment variables.

    Args:
        key: What the text is, for the error.
        text: With or without references.

    Raises:
        ConfigError: A variable is not set.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            raise ConfigError(
                f"{key} names the environment variable {name!r}, which is not set; "
                "a '$' that is part of a URL is written %24"
            )
        return os.environ[name]

    return _VARIABLE.sub(value, text)
