"""Everything that can be fitted and judged, under one name each.

This is the only place that knows how a contender is fitted: `fitted` takes a name, curves and
a space, and gives a predictor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from bimix_tune import laws as laws_package
from bimix_tune.benchmark.peers import PEERS, missing_library
from bimix_tune.benchmark.scores import Prediction, Predictor
from bimix_tune.curves import LossCurve
from bimix_tune.errors import ConfigError, did_you_mean
from bimix_tune.laws import LAWS, fit
from bimix_tune.laws.peers import PEERS as PUBLISHED
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

WITH_SMALL = "auto + small"
"""The law `auto` of the big runs that is helped by the small ones; of the task ``scales``."""


def contenders(names: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """Laws and peers that can be compared here.

    Args:
        names: Some of them; None: all.

    Returns:
        Their names, and a sentence for each one whose library is not installed.

    Raises:
        ConfigError: A name is unknown, or none is left.
    """
    known = [*LAWS, WITH_SMALL, *PEERS]
    for name in names or ():
        if name not in known:
            raise ConfigError(f"unknown law {name!r}" + did_you_mean(name, known))
    wanted = list(dict.fromkeys(known if names is None else names))
    lacking = {n: library for n in wanted if (library := missing_library(n))}
    notes = [f"{n} is left out: {library!r} is not installed" for n, library in lacking.items()]
    if len(lacking) == len(wanted):
        raise ConfigError("there is no law to compare: " + ", ".join(notes or ["none was named"]))
    return [n for n in wanted if n not in lacking], notes


def fitted(
    name: str,
    curves: Sequence[LossCurve],
    space: SearchSpace,
    tokens: float,
    small: Sequence[LossCurve] = (),
) -> Predictor:
    """Fit a contender. Laws see the curves of the runs, models that are no laws their ends.

    Args:
        name: One of `contenders`.
        curves: The runs, of one scale.
        space: Domains and targets.
        tokens: At which losses will be predicted.
        small: Runs of a smaller scale, which only `WITH_SMALL` looks at.

    Raises:
        FitError: The curves do not suffice.
    """
    if name in PEERS:
        losses = np.array([[c.final()[t] for t in space.target_names] for c in curves])
        return PEERS[name](space.matrix([c.mixture for c in curves]), losses, space)
    law = "auto" if name == WITH_SMALL else name
    own = law not in PUBLISHED
    helped = [*small, *curves] if name == WITH_SMALL else curves
    found = fit(helped, space, law, scale=curves[0].scale, judge=own)

    def predict(r: Array) -> Prediction:
        mean, sd = found.objective(r, tokens)
        # Published laws state no intervals of their own.
        return Prediction(found.predict(r, tokens), mean, sd if own else None)

    return predict


@cache
def code_digest() -> str:
    """Changes with the code of the contenders and scores, whose results are then measured anew."""
    here = Path(__file__).parent
    own = [p for n in ("fitters", "peers", "scores") if (p := here / f"{n}.py").exists()]
    digest = hashlib.sha256()
    for path in [*own, *sorted(Path(str(laws_package.__file__)).parent.rglob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
