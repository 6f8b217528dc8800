"""What people type about laws, as values: groups, fixed proportions, reference losses, mixtures."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bimix_tune.curves import LossCurve
from bimix_tune.errors import ConfigError, FitError, MixtureError, did_you_mean
from bimix_tune.laws import Group
from bimix_tune.laws.optimum import Regret
from bimix_tune.laws.peers import PEERS
from bimix_tune.laws.scales import FEWEST_MIXTURES, curves_at
from bimix_tune.mixture import Mixture
from bimix_tune.space import SearchSpace

_GROUP = re.compile(r"(.+?)\s*(<=|>=)\s*([^<>=]+)")


def group_of(text: str, names: Sequence[str]) -> Group:
    """Bounds on a sum of proportions.

    Args:
        text: Such as ``code+math<=0.3`` or ``web >= 0.2``.
        names: Of the domains; they may have a plus in their names.

    Raises:
        ConfigError: It has another form.
        SpaceError: The bound is out of its range.

    >>> group_of("c++ + math <= 0.3", ["c++", "math"])
    Group(domains=('c++', 'math'), low=0.0, high=0.3)
    """
    found = _GROUP.fullmatch(text.strip())
    if not found:
        raise ConfigError(
            f"--group must be domains and a bound such as 'code+math<=0.3', but got {text!r}"
        )
    members = re.sub(r"\s*\+\s*", "+", found[1])
    domains = _members(members, names) or members.split("+")
    bound = _number(found[3], "--group", text)
    return Group(domains, high=bound) if found[2] == "<=" else Group(domains, low=bound)


def _members(text: str, names: Sequence[str]) -> list[str] | None:
    """The names that a text joins with plus signs, or None."""
    for name in names:
        if text == name:
            return [name]
        if text.startswith(f"{name}+"):
            others = _members(text[len(name) + 1 :], names)
            if others is not None:
                return [name, *others]
    return None


def with_fixed(space: SearchSpace, texts: Sequence[str]) -> SearchSpace:
    """The space with some proportions fixed.

    Args:
        space: Domains and bounds.
        texts: Such as ``web=0.3``.

    Raises:
        ConfigError: One has another form, or names an unknown domain, one twice, or a proportion
            outside the domain's bounds.
        SpaceError: No mixture has these proportions.
    """
    fixed: dict[str, float] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.rpartition("="))
        if not equals:
            raise ConfigError(f"--fix must be a domain and its share: web=0.3, but got {text!r}")
        if name not in space.names:
            hint = did_you_mean(name, space.names)
            raise ConfigError(f"--fix {text!r} names an unknown domain {name!r}{hint}")
        if name in fixed:
            raise ConfigError(f"--fix gives the share of {name!r} twice")
        fixed[name] = _number(value, "--fix", text)
    domains = []
    for d in space.domains:
        share = fixed.get(d.name)
        if share is None:
            domains.append(d)
        elif not d.low <= share <= d.high:
            bounds = f"[{d.low:.6g}, {d.high:.6g}]"
            raise ConfigError(f"--fix {d.name}={share:g} is outside the domain's bounds {bounds}")
        else:
            domains.append(dataclasses.replace(d, low=share, high=share))
    return SearchSpace(domains, space.targets, space.source)


def regret_of(text: str) -> Regret:
    """The greatest excess over reference losses.

    Args:
        text: Pairs such as ``web=3.1,code=1.2``, or a JSON file with a loss by target.

    Raises:
        ConfigError: It is neither.
        FitError: A loss is not a finite number.
    """
    if "=" not in text:
        return Regret(_mapping(Path(text).read_text, text, "--regret", "losses by target"))
    losses: dict[str, float] = {}
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.rpartition("="))
        if not (equals and name):
            raise ConfigError(
                "--regret must be a JSON file, or losses such as web=3.1,code=1.2, "
                f"but got {text!r}"
            )
        if name in losses:
            raise ConfigError(f"--regret gives the loss of {name!r} twice")
        losses[name] = _number(value, "--regret", text)
    return Regret(losses)


def mixture_of(text: str, space: SearchSpace) -> Mixture:
    """A mixture: ``natural``, ``uniform``, JSON, or the path of a JSON file.

    Raises:
        ConfigError: It is neither.
        MixtureError: It has other domains than the space, or is no mixture.
    """
    if text in ("natural", "uniform"):
        return space.natural() if text == "natural" else space.uniform()
    given = text.lstrip().startswith("{")
    shares = _mapping((lambda **_: text) if given else Path(text).read_text, text, "--mixture")
    for name, share in shares.items():
        if not isinstance(share, int | float) or isinstance(share, bool):
            raise MixtureError(f"the proportion of {name!r} must be a number, but is {share!r}")
    return space.mixture(space.array(shares))


def _mapping(read: Any, text: str, option: str, what: str = "proportions by domain") -> Any:
    try:
        found = json.loads(read(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{option}: no file {text!r}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{option}: {text} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{option}: {text} must hold {what}, but holds a {type(found).__name__}")
    return found


def _number(text: str, option: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{option} {whole!r}: {text.strip()!r} is not a number") from error


def of_scale(
    curves: Sequence[LossCurve], scale: str | None, law: str
) -> tuple[list[LossCurve], str]:
    """The runs that a law of one scale is fitted to, and a sentence about the scales used.

    Args:
        curves: Of any scales.
        scale: The scale that the law is for; None: the only one, or the largest.
        law: Name of the law.

    Raises:
        ConfigError: No run has the scale.
        FitError: There are several scales, none is named, and they are no sizes.
    """
    known = sorted({c.scale for c in curves})
    if scale is not None and scale not in known:
        raise ConfigError(f"no run of scale {scale!r}" + did_you_mean(scale, known))
    if len(known) < 2:
        return list(curves), ""
    try:
        at_scale, smaller = curves_at(curves, scale)
    except FitError:
        if scale is None:
            raise
        return [c for c in curves if c.scale == scale], (
            f"scale {scale}: its runs alone, since {_listed(known)} are no sizes to be ordered"
        )
    used = [*at_scale, *(c for size in smaller for c in size)]
    return used, _about_scales(at_scale, smaller, law, known)


def _about_scales(
    at_scale: Sequence[LossCurve],
    smaller: Sequence[Sequence[LossCurve]],
    law: str,
    known: Sequence[str],
) -> str:
    helping: list[str] = []
    few: list[str] = []
    for size in smaller:
        mixtures = len({tuple(c.mixture.values()) for c in size})
        (helping if mixtures >= FEWEST_MIXTURES else few).append(size[0].scale)
    text = f"scale {at_scale[0].scale or '(none)'}: "
    if law in PEERS or not helping:
        text += "its runs alone"
        helping = []
        if law in PEERS and smaller:
            few, text = [], f"{text}, since the law {law!r} takes no notice of smaller scales"
    else:
        text += f"its runs, and those of {_listed(helping)} as a start"
    if few:
        text += f"; {_listed(few)} with fewer than {FEWEST_MIXTURES} mixtures left out"
    others = {at_scale[0].scale, *(size[0].scale for size in smaller)}
    larger = [label for label in known if label not in others]
    return text + (f"; larger ones left out: {_listed(larger)}" if larger else "")


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(label or "(none)" for label in labels)
