"""Run files: a YAML file says what to search; every key is checked before any work begins.

`bimix_tune.planning` turns a run file into objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from bimix_tune.errors import ConfigError, did_you_mean
from bimix_tune.masking import expanded, masked
from bimix_tune.quantities import parse_count
from bimix_tune.tracking import check_trackers

CACHE = Path("~/.cache/bimix-tune")


def _kind(value: Any) -> Any:
    """Read ``executor: local`` as ``executor: {type: local}``."""
    return {"type": value} if isinstance(value, str) else value


def check_storage(url: str | None) -> str | None:
    """Refuse the URL of a database that cannot be used, before any work is done for it.

    Returns:
        The URL with ``$NAME`` and ``${NAME}`` replaced by environment variables, so that no
        password needs to be in a file or a command line.

    Raises:
        ConfigError: It is no such URL, a variable is not set, or the driver that it needs is
            not installed.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        if url is not None:
            url = expanded("storage", url)
            make_url(url).get_dialect().import_dbapi()
    except (ArgumentError, ImportError) as error:
        raise ConfigError(
            "a storage is the URL of a database whose driver is installed, such as "
            f"sqlite:///study.db, but here: {masked(str(error))}"
        ) from error
    return url


Count = Annotated[int, BeforeValidator(parse_count), Field(gt=0)]
Options = Annotated[dict[str, Any], BeforeValidator(_kind)]


class Section(BaseModel):
    """A part of a run file: keys are known and typed, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusSection(Section):
    """Which text, and how it becomes tokens.

    ``domains`` is ``starter``, or a mapping from a domain's name to a path (file, folder or
    pattern), a list of paths, or a mapping such as ``{hf: name, split: train}``. ``folder``
    names tokens that are there already: a folder that was built before (below ``cache``), or a
    URL such as ``s3://bucket/corpora/0a1b2c``, which every machine fetches once.
    """

    folder: str | None = None
    domains: Literal["starter"] | dict[str, Any] = "starter"
    tokenizer: int | str = 2048
    max_bytes_per_domain: Count | None = None
    cache: str = str(CACHE)


class SearchSection(Section):
    """How long to search and how to judge the result; see `bimix_tune.search`."""

    trials: int = Field(default=24, ge=2)
    worth: float | None = Field(default=None, gt=0)
    target_tokens: Count | None = None
    max_epochs: float | None = Field(default=None, gt=0)
    repeats: int = Field(default=0, ge=0)
    confirm_seeds: int = Field(default=2, ge=0)
    rivals: Literal["all", "best"] = "all"
    seed: int = Field(default=0, ge=0)


class RunConfig(Section):
    """A run file."""

    space: str | dict[str, Any] | None = None
    corpus: CorpusSection | None = None
    trainer: Options = {"type": "llama"}
    search: SearchSection = SearchSection()
    executor: Options = {"type": "ray"}
    folder: str | None = None
    storage: Annotated[str | None, AfterValidator(check_storage), Field(repr=False)] = None
    track: Annotated[
        dict[str, dict[str, Any]], BeforeValidator(lambda wanted: check_trackers(wanted or ()))
    ] = {}


def load_config(path: str | Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Read and check a run file.

    Args:
        path: YAML file.
        changes: Values that replace those of the file, by dotted key (``search.trials``).

    Raises:
        ConfigError: The file is missing or not YAML, or a key or value is wrong; the message
            names the key and the nearest known one.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"no run file {str(path)!r}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold keys such as corpus, trainer and search")
    for key, value in (changes or {}).items():
        section, _, name = key.rpartition(".")
        holder: Any = data
        if section:
            holder = data[section] = _kind(data.get(section) or {})
        if isinstance(holder, dict):  # what is none, the check below refuses
            holder[name] = value
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error, data)}") from error


def _first_problem(error: ValidationError, data: Mapping[str, Any]) -> str:
    """The first of pydantic's findings in one sentence."""
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        model: Any = RunConfig
        for part in found["loc"][:-1]:
            inner = {"corpus": CorpusSection, "search": SearchSection}
            model = inner.get(str(part), model)
        return f"unknown key {where!r}" + did_you_mean(str(found["loc"][-1]), model.model_fields)
    if found["type"] == "value_error":  # of a validator here, whose message has the value
        return f"{where}: {found['ctx']['error']}"
    return f"{where}: {found['msg']}, but got {found['input']!r}"
