"""Whether a run is worth its remaining tokens, judged by the runs before it.

The prediction learns *across* runs at equal tokens: over complete runs, the half that is nearest to
this one at the checkpoint in hand, the final objective is regressed on the objective there. Early
losses rank final ones well, while extrapolating each run's own tail destroys the ranking. A decay
that all runs share is the intercept of that line.

A run is stopped when its *expected improvement* on the best run known is too small to matter.
Stopping loses at most the sum of the improvements given up, so each run gets a share of an
allowance: where n runs have ended, and the best complete one is G below their median,

    E max(best - final, 0)  <=  (1 - confidence) G / (n + 1).

The shares from n to N runs sum to ``log(N / n)``: each time that a search grows to 2.7 times
its runs, stopping is expected to cost at most ``1 - confidence`` of what the search gains over
a typical run. A winner by a hair may be stopped for that; one by a margin is not. Asking instead
that the *probability* of a win be small lets any run go on that may win by a hair, which is every
run of a search that has nearly converged.

Nothing is stopped before that is earned (`HeldOut`): with each complete run predicted by all
others, early values must predict better than the mean does, and the best run must have been let
run.

A search takes a second look at what was stopped (`bimix_tune.loop.second_look`); it seldom finds
anything.

Tried on real and made-up curves, and left: falls predicted from the losses of each target save
more in nearly converged searches, but are too sure of themselves from few runs (a third of the
winners of a random search stopped); so widened that they are not, they save less than the line.
Widening the line by its held-out errors saves 4 % less and keeps no winner more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bimix_tune.curves import LossCurve
from bimix_tune.simplex import Array

FEWEST_RUNS = 5
"""Complete runs that leave a Student t with a mean when one of them is held out."""
NEAR, FEWEST_NEAR = 0.5, 6
"""Share and least number of the complete runs that a prediction rests on."""
SURE = 1e-9
"""A scale so much smaller than the distance it is compared with counts as none."""
FAR = 1e9
"""Early objectives this many ranges off the others are as far as any."""


@dataclass(frozen=True)
class Prediction:
    """A Student t distribution of a run's final objective, lower is better.

    Args:
        centre: Its location.
        scale: Its scale; 0 means certainty.
        freedom: Degrees of freedom, above 1.
    """

    centre: float
    scale: float
    freedom: float

    def chance(self, best: float) -> float:
        """Probability of an end below ``best``."""
        gap = best - self.centre
        if self.scale <= SURE * abs(gap):
            return float(gap > 0)
        return float(stats.t.cdf(gap / self.scale, self.freedom))

    def improvement(self, best: float) -> float:
        """``E max(best - y, 0) = s (u F(u) + (f + u^2) / (f - 1) p(u))``, u = (best - centre) / s.

        F and p are distribution and density of Student's t with f degrees of freedom, s the scale
        (integrate by parts, with ``d/du [(f + u^2) p(u)] = -(f - 1) u p(u)``).
        """
        gap = best - self.centre
        if self.scale <= SURE * abs(gap):
            return max(0.0, gap)
        u, f = gap / self.scale, self.freedom
        tail = (f + u**2) / (f - 1) * float(stats.t.pdf(u, f))
        return self.scale * max(0.0, u * float(stats.t.cdf(u, f)) + tail)


@dataclass(frozen=True)
class Line:
    """Least squares ``final = a + b early`` over complete runs.

    Args:
        early: Objective of n >= `FEWEST_RUNS` complete runs at one checkpoint, (n,), finite, not
            all equal.
        final: Their objective at the end, (n,), finite.
    """

    early: Array
    final: Array

    def _sums(self) -> tuple[Array, float, float, Array]:
        """Centred early values (n,), their squares' sum, the slope, the residuals (n,)."""
        x = self.early - self.early.mean()
        sxx = float(x @ x)
        slope = float(x @ self.final) / sxx
        return x, sxx, slope, self.final - self.final.mean() - slope * x

    @property
    def slope(self) -> float:
        """b."""
        return self._sums()[2]

    def predict(self, now: float) -> Prediction:
        """The end of a new run whose objective is ``now`` at the checkpoint.

        Scale ``sqrt(RSS / (n - 2) (1 + 1/n + (now - mean)^2 / S_xx))`` (e.g. Seber & Lee, Linear
        Regression Analysis, 5.3.1).
        """
        n = len(self.final)
        _, sxx, slope, residual = self._sums()
        ahead = now - float(self.early.mean())
        leverage = 1 + 1 / n + ahead**2 / sxx
        scale = math.sqrt(float(residual @ residual) / (n - 2) * leverage)
        return Prediction(float(self.final.mean()) + slope * ahead, scale, n - 2)

    def near(self, now: float) -> Line | None:
        """The line through the half of the runs nearest to ``now`` at the checkpoint.

        Bad mixtures scatter about one line far more than good ones do: with all of them a search
        that has nearly converged could not tell its runs apart. None if these runs are all equal,
        in units of the range of all.
        """
        count = max(FEWEST_NEAR, math.ceil(NEAR * len(self.early)))
        chosen = np.argsort(np.abs(self.early - now), kind="stable")[:count]
        early = self.early[chosen]
        return Line(early, self.final[chosen]) if np.ptp(early) > SURE else None

    def held_out(self) -> HeldOut:
        """Every run predicted by a line through all others, without fitting n lines.

        With leverage h and residual e, the run misses ``e / (1 - h)`` and the others' noise
        variance is ``(RSS - e^2 / (1 - h)) / (n - 3)`` (Seber & Lee, 10.2).
        """
        n = len(self.final)
        x, sxx, _, e = self._sums()
        room = np.maximum(1 - 1 / n - x**2 / sxx, 1e-12)  # 0: only this run fixes the slope
        variance = np.maximum(float(e @ e) - e**2 / room, 0.0) / (n - 3)
        return HeldOut(self.final, e / room, np.sqrt(variance / room))


