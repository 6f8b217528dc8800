"""What a study says at any moment: recommendation, law, confirmation; and its files.

Everything is derived from the study, so a search that is under way, stopped or finished can
be read by the same code, from another process too.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study

from bimix_tune.atomic import write_atomic
from bimix_tune.curves import write_curves
from bimix_tune.errors import ConfigError, FitError
from bimix_tune.evidence import evenly
from bimix_tune.laws import LawFit, fit, optimise
from bimix_tune.loop import ledger, run_folder
from bimix_tune.loop.result import (
    BASELINE,
    CONFIRMATION,
    RECOMMENDATION,
    Confirmation,
    RunRecord,
    SearchResult,
    compare,
    search_records,
)
from bimix_tune.mixture import SAME_MIXTURE, Mixture
from bimix_tune.proposals import trust_region
from bimix_tune.space import SearchSpace

logger = logging.getLogger(__name__)

ENDED = ("COMPLETE", "PRUNED")
MOST_CURVES = 1024
"""The law that recommends is fitted to no more: that takes seconds, and memory grows with the
square of the curves."""


def best_of(records: Iterable[RunRecord]) -> RunRecord | None:
    """The complete run of the search with the least objective, or None."""
    done = [r for r in search_records(list(records)) if r.state == "COMPLETE"]
    return min(done, key=lambda r: math.inf if r.objective is None else r.objective, default=None)


def recommend(
    study: Study, space: SearchSpace, target_tokens: int
) -> tuple[Mixture, LawFit | None]:
    """The optimum of the law fitted to the runs of the search, within its trust region.

    Where no law can be fitted, the best mixture seen. One that is noted in the study (see
    `note_recommendation`) is kept while no run is added, so that its confirmation goes on with
    the very same mixture.

    Returns:
        The mixture, and the law, or None where none could be fitted.

    Raises:
        ConfigError: No run ended in order, so there is nothing to recommend.
    """
    records = search_records(ledger.records_of(study, space))
    done = [r for r in records if r.state in ENDED and r.curve is not None]
    try:
        law = fit(evenly([r.curve for r in done if r.curve], MOST_CURVES), space)
    except FitError as error:
        best = best_of(records)
        if best is None or best.mixture is None:
            raise ConfigError(f"no run of the search has ended in order yet: {error}") from error
        return best.mixture, None
    noted = study.user_attrs.get(ledger.RECOMMENDED, {})
    if noted.get("basis") == _basis(records, target_tokens):
        return Mixture(space.names, [noted["mixture"][n] for n in space.names]), law
    tried = space.matrix(r.mixture for r in done if r.mixture is not None)
    return optimise(law, trust_region(space, tried), target_tokens), law


def is_noted(study: Study, space: SearchSpace, target_tokens: int) -> bool:
    """Whether a recommendation is noted that rests on all runs that the study has now."""
    records = search_records(ledger.records_of(study, space))
    noted = study.user_attrs.get(ledger.RECOMMENDED, {})
    return bool(noted.get("basis") == _basis(records, target_tokens))


def note_recommendation(
    study: Study, space: SearchSpace, target_tokens: int, mixture: Mixture
) -> None:
    """Keep a recommendation with the runs that it rests on; for the driver alone."""
    records = search_records(ledger.records_of(study, space))
    noted = {"basis": _basis(records, target_tokens), "mixture": dict(mixture)}
    study.set_user_attr(ledger.RECOMMENDED, noted)


def _basis(records: Sequence[RunRecord], target_tokens: int) -> dict[str, Any]:
    done = [r.number for r in records if r.state in ENDED and r.curve is not None]
    return {"runs": done, "target_tokens": target_tokens}


def confirmation_of(records: Sequence[RunRecord], recommendation: Mixture) -> Confirmation | None:
    """Compare the confirmation runs of a recommendation with those of the baselines."""
    objective: dict[str, dict[int, float]] = {}
    for r in records:
        if r.role == CONFIRMATION and r.state == "COMPLETE" and r.objective is not None:
            mixture = r.mixture
            stale = mixture is None or mixture.distance(recommendation) > SAME_MIXTURE
            if r.label == RECOMMENDATION and stale:
                continue  # of an earlier, shorter search in the same folder
            objective.setdefault(r.label, {})[r.seed] = r.objective
    return compare(objective)


def outcome(
    study: Study,
    space: SearchSpace,
    folder: Path,
    recommended: tuple[Mixture, LawFit | None] | None = None,
) -> SearchResult:
    """The result of a search as its study has it now.

    Args:
        study: The study.
        space: Of its mixtures.
        folder: The run folder.
        recommended: What `recommend` has found for these very runs; None: it is called.

    Raises:
        ConfigError: No run ended in order yet.
    """
    target_tokens = int(study.user_attrs[ledger.TARGET_TOKENS])
    recommendation, law = recommended or recommend(study, space, target_tokens)
    records = tuple(ledger.records_of(study, space))
    baselines = {r.label: r.mixture for r in records if r.role == BASELINE and r.mixture}
    return SearchResult(
        space,
        target_tokens,
        study.user_attrs[ledger.SETTINGS]["unit"],
        recommendation,
        law,
        baselines,
        records,
        confirmation_of(records, recommendation),
        folder,
        study.user_attrs.get(ledger.SETTLED),
    )


def load_study(folder: Path, storage: str | BaseStorage | None = None) -> tuple[Study, SearchSpace]:
    """The study of a run folder, to look at, and its space.

    Raises:
        ConfigError: There is no search in the folder, or its storage cannot be opened.
    """
    missing = ConfigError(f"no search in {folder}: start one with `bimix-tune search FILE`")
    if storage is None and not (folder / "study.db").exists():
        raise missing
    try:
        with run_folder.storage_errors(folder):
            study = optuna.load_study(
                study_name=run_folder.name_of(folder, storage),
                storage=run_folder.storage_of(folder, storage),
            )
        return study, SearchSpace.from_dict(study.user_attrs[ledger.SETTINGS]["space"])
    except KeyError as error:
        raise missing from error


@contextmanager
def written_files(folder: Path) -> Iterator[None]:
    """Write files that say what the study holds anyway; where that fails, say so and go on."""
    try:
        yield
    except OSError as error:
        logger.error(
            "a file in %s cannot be written (%s); the study has everything: make room, and "
            "run the same command again",
            folder,
            error.strerror or error,
        )


def save_curves(folder: Path, records: Iterable[RunRecord]) -> None:
    """Write the curves of all ended runs into the run folder, atomically."""
    curves = [r.curve for r in records if r.state in ENDED and r.curve]
    write_curves(folder / "curves.jsonl", curves)


def save_result(result: SearchResult) -> None:
    """Write ``result.json`` and ``law.json`` into the run folder, atomically."""
    data = {
        "recommendation": dict(result.recommendation),
        "target_tokens": result.target_tokens,
        "unit": result.unit,
        "baselines": {label: dict(m) for label, m in result.baselines.items()},
        "confirmation": _confirmation_json(result.confirmation),
        "run_noise": result.run_noise,
        "runs": [_record_json(r) for r in result.records],
    }
    write_atomic(result.folder / "result.json", json.dumps(_finite(data), indent=1) + "\n")
    if result.fit is not None:
        law = json.dumps(result.fit.to_dict(), indent=1) + "\n"
        write_atomic(result.folder / "law.json", law)


def _confirmation_json(confirmation: Confirmation | None) -> dict[str, Any] | None:
    if confirmation is None:
        return None
    return {
        "seeds": confirmation.seeds,
        "noise": confirmation.noise,
        "objective": confirmation.objective,
        "comparisons": [vars(c) for c in confirmation.comparisons],
    }


def _record_json(record: RunRecord) -> dict[str, Any]:
    keys = ("number", "role", "label", "state", "objective", "predicted", "seed", "seconds")
    return {key: getattr(record, key) for key in (*keys, "cause")}


def _finite(value: Any) -> Any:
    """The value with every NaN replaced by None, which JSON knows."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
