"""Training-free mixtures: what one would use without any search.

They are the first runs of a search, where they start the law (as in the BiMix paper), and the
rivals that its recommendation has to beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bimix_tune import simplex
from bimix_tune.entropy import KINDS, entropy_mixture
from bimix_tune.errors import SpaceError
from bimix_tune.mixture import Mixture
from bimix_tune.space import SearchSpace

if TYPE_CHECKING:
    from bimix_tune.corpus import Corpus


def unimax(space: SearchSpace, budget: int, max_epochs: float = 1.0) -> Mixture:
    """UniMax (Chung et al., arXiv 2304.09151, algorithm 1): uniform, but no domain repeats
    more than ``max_epochs`` times; what the small domains leave goes to the large ones.

    That is ``min(cap_i, t)`` with one t for all, ``cap_i = max_epochs * tokens_i / budget``.
    Where all domains together cannot fill the budget, the caps themselves, scaled up.

    Args:
        space: Domains with their tokens.
        budget: Training tokens of the run that is to use the mixture.
        max_epochs: Greatest number of passes over a domain (the paper's N).

    Raises:
        SpaceError: A domain does not state its tokens.
    """
    unknown = [d.name for d in space.domains if d.tokens is None]
    if unknown:
        raise SpaceError(f"UniMax needs `tokens` for every domain; missing for {unknown}")
    caps = np.array([max_epochs * float(d.tokens or 0) / budget for d in space.domains])
    if caps.sum() <= 1:
        return space.fit_in(caps / caps.sum())
    filled = simplex.bisect_to_one(lambda t: np.minimum(caps, t), 0.0, 1.0)
    return space.fit_in(filled)


def baseline_mixtures(
    space: SearchSpace, corpus: Corpus | None = None, budget: int | None = None
) -> dict[str, Mixture]:
    """All training-free mixtures that the knowledge at hand allows, by label.

    Args:
        space: Bounds, priors, tokens.
        corpus: Tokenised text, for the entropy-driven mixtures; None leaves them out.
        budget: Training tokens of the run that is to use the mixture, for UniMax.

    Returns:
        ``natural``, ``uniform``, ``UniMax`` (if tokens and budget are known), and ``SE``, ``CE``,
        ``JE``, ``VNE`` (if there is a corpus), each moved into the bounds.

    Raises:
        SpaceError: The corpus lacks a domain of the space.
    """
    mixtures = {"natural": space.natural(), "uniform": space.uniform()}
    if budget and all(d.tokens is not None for d in space.domains):
        mixtures["UniMax"] = unimax(space, budget)
    if corpus is not None:
        missing = [name for name in space.names if name not in corpus.names]
        if missing:
            raise SpaceError(
                f"the corpus has no domain {missing}, only {list(corpus.names)}: build it with all "
                "domains of the search space, or take them out of the space"
            )
        for kind in KINDS:
            shares = entropy_mixture(corpus, kind)
            mixtures[kind] = space.fit_in([shares[name] for name in space.names])
    return mixtures


def distinct(mixtures: dict[str, Mixture], tolerance: float = 5e-4) -> dict[str, Mixture]:
    """Merge mixtures whose proportions all agree to ``tolerance``, joining labels by " = ".

    Raises:
        MixtureError: The mixtures are of different domains.
    """
    merged: list[tuple[list[str], Mixture]] = []
    for label, mixture in mixtures.items():
        for labels, known in merged:
            if known.distance(mixture) <= tolerance:
                labels.append(label)
                break
        else:
            merged.append(([label], mixture))
    return {" = ".join(labels): mixture for labels, mixture in merged}