@dataclass(frozen=True)
class HeldOut:
    """How each complete run is predicted by all others.

    Args:
        final: Objective at the end, (n,).
        errors: Measured minus predicted end, (n,).
        scales: Scales of the predictions, Student t with n - 3 degrees of freedom, (n,).
    """

    final: Array
    errors: Array
    scales: Array

    @property
    def skill(self) -> float:
        """Share of the squared error of the others' mean that the line saves, at most 1."""
        n = len(self.final)
        plain = (self.final - self.final.mean()) * n / (n - 1)
        return 1.0 - float(self.errors @ self.errors) / float(plain @ plain)

    def would_keep_the_best(self, allowance: float) -> bool:
        """Whether the best run, judged by the others, would have been let run."""
        i = int(self.final.argmin())
        others = float(np.delete(self.final, i).min())
        centre = float(self.final[i] - self.errors[i])
        prediction = Prediction(centre, float(self.scales[i]), len(self.final) - 3)
        return prediction.improvement(others) > allowance


@dataclass(frozen=True)
class Verdict:
    """What is expected of a run, and whether to stop it.

    Args:
        earned: Whether the runs before it say enough to judge at all.
        chance: Probability that the run becomes the best; 1 if nothing is known.
        improvement: How much it is expected to improve on the best; infinite if unknown.
        allowance: Improvement that may be given up by stopping it.
    """

    earned: bool = False
    chance: float = 1.0
    improvement: float = math.inf
    allowance: float = 0.0

    @property
    def stop(self) -> bool:
        """Whether the run is not worth its remaining tokens."""
        return self.earned and self.improvement <= self.allowance


