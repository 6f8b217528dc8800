"""A digest of all code that decides a match, so that stale results are played again."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import bimix_tune
from bimix_tune.benchmark.contest import match
from bimix_tune.strategies.base import Strategy

ROOT = Path(bimix_tune.__file__).parent


@cache
def code_digest(strategy: type[Strategy]) -> str:
    """Changes with the module of a strategy and all modules of this package that it needs.

    Those of the match itself count too; libraries do not.
    """
    own, rules = Path(inspect.getfile(strategy)), Path(match.__file__)
    found = {own.resolve(), rules.resolve()}
    queue = sorted(found)
    while queue:
        fresh = {p for p in _needed(queue.pop()) if p not in found}
        found |= fresh
        queue += sorted(fresh)
    digest = hashlib.sha256(strategy.__qualname__.encode())
    for content in sorted(path.read_bytes() for path in found):
        digest.update(content)
    return digest.hexdigest()[:12]


@cache
def _needed(path: Path) -> frozenset[Path]:
    """Files of this package that a file imports, wherever in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(file for name in _imports(tree) for file in _files(name))


def _imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names; of ``from a import b`` both a and a.b, as b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(name: str) -> Iterator[Path]:
    """The file of a module of this package, if it is one."""
    package, *rest = name.split(".")
    if package == ROOT.name and rest:
        place = ROOT.joinpath(*rest)
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                yield file.resolve()
