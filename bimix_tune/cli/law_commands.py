"""Commands about laws: fit one, find its best mixture, explain it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from bimix_tune.atomic import write_atomic
from bimix_tune.cli import law_options, law_tables, tables
from bimix_tune.curves import read_curves
from bimix_tune.errors import ConfigError
from bimix_tune.laws import LAWS, Group, LawFit, Optimum, explain, find_optimum, fit
from bimix_tune.laws.explain import outside
from bimix_tune.laws.optimum.objectives import ObjectiveLike, as_objective
from bimix_tune.mixture import Mixture
from bimix_tune.quantities import parse_count
from bimix_tune.simplex import SUM_TOLERANCE
from bimix_tune.space import SearchSpace, load_space

console = Console(highlight=False, markup=False, emoji=False)
DRAWS = 32
"""Draws from the posterior that say how certain an objective other than the mean is."""

LawFile = Annotated[Path, typer.Argument(help="A law (.json), or runs to fit one to.")]


def fit_command(
    path: Annotated[Path, typer.Argument(help="Folder, .jsonl or .csv of finished runs.")],
    space: Annotated[
        str | None, typer.Option(help="Search space (name or YAML); default: from the runs.")
    ] = None,
    law: Annotated[str, typer.Option(help=f"One of: {', '.join(LAWS)}.")] = "auto",
    scale: Annotated[
        str | None,
        typer.Option(
            help="Model size that the law is for, such as 1B; default: the largest. Runs of "
            "smaller ones are where the law starts from."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the fitted law here (JSON).")] = None,
) -> None:
    """Fit a mixing law to finished runs and say how well it predicts left-out ones.

    Losses in tables count as nats per token unless a column `unit` says bits/byte; a column
    `decayed` marks losses at the end of the learning-rate decay.

    Example: `bimix-tune fit runs/starter --output law.json`
    """
    found = _fit(path, space, law, scale)
    console.print(law_tables.law_summary(found))
    if output is not None:
        write_atomic(output, json.dumps(found.to_dict(), indent=1) + "\n")
        console.print(f"law: {output}", soft_wrap=True)


def optimise_command(
    path: LawFile,
    tokens: Annotated[str, typer.Option(help="Training tokens of the run to come: 1e9, 100B ...")],
    space: Annotated[
        str | None, typer.Option(help="Search space with the bounds; default: the law's own.")
    ] = None,
    max_epochs: Annotated[
        float | None, typer.Option(help="Cap on repeating a domain; needs its tokens.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="mean (by weight) or worst (the greatest loss of a target).")
    ] = "mean",
    regret: Annotated[
        str | None,
        typer.Option(
            help="Reference losses, web=3.1,code=1.2 or a JSON file: minimise the greatest excess."
        ),
    ] = None,
    kl: Annotated[
        float,
        typer.Option(help="Pull to the natural mixture, per nat of divergence: 0.05, say."),
    ] = 0.0,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Bound on a sum, 'code+math<=0.3' or '>='; may be repeated."),
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(help="Fixed share, web=0.3; may be repeated.")
    ] = None,
    worst: Annotated[
        bool, typer.Option("--worst", help="Show the worst mixture too: what is at stake.")
    ] = False,
) -> None:
    """Print the mixture that a law predicts to be best.

    Example: `bimix-tune optimise law.json --tokens 100B --group "code+math<=0.3"`
    """
    count = _tokens(tokens)
    if regret is not None and objective != "mean":
        raise ConfigError("--regret is an objective of its own: leave out --objective")
    goal: ObjectiveLike = objective if regret is None else law_options.regret_of(regret)
    law = _law_of(path, space)
    bounds = law.space if space is None else load_space(space)
    if max_epochs is not None:
        bounds = bounds.cap_epochs(count, max_epochs)
    bounds = law_options.with_fixed(bounds, fix or ())
    groups = [law_options.group_of(text, bounds.names) for text in group or ()]
    options: dict[str, Any] = {"objective": goal, "kl": kl, "groups": groups}
    found = find_optimum(law, bounds, count, **options)
    mixture = bounds.mixture(found.proportions)
    shown = {"optimum": mixture, "natural": bounds.natural(), "uniform": bounds.uniform()}
    if worst:
        least = find_optimum(law, bounds, count, **options, worst=True)
        shown["worst"] = bounds.mixture(least.proportions)
    console.print(tables.mixtures_table(shown, "Mixtures"))
    extra = _extra(law, shown, count, goal)
    console.print(law_tables.losses_table(law, shown, count, extra))
    _say_how(law, found, mixture, count, goal)
    for label in ("natural", "uniform"):
        broken = [str(g) for g in groups if not _within(g, shown[label])]
        if broken:
            console.print(f"the {label} mixture breaks the bound on {', '.join(broken)}")
    console.print_json(json.dumps(dict(mixture)))


def explain_command(
    path: LawFile,
    tokens: Annotated[
        str | None, typer.Option(help="Training tokens; default: the most that the runs saw.")
    ] = None,
    mixture: Annotated[
        str | None,
        typer.Option(help="natural, uniform, JSON or a JSON file; default: the law's optimum."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All domains and targets, however many.")
    ] = False,
) -> None:
    """Say what a law knows: the effect of a little more of each domain, and what it is worth.

    Example: `bimix-tune explain law.json --tokens 100B`
    """
    given = None if tokens is None else _tokens(tokens)
    law = _law_of(path, None)
    count = law.reference if given is None else float(given)
    if mixture is None:
        chosen = law.space.mixture(find_optimum(law, law.space, count).proportions)
    else:
        chosen = law_options.mixture_of(mixture, law.space)
    found = explain(law, chosen, count)
    mean, sd = law.objective([chosen], count)
    name = "the law's optimum" if mixture is None else "the given mixture"
    console.print(law.status)
    for line in law_tables.notes(law.warnings):
        console.print(line)
    if len(law.rungs) > 1:
        console.print(law_tables.rungs_table(law))
    console.print(
        f"About {name} at {count:,.0f} tokens, objective {mean[0]:.4f} ± {sd[0]:.4f} {law.unit}."
    )
    if mixture is None:
        console.print(
            "At an optimum no domain within its bounds changes the objective, and their tokens are "
            "worth the same; --mixture natural explains another one."
        )
    console.print(law_tables.explanation(found, console.width, everything))
    for line in law_tables.outside_notes(found.outside):
        console.print(line)


def _within(group: Group, mixture: Mixture) -> bool:
    total = sum(mixture[name] for name in group.domains)
    return group.low - SUM_TOLERANCE <= total <= group.high + SUM_TOLERANCE


def _extra(
    law: LawFit, shown: Mapping[str, Mixture], tokens: float, goal: ObjectiveLike
) -> dict[str, Any]:
    """The row of an objective other than the mean."""
    if goal == "mean":
        return {}
    losses = law.predict(list(shown.values()), tokens)
    return {
        _name(goal): as_objective(goal, law.space.target_names).value(losses, law.space.weights)
    }


def _name(goal: ObjectiveLike) -> str:
    return {"mean": "objective", "worst": "greatest loss"}.get(str(goal), "greatest excess")


def _say_how(
    law: LawFit, found: Optimum, mixture: Mixture, tokens: float, goal: ObjectiveLike
) -> None:
    """The objective, how the search ended, and what to beware of."""
    if goal == "mean":
        mean, sd = law.objective([mixture], tokens)
        value, deviation, whose = float(mean[0]), float(sd[0]), "one sd of a run"
    else:
        value, deviation, whose = found.value, _deviation(law, mixture, tokens, goal), "one sd"
    doubt = f" ± {deviation:.4f} {law.unit} ({whose})" if deviation > 0 else f" {law.unit}"
    console.print(f"predicted {_name(goal)} {value:.4f}{doubt}")
    console.print(f"search: {found.status}")
    warnings = list(law.warnings)
    if not found.converged:
        warnings.append("the search for the optimum did not converge: take it with caution")
    for line in [*law_tables.notes(warnings), *law_tables.outside_notes(outside(law, mixture))]:
        console.print(line)


def _deviation(law: LawFit, mixture: Mixture, tokens: float, goal: ObjectiveLike) -> float:
    """Of an objective over draws from the posterior, zero for a law without one."""
    rng = np.random.default_rng(DRAWS)
    drawn = np.stack([law.draw(rng).predict(mixture, tokens)[0] for _ in range(DRAWS)])
    bound = as_objective(goal, law.space.target_names)
    return float(bound.value(drawn, law.space.weights).std())


def _tokens(text: str) -> int:
    count = parse_count(text, "--tokens")
    if count < 1:
        raise ConfigError(f"--tokens must be >= 1, but got {text}")
    return count


def _law_of(path: Path, space: str | None) -> LawFit:
    return _load_law(path) if path.suffix == ".json" else _fit(path, space, "auto")


def _fit(path: Path, space: str | None, law: str, scale: str | None = None) -> LawFit:
    """A law of finished runs; says which scales it rests on, if there are several."""
    curves, about = law_options.of_scale(read_curves(path), scale, law)
    if about:
        console.print(about)
    if space is not None:
        return fit(curves, load_space(space), law, scale=scale)
    names = list(curves[0].mixture.names)
    targets = [{"name": t, "domain": t if t in names else None} for t in curves[0].targets]
    found = SearchSpace.from_dict({"domains": names, "targets": targets})
    return fit(curves, found, law, scale=scale)


def _load_law(path: Path) -> LawFit:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and "law" in data and "model" not in data:
            raise KeyError("it is of an earlier version; fit it to its runs again")
        return LawFit.from_dict(data)
    except OSError as error:
        raise ConfigError(f"no law {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} holds no law written by `bimix-tune fit`: {error}") from error