def judge(early: Array, final: Array, now: float, ended: int, confidence: float) -> Verdict:
    """The verdict on a run by its objective at one checkpoint.

    Args:
        early: Objective of complete runs at the checkpoint, (n,), lower is better.
        final: Their objective at the end, (n,).
        now: Objective of the run in question at the checkpoint.
        ended: Number of runs that have ended, stopped ones too.
        confidence: Share of the search's gain to keep.
    """
    keep = np.isfinite(early) & np.isfinite(final)
    early, final = early[keep], final[keep]
    if len(early) < FEWEST_RUNS or not math.isfinite(now):
        return Verdict()
    with np.errstate(over="ignore"):
        units = float(np.ptp(early)), float(np.ptp(final))
        if not all(0 < unit < math.inf for unit in units):
            return Verdict()
        # in units of their ranges, so that no square overflows or vanishes
        ahead = float(np.clip((now - early.min()) / units[0], -FAR, FAR))
    line = Line((early - early.min()) / units[0], (final - final.min()) / units[1])
    near = line.near(ahead)
    if near is None:
        return Verdict()
    past, predicted = line.held_out(), near.predict(ahead)
    allowance = (1 - confidence) * float(np.median(line.final)) / (ended + 1)
    return Verdict(
        line.slope > 0 and past.skill > 0 and past.would_keep_the_best(allowance),
        predicted.chance(0.0),
        predicted.improvement(0.0) * units[1],
        allowance * units[1],
    )


@dataclass(frozen=True)
class Course:
    """The objective of one run on its way, lower is better.

    Args:
        steps: Where it was measured, (S,), increasing; tokens, as a rule.
        values: The objective there, (S,); NaN or infinite where it failed.
        final: The objective at the end; None for a run that was stopped.
    """

    steps: Array
    values: Array
    final: float | None = None

    def before_the_end(self, step: float) -> float:
        """The value at a step, between measured ones by a line; NaN where that is no early value.

        The last measurement of a complete run is its end, often after a decay: nothing is
        interpolated towards it.
        """
        steps, values = self.steps[:-1], self.values[:-1]
        if not len(steps):
            return math.nan
        return float(np.interp(step, steps, values, left=math.nan, right=math.nan))


def verdict(
    step: float, now: float, ended: Sequence[Course], confidence: float, n_startup: int
) -> Verdict:
    """The verdict on a run by the runs that have ended.

    Args:
        step: The last step of the run, in the units of the others.
        now: Its objective there.
        ended: The other runs; a stopped one just counts.
        confidence: See `judge`.
        n_startup: Complete runs measured before and after this step that are needed.
    """
    whole = [run for run in ended if run.final is not None]
    early = np.array([run.before_the_end(step) for run in whole])
    final = np.array([run.final for run in whole], dtype=float)
    if np.sum(np.isfinite(early) & np.isfinite(final)) < n_startup:
        return Verdict()
    return judge(early, final, now, len(ended), confidence)


def should_stop(
    partial: LossCurve,
    curves: Sequence[LossCurve],
    complete: Sequence[bool],
    value: Callable[[Array], Array],
    confidence: float = 0.9,
    n_startup: int = 6,
) -> bool:
    """Whether a run is not worth its remaining tokens, for searches outside of Optuna.

    Args:
        partial: The run so far.
        curves: Runs that have ended. One that lacks a target of ``partial`` is left out.
        complete: Which of them ran to their end.
        value: The objective, lower is better, of losses (S, V) in the order of the targets of
            ``partial``; (S,).
        confidence: See `bimix_tune.pruner.BiMixPruner`.
        n_startup: Complete runs needed before any is stopped.
    """
    ended = []
    for curve, whole in zip(curves, complete, strict=True):
        if set(partial.targets) <= set(curve.targets):
            columns = [curve.targets.index(t) for t in partial.targets]
            values = value(curve.losses[:, columns])
            ended.append(Course(curve.tokens, values, float(values[-1]) if whole else None))
    now = float(value(partial.losses[-1:])[0])
    return verdict(float(partial.tokens[-1]), now, ended, confidence, n_startup).stop
