"""What is searched: domains with bounds, and targets with weights.

All values are frozen and validate themselves, so whatever exists is consistent. Arrays carry
domains in the order of `SearchSpace.names` and targets in that of `SearchSpace.target_names`;
outside this package names travel with numbers, as in `Mixture`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bimix_tune import simplex
from bimix_tune.errors import MixtureError, SpaceError, did_you_mean
from bimix_tune.mixture import Mixture
from bimix_tune.quantities import parse_count
from bimix_tune.simplex import Array


def _check_name(kind: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise SpaceError(f"the name of a {kind} must be text, but is {name!r} (quote it in YAML)")


@dataclasses.dataclass(frozen=True)
class Domain:
    """A source of training text.

    Args:
        name: Unique name.
        prior: Natural proportion (any positive scale; normalised over the space), or None.
        tokens: Training tokens available, or None if unknown.
        low: Least proportion allowed.
        high: Greatest proportion allowed.

    Raises:
        SpaceError: A value is out of its range.
    """

    name: str
    prior: float | None = None
    tokens: int | None = None
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _check_name("domain", self.name)
        for label in ("prior", "tokens"):
            value = getattr(self, label)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise SpaceError(f"domain {self.name!r}: {label} must be > 0, but got {value!r}")
        if not 0 <= self.low <= self.high <= 1:
            raise SpaceError(
                f"domain {self.name!r}: bounds must satisfy 0 <= low <= high <= 1, "
                f"but got low={self.low!r}, high={self.high!r}"
            )


@dataclasses.dataclass(frozen=True)
class Target:
    """A validation set whose loss counts.

    Args:
        name: Unique name.
        weight: Share in the objective (any non-negative scale; normalised over the space).
        domain: The training domain it was held out from, or None if it is none of them.

    Raises:
        SpaceError: The weight is negative or not finite.
    """

    name: str
    weight: float = 1.0
    domain: str | None = None

    def __post_init__(self) -> None:
        _check_name("target", self.name)
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise SpaceError(f"target {self.name!r}: weight must be >= 0, but got {self.weight!r}")


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """The mixtures allowed, and the losses that judge them.

    Args:
        domains: K training domains (or their names).
        targets: V validation sets; None makes one per domain with equal weights.
        source: Where the numbers come from, in words.

    Raises:
        SpaceError: Names repeat, a target names an unknown domain, all weights are zero,
            priors are given for some domains only, or the bounds allow no mixture.
    """

    domains: tuple[Domain, ...]
    targets: tuple[Target, ...]
    source: str = ""

    def __init__(
        self,
        domains: Iterable[Domain | str],
        targets: Iterable[Target] | None = None,
        source: str = "",
    ) -> None:
        fixed = tuple(Domain(d) if isinstance(d, str) else d for d in domains)
        if targets is None:
            chosen = tuple(Target(d.name, domain=d.name) for d in fixed)
        else:
            chosen = tuple(targets)
        object.__setattr__(self, "domains", fixed)
        object.__setattr__(self, "targets", chosen)
        object.__setattr__(self, "source", source)
        self._check()

    def _check(self) -> None:
        if not self.domains:
            raise SpaceError("a search space needs at least one domain")
        for kind, names in (("domain", self.names), ("target", self.target_names)):
            repeated = {n for n in names if names.count(n) > 1}
            if repeated:
                raise SpaceError(f"{kind} names must differ, but {sorted(repeated)} repeat")
        if not self.target_names:
            raise SpaceError("a search space needs at least one target")
        for target in self.targets:
            if target.domain is not None and target.domain not in self.names:
                raise SpaceError(
                    f"target {target.name!r} belongs to an unknown domain {target.domain!r}"
                    + did_you_mean(target.domain, self.names)
                )
        if sum(t.weight for t in self.targets) <= 0:
            raise SpaceError("at least one target must have a weight > 0")
        given = [d.prior is not None for d in self.domains]
        if any(given) and not all(given):
            missing = [d.name for d in self.domains if d.prior is None]
            raise SpaceError(f"priors must be given for all domains or none; missing: {missing}")
        reason = simplex.infeasibility(self.low, self.high)
        if reason:
            raise SpaceError(f"no mixture satisfies the bounds: {reason}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Domain names, (K,)."""
        return tuple(d.name for d in self.domains)

    @cached_property
    def target_names(self) -> tuple[str, ...]:
        """Target names, (V,)."""
        return tuple(t.name for t in self.targets)

    @property
    def low(self) -> Array:
        """Lower bounds, (K,)."""
        return np.array([d.low for d in self.domains])

    @property
    def high(self) -> Array:
        """Upper bounds, (K,)."""
        return np.array([d.high for d in self.domains])

    @property
    def weights(self) -> Array:
        """Target weights normalised to sum to one, (V,)."""
        w = np.array([t.weight for t in self.targets])
        return np.asarray(w / w.sum())

    @cached_property
    def own(self) -> tuple[int | None, ...]:
        """For each target the position of the domain it was held out from, or None, (V,)."""
        at = {n: i for i, n in enumerate(self.names)}
        return tuple(None if t.domain is None else at[t.domain] for t in self.targets)

    @property
    def prior(self) -> Array:
        """Natural proportions: priors if given, else by available tokens, else uniform, (K,)."""
        for values in ([d.prior for d in self.domains], [d.tokens for d in self.domains]):
            numbers = [v for v in values if v is not None]
            if len(numbers) == len(values):
                weights = np.array(numbers, float)
                return np.asarray(weights / weights.sum())
        return np.full(len(self.domains), 1.0 / len(self.domains))

    def mixture(self, proportions: Sequence[float] | Array) -> Mixture:
        """The mixture with these proportions in the order of `names`."""
        return Mixture(self.names, proportions)

    def fit_in(self, proportions: Sequence[float] | Array) -> Mixture:
        """The mixture within the bounds nearest (in Kullback-Leibler sense) to a wish, (K,)."""
        return self.mixture(simplex.scale_into(np.asarray(proportions, float), self.low, self.high))

    def natural(self) -> Mixture:
        """The natural proportions, moved into the bounds."""
        return self.fit_in(self.prior)

    def uniform(self) -> Mixture:
        """Equal proportions, moved into the bounds."""
        return self.fit_in(np.full(len(self.domains), 1.0 / len(self.domains)))

    def array(self, mixture: Mapping[str, float]) -> Array:
        """Proportions in the order of `names`, (K,).

        Raises:
            MixtureError: A domain is missing or unknown.
        """
        unknown = [n for n in mixture if n not in self.names]
        if unknown:
            raise MixtureError(
                f"unknown domain {unknown[0]!r}" + did_you_mean(unknown[0], self.names)
            )
        missing = [n for n in self.names if n not in mixture]
        if missing:
            raise MixtureError(f"the mixture gives no proportion for {missing}")
        return np.array([float(mixture[n]) for n in self.names])

    def matrix(self, mixtures: Iterable[Mapping[str, float]]) -> Array:
        """Many mixtures in the order of `names`, (M, K)."""
        rows = [self.array(m) for m in mixtures]
        return np.array(rows).reshape(len(rows), len(self.domains))

    def violation(self, mixture: Mapping[str, float], tolerance: float = 1e-6) -> str | None:
        """Which bound a mixture breaks, in words, or None."""
        for d, r in zip(self.domains, self.array(mixture), strict=True):
            if not d.low - tolerance <= r <= d.high + tolerance:
                return f"proportion {r:.6g} of {d.name!r} is outside [{d.low:.6g}, {d.high:.6g}]"
        return None

    def cap_epochs(self, budget: int, max_epochs: float) -> SearchSpace:
        """The same space with no domain repeated more than ``max_epochs`` times.

        ``r_i <= max_epochs * tokens_i / budget`` (Chen et al. 2602.12237, repetition cap).

        Args:
            budget: Training tokens of the run that is to use the mixture.
            max_epochs: Greatest number of passes over any domain.

        Raises:
            SpaceError: A domain does not state its tokens, or the caps allow no mixture.
        """
        for label, value in (("budget", budget), ("max_epochs", max_epochs)):
            if not value > 0:
                raise SpaceError(f"{label} must be > 0, but got {value!r}")
        unknown = [d.name for d in self.domains if d.tokens is None]
        if unknown:
            raise SpaceError(f"epoch caps need `tokens` for every domain; missing for {unknown}")
        capped = []
        for d in self.domains:
            cap = max_epochs * float(d.tokens or 0) / budget
            if cap < d.low:
                raise SpaceError(
                    f"domain {d.name!r}: {max_epochs:g} epochs of {d.tokens} tokens allow a "
                    f"proportion of at most {cap:.4g}, below its lower bound {d.low:g}"
                )
            capped.append(dataclasses.replace(d, high=min(d.high, cap)))
        total = sum(d.high for d in capped)
        if total < 1 - 1e-9:
            least = math.ceil(100 * max_epochs / total) / 100
            raise SpaceError(
                f"{max_epochs:g} epochs of all domains give {total:.2%} of the budget of "
                f"{budget} tokens: raise max_epochs to at least {least:g}"
            )
        return SearchSpace(capped, self.targets, self.source)

    def to_dict(self) -> dict[str, Any]:
        """A form for YAML and JSON that `from_dict` reads back."""

        def clean(item: Domain | Target) -> dict[str, Any]:
            default = {f.name: f.default for f in dataclasses.fields(item)}
            values = dataclasses.asdict(item)
            return {k: v for k, v in values.items() if v != default[k]}

        return {
            "source": self.source,
            "domains": [clean(d) for d in self.domains],
            "targets": [clean(t) for t in self.targets],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchSpace:
        """Read the form of `to_dict`; extra top-level notes (tokenizer, date ...) are allowed.

        Raises:
            SpaceError: A key is unknown or a value is out of range.
        """
        if not isinstance(data, Mapping):
            raise SpaceError("a search space file needs a list `domains`")
        known = ("domains", "targets", "source")
        for key in data:
            if key not in known and difflib.get_close_matches(str(key), known, cutoff=0.8):
                raise SpaceError(f"unknown key {key!r}" + did_you_mean(str(key), known))
        for key in known[:2]:
            if not isinstance(data.get(key, []), list) or (key == "domains" and key not in data):
                raise SpaceError(f"a search space file needs a list `{key}`")
        targets = data.get("targets")
        return cls(
            [_build(Domain, d) for d in data["domains"]],
            None if targets is None else [_build(Target, t) for t in targets],
            str(data.get("source", "")),
        )


def _number(key: str, value: Any) -> Any:
    """A value as people write it: ``tokens: 3T``; and YAML 1.1 reads ``prior: 1e-1`` as text."""
    if key == "tokens" and value is not None:
        return parse_count(value, key)
    known = key in ("prior", "low", "high", "weight")
    return float(value) if known and isinstance(value, str) else value


def _build(kind: type[Any], value: Any) -> Any:
    """A `Domain` or `Target` from a name or a mapping."""
    if isinstance(value, str):
        return kind(value)
    known = [f.name for f in dataclasses.fields(kind)]
    if not isinstance(value, Mapping) or "name" not in value:
        raise SpaceError(f"a {kind.__name__.lower()} needs a `name`, but got {value!r}")
    for key in value:
        if key not in known:
            raise SpaceError(
                f"{kind.__name__.lower()} {value['name']!r} has an unknown key {key!r}"
                + did_you_mean(str(key), known)
            )
    try:
        return kind(**{k: _number(k, v) for k, v in value.items()})
    except (TypeError, ValueError) as error:
        if isinstance(error, SpaceError):
            raise
        raise SpaceError(f"{kind.__name__.lower()} {value['name']!r}: {error}") from error


def _space_folders() -> list[Path]:
    """Where the named spaces lie: inside an installed wheel, or beside a checkout's package."""
    package = Path(__file__).resolve().parent
    return [package / "search_spaces", package.parent / "search_spaces"]


def load_space(name_or_path: str | Path) -> SearchSpace:
    """A search space that ships with the package, by name, or any YAML file, by path.

    Raises:
        SpaceError: There is no such space or file, or its content is wrong.
    """
    path = Path(name_or_path)
    known: dict[str, Path] = {}
    if path.suffix not in (".yaml", ".yml"):
        for folder in reversed(_space_folders()):
            known |= {p.stem: p for p in folder.glob("*.yaml")}
        path = known.get(str(name_or_path), path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        hint = did_you_mean(str(name_or_path), known) if known else ""
        raise SpaceError(f"no search space {str(name_or_path)!r}: no such file{hint}") from error
    except UnicodeDecodeError as error:
        raise SpaceError(f"{path} is not text: {error}") from error
    try:
        return SearchSpace.from_dict(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise SpaceError(f"{path} is not valid YAML: {error}") from error
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}") from error
