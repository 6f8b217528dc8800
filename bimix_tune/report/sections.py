"""The sections of the page: each is a function of the result that returns its content.

What a search lacks is said in its place rather than left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from bimix_tune.laws import LawFit
from bimix_tune.loop.result import CONFIRMATION, RECOMMENDATION, SearchResult, search_records
from bimix_tune.mixture import Mixture
from bimix_tune.report import plots_answer, plots_search, tables, theme
from bimix_tune.report.law_section import law
from bimix_tune.report.losses import target_losses
from bimix_tune.report.markup import (
    Markup,
    caption,
    definitions,
    empty,
    escape,
    fold,
    many,
    note,
    plot,
)


def today() -> str:
    """Date and time of writing."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def answer(result: SearchResult) -> str:
    """The recommended mixture, what to know before using it, and a copy for other programs."""
    named = tables.natural_name(result.space)
    words = "natural share" if named == "natural" else "equal share (no priors are given)"
    parts = [tables.recommendation(result), caption(f"The dark tick on a bar marks the {words}.")]
    if result.fit is not None:
        parts.append(caption(_expectation(result, result.fit)))
    parts += [note(text) for text in _cautions(result)]
    shares = json.dumps(dict(result.recommendation), indent=2, ensure_ascii=False)
    parts.append(fold("Copy as JSON", Markup(f"<pre>{escape(shares)}</pre>")))
    return "\n".join(parts)


def _expectation(result: SearchResult, fit: LawFit) -> str:
    """What the law expects of the recommendation and of the natural mixture."""
    mixtures = [result.recommendation, result.space.natural()]
    mean, sd = fit.objective(mixtures, result.target_tokens)
    return (
        f"The law expects a loss of {mean[0]:.4f} ± {sd[0]:.4f} {result.unit} (one standard "
        f"deviation of a run) at {theme.count(result.target_tokens)} tokens, and {mean[1]:.4f} "
        f"± {sd[1]:.4f} with {tables.natural_name(result.space)} shares."
    )


def _cautions(result: SearchResult) -> list[str]:
    """What bears on the answer: other scale, doubts of the law, a baseline recommended."""
    notes = []
    for name, mixture in result.baselines.items():
        if mixture.distance(result.recommendation) <= theme.NEGLIGIBLE:
            notes.append(f"The recommendation is the same mixture as the baseline {name}.")
    seen = max((float(r.curve.tokens[-1]) for r in result.records if r.curve), default=0.0)
    if seen and abs(result.target_tokens / seen - 1) > 0.05:
        notes.append(
            f"The runs saw at most {theme.count(seen)} tokens; for "
            f"{theme.count(result.target_tokens)} tokens the recommendation extrapolates, "
            "and the confirmation speaks for the runs' own length only."
        )
    if result.fit is not None:
        notes += [f"About the law: {warning}." for warning in result.fit.warnings]
    return notes


def _noise(result: SearchResult) -> str:
    """The noise of a run by the search's own repeats, where there is no confirmation to tell it."""
    if np.isnan(result.run_noise):
        return ""
    return (
        f" Noise of one run, from repeated baselines: standard deviation {result.run_noise:.4f} "
        f"{result.unit}."
    )


def _confirmation(result: SearchResult) -> str:
    found = result.confirmation
    if found is None or not found.comparisons:
        tried = [r for r in result.records if r.role == CONFIRMATION]
        if tried:
            return empty(
                f"{many(len(tried), 'confirmation run')} gave nothing to compare; see Runs."
            )
        return empty(f"No confirmation was made: there are no fresh paired runs.{_noise(result)}")
    seeds = len(found.seeds)
    noise = (
        f"Noise of one run: standard deviation {found.noise:.4f} {result.unit}."
        if np.isfinite(found.noise)
        else "The noise of a run cannot be told from one seed."
    )
    text = (
        f"Fresh runs of every mixture with {many(seeds, 'seed')}; runs that "
        "share a seed share initial weights and data order, and are compared in pairs. Right of "
        f"zero the recommendation is better. {noise}"
    )
    figure = plots_answer.forest(found, result.unit)
    key = "Squares: mean difference with 95 % interval, hollow if it contains zero. Ticks: pairs."
    shown = [caption(text), tables.confirmation(found, result.unit)]
    return "\n".join([*shown, plot(figure, "confirmation"), caption(key)])


