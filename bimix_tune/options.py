"""Options by name, as they come from YAML, checked against the types that a class declares.

Trainers, executors and sources of text are plain classes; a run file gives their arguments by
name. Checked here once, a wrong value is one message that names its key, whatever the class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, get_args

from bimix_tune.errors import ConfigError
from bimix_tune.quantities import parse_count


def typed(what: str, types: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with their values turned into the types declared.

    Whole numbers may have a suffix (``60k``), other numbers may be text (YAML 1.1 reads ``1e-3``
    as text), tuples may be lists; a text is never taken for a list of letters.

    Args:
        what: Name of the section, for errors.
        types: Types by option; every option must be among them.
        options: Values by option.

    Raises:
        ConfigError: A value is not of its type.
    """
    return {name: _typed(f"{what}.{name}", types[name], v) for name, v in options.items()}


def _typed(key: str, kind: Any, value: Any) -> Any:
    kinds = get_args(kind) or (kind,)
    if value is None and NoneType in kinds:
        return None
    if int in kinds:
        return parse_count(value, key)
    from pydantic import ConfigDict, TypeAdapter, ValidationError  # late: only run files need it

    rules = ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True)
    try:
        if float in kinds and isinstance(value, bool):  # which pydantic takes for 0 or 1
            raise ConfigError(f"{key} must be a number, but got {value!r}")
        return TypeAdapter(kind, config=rules).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].replace("Input should", "must").replace("tuple", "list")
        raise ConfigError(f"{key} {message}, but got {value!r}") from error


def names(key: str, value: Iterable[str]) -> tuple[str, ...]:
    """A list of names, which a single text is not.

    Raises:
        ConfigError: It is a single text.
    """
    if isinstance(value, str):
        raise ConfigError(f"{key} must be a list, but got {value!r}: write [{value}]")
    return tuple(value)
