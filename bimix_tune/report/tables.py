"""The page's tables and lists, in the order in which the page shows them."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata

from bimix_tune.loop.result import RECOMMENDATION, Confirmation, RunRecord, SearchResult
from bimix_tune.report import theme
from bimix_tune.report.markup import Markup, bullets, escape, table
from bimix_tune.report.verdict import BETTER, EQUAL, SINGLE, WORSE, decimals, interval, judge
from bimix_tune.simplex import Array
from bimix_tune.space import SearchSpace

PACKAGES = ("bimix-tune", "optuna", "numpy", "scipy", "torch", "transformers", "ray", "plotly")
JUDGEMENTS = {
    BETTER: "recommendation is better",
    EQUAL: "no difference beyond noise",
    WORSE: "recommendation is worse",
    SINGLE: "no interval with one seed",
}


def recommendation(result: SearchResult) -> Markup:
    """The mixture with bars; a tick on each bar is the natural proportion."""
    space = result.space
    shares, prior = space.array(result.recommendation), space.prior
    scale = 100 / max(float(shares.max()), float(prior.max()))
    budgets = [d.tokens for d in space.domains]
    head = ["domain", "", "recommended", natural_name(space), "change"]
    rows = []
    for i in sorted(range(len(shares)), key=lambda i: -shares[i]):
        bar = Markup(
            f'<div class="bar"><i style="width:{scale * shares[i]:.2f}%"></i>'
            f'<b style="left:{scale * prior[i]:.2f}%"></b></div>'
        )
        share = Markup(f"<strong>{theme.percent(float(shares[i]))}</strong>")
        row = [space.names[i], bar, share, theme.percent(float(prior[i]))]
        row.append(change(float(shares[i]), float(prior[i])))
        if any(budgets):
            tokens = budgets[i]
            row.append(_epochs(shares[i] * result.target_tokens / tokens) if tokens else "–")
        rows.append(row)
    return table([*head, "epochs"] if any(budgets) else head, rows, 2)


def _epochs(passes: float) -> str:
    return "< 0.01" if 0 < passes < 0.01 else f"{passes:.{2 if passes < 10 else 0}f}"


def natural_name(space: SearchSpace) -> str:
    """What the prior is: natural, or equal where the space states none."""
    known = space.domains[0].prior is not None or all(d.tokens for d in space.domains)
    return "natural" if known else "equal"


def change(share: float, prior: float) -> str:
    """A proportion in terms of its prior.

    >>> change(0.2, 0.1), change(0.05, 0.1), change(0.0, 0.1), change(0.1, 0.1)
    ('× 2.0', '÷ 2.0', 'left out', 'same')
    """
    if share < theme.NEGLIGIBLE:
        return "left out"
    factor = share / prior
    if abs(math.log(factor)) < math.log(1.05):
        return "same"
    sign, size = ("×", factor) if factor > 1 else ("÷", 1 / factor)
    return f"{sign} {size:.{1 if size < 10 else 0}f}"


def confirmation(found: Confirmation, unit: str) -> Markup:
    """Mean objective of every confirmed mixture and its difference to the recommendation."""

    def mean(name: str) -> str:
        values = found.objective.get(name, ())
        return theme.loss(math.fsum(values) / len(values) if values else None)

    own = Markup("<strong>recommendation</strong>")
    rows: list[Sequence[str]] = [[own, "", mean(RECOMMENDATION), "", ""]]
    for c in found.comparisons:
        size = theme.signed(c.mean, decimals(c))
        spread = "–" if judge(c) == SINGLE else interval(c)
        rows.append([c.label, JUDGEMENTS[judge(c)], mean(c.label), size, spread])
    head = ["mixture", "verdict", f"mean loss, {unit}", "minus recommendation", "95 % interval"]
    return table(head, rows, 2)


def mixtures(space: SearchSpace, shown: Mapping[str, Mapping[str, float]]) -> Markup:
    """All proportions in numbers."""
    shares = space.matrix(shown.values())
    rows = [
        [name, *(theme.percent(float(v)) for v in shares[:, i])]
        for i, name in enumerate(space.names)
    ]
    return table(["domain", *shown], rows)


def swatches(space: SearchSpace) -> Markup:
    """The legend of the bars: a colour (and hatching) for every domain."""
    marks = []
    for i, name in enumerate(space.names):
        hatched = {"": "", "/": " slash", ".": " dots", "x": " cross"}[theme.hatch(i)]
        style = f"background-color:{theme.colour(i)}"
        marks.append(f'<li><i class="swatch{hatched}" style="{style}"></i>{escape(name)}</li>')
    return Markup(f'<ul class="legend">{"".join(marks)}</ul>')


def parameters(values: Mapping[str, Mapping[str, object]]) -> Markup:
    """Numbers of the law by target; rows by domain are left to their figures."""
    names = list(
        dict.fromkeys(k for row in values.values() for k, v in row.items() if _is_number(v))
    )
    rows = [[target, *(_number(row.get(k)) for k in names)] for target, row in values.items()]
    return table(["target", *names], rows)


def by_domain(rows: Mapping[str, Mapping[str, float]], domains: Sequence[str]) -> Markup:
    """Coefficients by target and domain in numbers."""
    lines = [[target, *(_number(row.get(d)) for d in domains)] for target, row in rows.items()]
    return table(["target", *domains], lines)


def exchange(rates: Array, names: Sequence[str]) -> Markup:
    """Tokens of one domain for a token of another, (K, K)."""
    rows = [
        [theme.short(name, 24), *map(_rate, row)]
        for name, row in zip(names, rates.tolist(), strict=True)
    ]
    return table(["one token of", *(theme.short(name, 14) for name in names)], rows)


def _rate(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "> 999" if value > 999 else f"{value:.{2 if value < 10 else 0}f}"


def rungs(shares: Mapping[str, float]) -> Markup:
    """The laws of a blend with their shares of the prediction, as bars."""
    most = max(shares.values(), default=1.0) or 1.0
    rows: list[Sequence[str]] = []
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        bar = Markup(f'<div class="bar rung"><i style="width:{100 * share / most:.2f}%"></i></div>')
        number = theme.percent(share).replace(" ", NO_BREAK)
        rows.append([name.replace(" ", NO_BREAK), bar, number, RUNGS.get(name, "")])
    return table(["part of the law", "", "share", "says"], rows, 4)


NO_BREAK = "\u00a0"
PROCESS = "with a Gaussian process on what it misses"
RUNGS = {
    "bimix": "only a target's own domain counts",
    "transfer": "other domains help too, a little of many more than much of one",
    "additive": "a target without own domain is a sum over the domains",
    "linear": "the log loss is a line in the proportions",
    "transported": "the law of the smaller model size, stretched",
}
RUNGS |= {f"{name} + process": f"{text}; {PROCESS}" for name, text in RUNGS.items()}
"""What the laws of a blend say, by name."""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "–"


def space_tables(space: SearchSpace) -> Markup:
    """Bounds and priors of the domains, weights of the targets."""
    domains = [
        [
            d.name,
            theme.percent(float(p)),
            theme.count(d.tokens) if d.tokens else "–",
            theme.percent(d.low),
            theme.percent(d.high),
        ]
        for d, p in zip(space.domains, space.prior, strict=True)
    ]
    targets = [
        [t.name, t.domain or "none", theme.percent(float(w))]
        for t, w in zip(space.targets, space.weights, strict=True)
    ]
    head = ["domain", natural_name(space), "tokens available", "least", "most"]
    return Markup(table(head, domains) + table(["target", "held out from", "weight"], targets, 2))


def states(records: Sequence[RunRecord]) -> Markup:
    """Number of runs by role and state."""
    roles = list(dict.fromkeys(r.role for r in records))
    kinds = list(dict.fromkeys(r.state for r in records))
    counts = Counter((r.role, r.state) for r in records)
    rows = [[role, *(str(counts[role, kind]) for kind in kinds)] for role in roles]
    return table(["role", *(kind.lower() for kind in kinds)], rows)


def failures(records: Sequence[RunRecord]) -> Markup:
    """The failed runs with their causes, equal causes together."""
    causes: dict[str, list[str]] = {}
    for r in records:
        if r.state == "FAIL":
            causes.setdefault(r.cause or "cause not recorded", []).append(str(r.number))
    lines = (f"run {', '.join(numbers)}: {cause}" for cause, numbers in causes.items())
    return bullets(lines)


def runs(records: Sequence[RunRecord]) -> Markup:
    """Every run in a line."""
    head = ["run", "role", "label", "state", "tokens", "loss", "expected", "seed", "time"]
    rows = []
    for r in records:
        seen = theme.count(float(r.curve.tokens[-1])) if r.curve is not None else "–"
        expected = theme.loss(r.predicted[0] if r.predicted else None)
        time = theme.duration(r.seconds) if math.isfinite(r.seconds) else "–"
        row = [str(r.number), r.role, r.label, r.state.lower(), seen, theme.loss(r.objective)]
        rows.append([*row, expected, str(r.seed), time])
    return table(head, rows, 4)


def notes(records: Sequence[RunRecord]) -> dict[str, str]:
    """What the trainers noted: the value where all runs agree, else the range of numbers."""
    values: dict[str, list[str | float | int]] = {}
    for r in records:
        for key, value in r.notes.items():
            values.setdefault(key, []).append(value)
    return {key: _merged(found) for key, found in values.items()}


def _merged(found: Sequence[str | float | int]) -> str:
    texts = list(dict.fromkeys(_note(value) for value in found))
    numbers = [value for value in found if not isinstance(value, str)]
    if len(texts) > 1 and len(numbers) == len(found):
        return f"{_note(min(numbers))} to {_note(max(numbers))}"
    return texts[0] if len(texts) == 1 else f"{len(texts)} values"


def _note(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return theme.count(value) if isinstance(value, int) and value >= 10_000 else str(value)


def versions() -> str:
    """Versions of the interpreter and of the packages that are installed."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
