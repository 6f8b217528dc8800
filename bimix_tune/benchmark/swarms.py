"""Swarms: finished runs of one model scale with many mixtures, judged at equal tokens.

Published swarms come as folders in the forms of `bimix_tune.curves.read_curves`; a file
``meta.json`` beside them may say which domain a validation set belongs to (``own``). A swarm
with known truth is made in code, so that a comparison of laws needs no data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bimix_tune.curves import LossCurve, read_curves
from bimix_tune.errors import CurveError
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace, Target
from bimix_tune.training.synthetic import SyntheticTrainer

FEWEST_RUNS = 20
"""A scale with fewer runs leaves too few to judge by, and is no swarm."""
MOST = 0.8
"""The judged token count is the greatest at which this share of the runs was measured."""


@dataclass(frozen=True, eq=False)
class Swarm:
    """N runs of one scale, all measured at the same number of tokens.

    Args:
        name: Of the data set and the scale.
        space: Its domains and targets; all targets weigh the same.
        tokens: The token count at which losses are judged.
        curves: The runs up to there, N.
        truth: Losses without noise where they are known, (N, V); None: the measured ones.
    """

    name: str
    space: SearchSpace
    tokens: float
    curves: tuple[LossCurve, ...]
    truth: Array | None = None

    @property
    def proportions(self) -> Array:
        """(N, K)."""
        return self.space.matrix([c.mixture for c in self.curves])

    @property
    def final(self) -> Array:
        """Measured losses at the end, (N, V)."""
        return np.array([[c.final()[t] for t in self.space.target_names] for c in self.curves])

    @property
    def digest(self) -> str:
        """Changes with the data, so that results of other data are not taken for these."""
        parts = [self.proportions, self.final, *(c.losses for c in self.curves)]
        if self.truth is not None:
            parts.append(self.truth)
        digest = hashlib.sha256(repr(self.space.to_dict()).encode())
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()[:12]


def load_swarms(folder: str | Path) -> list[Swarm]:
    """All swarms in a folder of data sets, or in one data set; one for each model scale.

    A data set is a folder with ``runs.csv`` and ``losses.csv`` or ``curves.jsonl``.

    Raises:
        CurveError: There is no such folder, no data set in it, or none with enough runs.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CurveError(f"no such folder: {folder}")
    places = [p for p in (folder, *sorted(folder.iterdir())) if _holds_runs(p)]
    if not places:
        raise CurveError(
            f"{folder} holds no swarm: expected runs.csv + losses.csv or curves.jsonl in it "
            "or in its subfolders"
        )
    swarms = [s for p in places for s in swarms_of(p.name, read_curves(p), _owners(p))]
    if not swarms:
        raise CurveError(
            f"{folder} holds no swarm: no model scale has {FEWEST_RUNS} runs that were all "
            "measured at one token count"
        )
    return swarms


def swarms_of(
    name: str, curves: Sequence[LossCurve], own: Mapping[str, str | None] | None = None
) -> list[Swarm]:
    """One swarm for each scale that has enough runs.

    If some targets are named after domains, the others are taken for parts of them and left
    out: they would count twice.

    Args:
        name: Name of the data set.
        curves: Runs of any scales.
        own: The domain of each target; None: the domain of the same name.
    """
    swarms = []
    for scale in dict.fromkeys(c.scale for c in curves):
        members = [c for c in curves if c.scale == scale]
        domains, targets = members[0].mixture.names, members[0].targets
        named = [t for t in targets if t in domains] or list(targets)
        owner = {t: t if t in domains else None for t in named} if own is None else own
        space = SearchSpace(domains, [Target(t, domain=owner.get(t)) for t in named])
        swarm = _at_equal_tokens(f"{name} {scale}".strip(), space, members)
        if swarm is not None:
            swarms.append(swarm)
    return swarms


def synthetic_swarm(runs: int = 96, domains: int = 6, seed: int = 0, noise: float = 0.005) -> Swarm:
    """Runs of BiMix with transfer (`bimix_tune.training.synthetic`), whose truth is known.

    Args:
        runs: N; mixtures are uniform on the simplex.
        domains: K, and as many targets.
        seed: Of the coefficients, the mixtures and the noise.
        noise: Relative standard deviation of a run's losses.
    """
    names = tuple(f"domain {i}" for i in range(domains))
    trainer = SyntheticTrainer(domains=names, problem=seed, noise=noise)
    shares = np.random.default_rng(seed).dirichlet(np.ones(domains), size=runs)
    curves, truth = [], []
    for number, row in enumerate(shares):
        mixture = Mixture(names, row)
        points = list(trainer.run(mixture, seed))
        curves.append(
            LossCurve(
                mixture,
                [p.tokens for p in points],
                [[p.losses[n] for n in names] for p in points],
                decayed=[p.decayed for p in points],
                run=str(number),
            )
        )
        expected = trainer.expected(mixture, trainer.tokens, decayed=True)
        truth.append([expected[n] for n in names])
    space = SearchSpace(names)
    return Swarm("synthetic", space, float(trainer.tokens), tuple(curves), np.array(truth))


def _holds_runs(path: Path) -> bool:
    tables = (path / "runs.csv").is_file() and (path / "losses.csv").is_file()
    return tables or (path / "curves.jsonl").is_file()


def _owners(folder: Path) -> dict[str, str | None] | None:
    """The map ``own`` of ``meta.json`` with the names that `read_curves` gives the targets."""
    path = folder / "meta.json"
    if not path.exists():
        return None
    try:
        own = json.loads(path.read_text(encoding="utf-8")).get("own")
        return None if own is None else {k.removeprefix("loss_"): v for k, v in own.items()}
    except (ValueError, AttributeError) as error:
        raise CurveError(f"{path}: expected an object with a map `own`: {error}") from error


def _at_equal_tokens(name: str, space: SearchSpace, curves: Sequence[LossCurve]) -> Swarm | None:
    """The runs measured at the judged token count, cut there; None if they are too few.

    Where most runs have one checkpoint only, the earlier ones of the others are dropped.
    """
    measured = [_measured(c, space) for c in curves]
    counts = sorted({t for tokens in measured for t in tokens}, reverse=True)
    shared = [t for t in counts if sum(t in m for m in measured) >= MOST * len(curves)]
    if not shared:
        return None
    end = shared[0]
    cut = [_until(c, end) for c, m in zip(curves, measured, strict=True) if end in m]
    if len(cut) < FEWEST_RUNS:
        return None
    if np.median([len(c.tokens) for c in cut]) < 2:
        cut = [_rows(c, c.tokens == end) for c in cut]
    return Swarm(name, space, end, tuple(cut))


def _measured(curve: LossCurve, space: SearchSpace) -> set[float]:
    """Token counts at which every target was measured."""
    columns = [curve.targets.index(t) for t in space.target_names]
    complete = np.isfinite(curve.losses[:, columns]).all(axis=1)
    return set(curve.tokens[complete].tolist())


def _until(curve: LossCurve, end: float) -> LossCurve:
    return _rows(curve, curve.tokens <= end)


def _rows(curve: LossCurve, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> LossCurve:
    return dataclasses.replace(
        curve, tokens=curve.tokens[keep], losses=curve.losses[keep], decayed=curve.decayed[keep]
    )