def _shown(result: SearchResult) -> dict[str, Mixture]:
    return {RECOMMENDATION: result.recommendation, **result.baselines}


def _mixtures(result: SearchResult) -> str:
    shown = _shown(result)
    figure = plots_answer.mixtures(result.space, shown)
    numbers = fold("All proportions in numbers", tables.mixtures(result.space, shown))
    return "\n".join([tables.swatches(result.space), plot(figure, "mixtures"), numbers])


def _gains(result: SearchResult) -> str:
    losses = target_losses(result)
    if losses is None:
        return empty("There are no losses of the recommendation and of a baseline to compare.")
    text = (
        f"{losses.source} A cell is the loss of the mixture above minus that of the "
        f"recommendation, in {result.unit}: blue and positive where the recommendation is "
        "better, orange and negative where the mixture is."
    )
    if losses.beyond is not None:
        text += " In brackets: no difference beyond noise (the 95 % interval contains zero)."
    figure = plots_answer.gains(losses, result.space, result.unit)
    return "\n".join([caption(text), plot(figure, "gains")])


def _progress(result: SearchResult) -> str:
    if not search_records(result.records):
        return empty("No run was recorded.")
    text = (
        "Objective of each run at its last checkpoint; hollow runs were stopped early and so "
        "saw fewer tokens. Triangles at the top are runs beyond the axis. Grey: what the law "
        "expected before the run, with one standard deviation."
    )
    return "\n".join([caption(text), plot(plots_search.progress(result), "progress")])


def _curves(result: SearchResult) -> str:
    if not any(r.curve is not None for r in result.records):
        return empty("No run left a loss curve.")
    text = "Choose the objective or a target at the top right; click a name below to hide it."
    return "\n".join([caption(text), plot(plots_search.curves(result), "curves")])


def _runs(result: SearchResult) -> str:
    records = result.records
    if not records:
        return empty("No run was recorded.")
    failed = tables.failures(records)
    parts = [tables.states(records)]
    if failed:
        parts += [Markup("<h3>Failures</h3>"), failed]
    parts.append(fold(f"All {len(records)} runs", tables.runs(records)))
    return "\n".join(parts)


def _settings(result: SearchResult) -> str:
    seconds = [r.seconds for r in result.records if np.isfinite(r.seconds)]
    facts = {
        "folder": str(result.folder),
        "space": result.space.source or "not described",
        "unit of losses": result.unit,
        "target tokens": f"{theme.count(result.target_tokens)} ({result.target_tokens:,})",
        "training time": f"{theme.duration(sum(seconds))}, all runs together" if seconds else "–",
        "law": result.fit.law if result.fit else "none",
        "written": today(),
        "versions": tables.versions(),
    }
    parts = [definitions(facts)]
    notes = tables.notes(result.records)
    if notes:
        parts += [Markup("<h3>Noted by the trainings</h3>"), definitions(notes)]
    parts.append(fold("The space: bounds and weights", tables.space_tables(result.space)))
    return "\n".join(parts)


SECTIONS: tuple[tuple[str, str, Callable[[SearchResult], str]], ...] = (
    ("confirmation", "Confirmation", _confirmation),
    ("mixtures", "Mixtures side by side", _mixtures),
    ("gains", "Where the gain comes from", _gains),
    ("progress", "Progress of the search", _progress),
    ("law", "The law", law),
    ("curves", "Loss curves", _curves),
    ("runs", "Runs", _runs),
    ("settings", "Settings and provenance", _settings),
)
"""The sections after the answer, in order: id, heading, content."""
