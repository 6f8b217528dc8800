"""What a search knows at its end, as values; nothing here runs or writes anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from bimix_tune.curves import LossCurve
from bimix_tune.laws import LawFit
from bimix_tune.mixture import Mixture
from bimix_tune.space import SearchSpace

BASELINE, STARTUP, PROPOSAL, CONFIRMATION = "baseline", "startup", "proposal", "confirmation"
RECOMMENDATION = "recommendation"


@dataclass(frozen=True)
class RunRecord:
    """One trial of the study in the words of this project.

    Args:
        number: Optuna's trial number.
        role: ``"baseline"``, ``"startup"``, ``"proposal"`` or ``"confirmation"``.
        label: The name of a baseline or of a confirmed mixture, else empty.
        state: Optuna's state: COMPLETE, PRUNED, FAIL, RUNNING or WAITING.
        mixture: What was trained on; None if the trial died before it had one.
        curve: Its losses; None if it recorded none.
        objective: Weighted mean loss at the last checkpoint; None if there is none.
        predicted: The law's (mean, sd) of the objective before the run, if there was a law.
        seed: Seed of the training.
        seconds: Wall time of the training; NaN if unknown.
        cause: Why it failed, else empty.
        notes: What the trainer noted of the run (device, parameters, epochs ...).
        slot: Where it was trained last; empty if it never was.
        started: When it began there, in seconds since 1970 by the driver's clock; NaN if never.
        retries: Why it was tried again, each time.
    """

    number: int
    role: str
    label: str
    state: str
    mixture: Mixture | None
    curve: LossCurve | None
    objective: float | None
    predicted: tuple[float, float] | None = None
    seed: int = 0
    seconds: float = math.nan
    cause: str = ""
    notes: Mapping[str, str | float | int] = field(default_factory=dict)
    slot: str = ""
    started: float = math.nan
    retries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A mixture against the recommendation, in runs with the same fresh seeds.

    Args:
        label: Name of the other mixture.
        mean: Mean objective of the other mixture minus that of the recommendation; positive
            where the recommendation is better.
        low: Lower end of the 95 % confidence interval; NaN with one seed.
        high: Upper end; NaN with one seed.
        pairs: The differences, one per seed.
    """

    label: str
    mean: float
    low: float
    high: float
    pairs: tuple[float, ...]


@dataclass(frozen=True)
class Confirmation:
    """Fresh runs of the recommendation and of baselines, paired by seed.

    Args:
        seeds: The seeds, (n,).
        objective: By label, the objective under each seed, (n,).
        noise: Standard deviation of one run's objective about the sum of a mixture's and a
            seed's effect; NaN with one seed.
        comparisons: Each other mixture against the recommendation, nearest rival first.
    """

    seeds: tuple[int, ...]
    objective: Mapping[str, tuple[float, ...]]
    noise: float
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class SearchResult:
    """What a search hands over.

    Args:
        space: What was searched.
        target_tokens: Token count that the recommendation is for.
        unit: Unit of all losses.
        recommendation: The mixture to use.
        fit: The law, fitted to all runs but the confirmation; None if no law could be.
        baselines: The training-free mixtures by label.
        records: All runs, in order of their trial numbers.
        confirmation: Fresh paired runs; None if they were not asked for or all failed.
        folder: The run folder.
        settled: Why the search ended before its last trial; None if it did not.
    """

    space: SearchSpace
    target_tokens: int
    unit: str
    recommendation: Mixture
    fit: LawFit | None
    baselines: Mapping[str, Mixture]
    records: tuple[RunRecord, ...]
    confirmation: Confirmation | None
    folder: Path
    settled: str | None = None

    @property
    def run_noise(self) -> float:
        """Standard deviation of one run's objective, as for `Confirmation.noise`, from baselines
        that the search repeated; NaN with fewer than two of these."""
        objective: dict[str, dict[int, float]] = {}
        for run in self.records:
            if run.role == BASELINE and run.state == "COMPLETE" and run.objective is not None:
                objective.setdefault(run.label, {})[run.seed] = run.objective
        repeated = {label: runs for label, runs in objective.items() if len(runs) > 1}
        found = compare(repeated, next(iter(repeated), ""))
        return math.nan if found is None else found.noise


def compare(
    objective: Mapping[str, Mapping[int, float]], reference: str = RECOMMENDATION
) -> Confirmation | None:
    """Differences of mixtures to a reference, from runs paired by seed.

    The objective of mixture m under seed s is modelled as ``mu_m + b_s + e_ms``: a seed's common
    effect cancels in differences. The noise variance is the interaction mean square of this
    two-way layout, with (M - 1)(n - 1) degrees of freedom, so all mixtures estimate it together;
    an interval is ``mean +- t_0.975 sqrt(2 noise^2 / n)`` (e.g. Scheffe, The Analysis of
    Variance, 4.2).

    Seeds are not given up for a mixture that lacks some: the most seeds that any other mixture
    shares with the reference are compared, and mixtures without one of them left out. Of equally
    many seeds those that the most mixtures have are taken.

    Args:
        objective: By label and seed.
        reference: Label that the others are compared with.

    Returns:
        The comparison, or None if no seed is common to the reference and another mixture.
    """
    common = _common_seeds(objective, reference)
    if not common:
        return None
    labels = [label for label, runs in objective.items() if runs.keys() >= set(common)]
    table = np.array([[objective[label][s] for s in common] for label in labels])
    m, n = table.shape
    centred = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    freedom = (m - 1) * (n - 1)
    noise = float(np.sqrt((centred**2).sum() / freedom)) if freedom else math.nan
    half = float(stats.t.ppf(0.975, freedom)) * noise * math.sqrt(2 / n) if freedom else math.nan
    own = table[labels.index(reference)]
    comparisons = []
    for label, row in zip(labels, table, strict=True):
        if label != reference:
            mean = float((row - own).mean())
            pairs = tuple((row - own).tolist())
            comparisons.append(Comparison(label, mean, mean - half, mean + half, pairs))
    return Confirmation(
        tuple(common),
        {label: tuple(row.tolist()) for label, row in zip(labels, table, strict=True)},
        noise,
        tuple(sorted(comparisons, key=lambda c: c.mean)),
    )


def _common_seeds(objective: Mapping[str, Mapping[int, float]], reference: str) -> list[int]:
    """The seeds that `compare` takes, in order; empty if there are none."""
    own = set(objective.get(reference, ()))
    shared = [own & set(runs) for label, runs in objective.items() if label != reference]
    if not shared:
        return []
    most = max(shared, key=lambda seeds: (len(seeds), sum(seeds <= other for other in shared)))
    return sorted(most)


def search_records(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs that the search learnt from: all but the confirmation's."""
    return [r for r in records if r.role != CONFIRMATION]
