"""The closed loop: baselines, proposals, recommendation, confirmation.

1. The training-free baselines run first; they start the law and are the rivals to beat.
2. The sampler proposes, the executor trains, the law is refitted after every finished run, and
   the pruner stops runs that cannot win.
3. The law's optimum at the target token count is the recommendation.
4. Fresh runs of it and of the baselines, paired by seed, say how much better it is.

All of it is in the study on disk, so the same call again continues where the last one stopped.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import Study
from optuna.trial import Trial

from bimix_tune.errors import ConfigError, ExecutorError, did_you_mean
from bimix_tune.executors.base import Executor
from bimix_tune.executors.local import LocalExecutor
from bimix_tune.laws import LawFit, optimise
from bimix_tune.loop import ledger
from bimix_tune.loop.company import Company
from bimix_tune.loop.driver import Driver, Running
from bimix_tune.loop.interrupts import Interrupts
from bimix_tune.loop.outcome import (
    best_of,
    is_noted,
    note_recommendation,
    outcome,
    recommend,
    save_curves,
    save_result,
    written_files,
)
from bimix_tune.loop.result import (
    BASELINE,
    CONFIRMATION,
    PROPOSAL,
    RECOMMENDATION,
    STARTUP,
    RunRecord,
    SearchResult,
)
from bimix_tune.mixture import Mixture
from bimix_tune.proposals import trust_region
from bimix_tune.pruner import BiMixPruner
from bimix_tune.sampler import BiMixSampler
from bimix_tune.space import SearchSpace
from bimix_tune.stopping import StopWhenSettled
from bimix_tune.strategies.baselines import baseline_mixtures, distinct
from bimix_tune.training.base import Trainer

RIVALS = ("all", "best")
MONITOR_SECONDS = 0.4
IDLE_SECONDS = 0.5
"""Between two looks at what other drivers have done, where there is nothing to do."""
TEND_SECONDS = 10.0
"""Between two looks for drivers that died."""
Run = tuple[Mixture, str, str, int]
"""What `ledger.enqueue` takes: a mixture, its role, label and seed."""
INCIDENTAL = ("device", "save_to", "corpus", "runs", "sleep", "grace")
"""Options of trainers that do not change losses, or that paths cannot identify (a corpus has a
key for that); a search may be continued with others."""


@dataclass(frozen=True)
class SearchState:
    """A moment of a running search, for a display.

    Args:
        phase: ``"search"`` or ``"confirmation"``.
        done: Runs of the phase that have ended.
        total: Runs of the phase.
        slots: Runs that the executor can take at once.
        running: Runs under way.
        records: All runs so far.
        law: The law fitted to all finished runs, if there is one.
        optimum: Its optimum with the predicted (mean, sd) of the objective.
        tokens: Training tokens of a complete run.
    """

    phase: str
    done: int
    total: int
    slots: int
    running: tuple[Running, ...]
    records: tuple[RunRecord, ...]
    law: LawFit | None
    optimum: tuple[Mixture, float, float] | None
    tokens: int

    @property
    def best(self) -> RunRecord | None:
        """The complete run of the search with the least objective."""
        return best_of(self.records)

    @property
    def eta(self) -> float:
        """Seconds until the phase ends, from the mean time of complete runs; NaN without any."""
        times = [r.seconds for r in self.records if r.state == "COMPLETE" and r.seconds > 0]
        if not times:
            return math.nan
        left = self.total - self.done - sum(r.tokens / self.tokens for r in self.running)
        return max(left, 0.0) * sum(times) / len(times) / max(self.slots, 1)


def search(
    space: SearchSpace,
    trainer: Trainer,
    *,
    folder: str | Path,
    trials: int = 24,
    worth: float | None = None,
    baselines: Mapping[str, Mixture] | None = None,
    executor: Executor | None = None,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    storage: str | BaseStorage | None = None,
    settings: Mapping[str, Any] | None = None,
    target_tokens: int | None = None,
    confirm_seeds: int = 2,
    rivals: str = "all",
    seed: int = 0,
    monitor: Callable[[SearchState], None] | None = None,
) -> SearchResult:
    """Search for the best mixture by training proxies; continue a search that was stopped.

    Args:
        space: The mixtures allowed and the targets that judge them.
        trainer: The recipe of one proxy run.
        folder: The run folder: study, curves, law and result are kept there.
        trials: Runs before the confirmation, baselines included.
        worth: The least improvement of the objective that is worth a run: the search ends before
            ``trials`` runs once less is expected of all further ones together
            (`bimix_tune.stopping`). None: never.
        baselines: Training-free mixtures by label, run first; None: natural, uniform and, where
            the space states tokens, UniMax.
        executor: Where runs happen; None: one after another in this process. It is not closed.
        sampler: Proposes mixtures; None: `BiMixSampler`.
        pruner: Stops runs early; None: `BiMixPruner`.
        storage: Optuna storage or its URL; None: SQLite in the folder.
        settings: What else the losses depend on, to refuse continuing under other settings.
        target_tokens: Token count that the recommendation is for; None: that of the proxies.
        confirm_seeds: Fresh seeds of the confirmation; 0 leaves it out.
        rivals: Which baselines are confirmed: ``"all"``, or the ``"best"`` of the search.
        seed: Seed of the search and of its trainings; the confirmation uses the next ones.
        monitor: Called about twice a second with the state of the search.

    Returns:
        The recommendation with its evidence; also written to ``result.json``, ``law.json`` and
        ``curves.jsonl`` in the folder.

    Raises:
        ConfigError: An argument is out of range, or the folder holds a search begun with other
            settings.
        ExecutorError: The first runs all fail, or another process drives the folder.
        KeyboardInterrupt: Passed on; nothing finished is lost and the runs under way are queued.
    """
    _check(space, trainer, rivals)
    for name, value, least in (
        ("trials", trials, 2),  # a law needs two mixtures
        ("confirm_seeds", confirm_seeds, 0),
        ("seed", seed, 0),
        ("target_tokens", trainer.tokens if target_tokens is None else target_tokens, 1),
    ):
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} must be a whole number >= {least}, but got {value!r}")
    if worth is not None and not worth > 0:
        raise ConfigError(f"worth must be > 0, but got {worth!r}")
    folder = Path(folder)
    tokens = target_tokens or trainer.tokens
    known: dict[str, Any] = {"space": space.to_dict(), "tokens": trainer.tokens, "seed": seed}
    known |= {"unit": trainer.unit, **(settings or {}), "trainer": described(trainer)}
    interrupts = Interrupts()
    with (
        ledger.only_driver(folder) if storage is None else nullcontext(),
        interrupts.deferred(),
        nullcontext(executor) if executor else LocalExecutor(trainer) as running_on,
    ):
        study = ledger.open_study(
            folder,
            storage,
            known,
            sampler or BiMixSampler(space, target_tokens=tokens, seed=seed),
            pruner or BiMixPruner(),
            wait=interrupts.sleep,
        )
        study.set_user_attr(ledger.TARGET_TOKENS, tokens)
        if baselines is None:
            baselines = baseline_mixtures(space, budget=tokens)
        for label, mixture in baselines.items():
            if broken := space.violation(mixture):
                raise ConfigError(f"baseline {label!r} is no mixture of the space: {broken}")
        # A folder has one driver, and a storage in memory one process.
        company = Company(study, alone=storage is None or isinstance(storage, InMemoryStorage))
        loop = _Loop(
            study,
            space,
            trainer,
            running_on,
            folder,
            tokens,
            seed,
            worth,
            monitor,
            interrupts,
            company,
        )
        return loop.run(trials, distinct(dict(baselines)), confirm_seeds, rivals)


def described(trainer: Trainer) -> dict[str, Any]:
    """What a trainer's losses depend on, as far as a value says so: its kind and its options."""
    known: dict[str, Any] = {"type": type(trainer).__name__}
    if dataclasses.is_dataclass(trainer):
        names = [field.name for field in dataclasses.fields(trainer)]
        known |= {name: getattr(trainer, name) for name in names if name not in INCIDENTAL}
    return known


def _check(space: SearchSpace, trainer: Trainer, rivals: str) -> None:
    if (space.low < space.high).sum() < 2:
        raise ConfigError("fewer than two domains are free to vary, so there is nothing to search")
    if rivals not in RIVALS:
        raise ConfigError(f"unknown rivals {rivals!r}" + did_you_mean(rivals, RIVALS))
    for target in space.target_names:
        if target not in trainer.targets:
            raise ConfigError(
                f"the trainer does not evaluate target {target!r}"
                + did_you_mean(target, trainer.targets)
            )


class _Loop:
    """One search on one study; the attributes are what its phases share."""

    def __init__(
        self,
        study: Study,
        space: SearchSpace,
        trainer: Trainer,
        executor: Executor,
        folder: Path,
        target_tokens: int,
        seed: int,
        worth: float | None,
        monitor: Callable[[SearchState], None] | None,
        interrupts: Interrupts,
        company: Company,
    ) -> None:
        self.interrupts, self.company, self.tended = interrupts, company, -math.inf
        study._storage.mark[ledger.DRIVER] = company.id  # type: ignore[attr-defined]
        self.study, self.space, self.folder = study, space, folder
        self.seed, self.monitor, self.told = seed, monitor, 0.0
        self.ended: dict[int, RunRecord] = {}
        self.final_law: LawFit | None = None
        self.optimum: tuple[LawFit, Mixture, float, float] | None = None
        self.executor, self.trainer, self.target_tokens = executor, trainer, target_tokens
        self.phase, self.total = "search", 0
        self.worth = worth
        self.gain: tuple[LawFit | None, float] = (None, math.inf)  # expected, by which law
        # The law shown and noted during the search; a foreign sampler is watched by one of ours.
        self.law_keeper = (
            study.sampler
            if isinstance(study.sampler, BiMixSampler)
            else BiMixSampler(space, target_tokens=target_tokens)
        )
        self.driver = Driver(
            study,
            space,
            executor,
            tokens=trainer.tokens,
            unit=trainer.unit,
            wanted=self.is_wanted,
            on_ask=self.note_role,
            on_change=self.changed,
            interrupts=interrupts,
        )

    def run(
        self, trials: int, baselines: dict[str, Mixture], confirm_seeds: int, rivals: str
    ) -> SearchResult:
        with self.company.present():
            try:
                self.explore(trials, baselines)
                recommendation = self.settle_recommendation()
                if confirm_seeds:
                    self.confirm(recommendation, baselines, confirm_seeds, rivals)
            except BaseException:
                for number in self.driver.running:
                    self.executor.stop(number)
                with suppress(ExecutorError):  # the storage may be what went wrong
                    ledger.requeue_lost(self.study, self.company.own())
                    ledger.flush(self.study)
                raise
            finally:
                with written_files(self.folder):
                    save_curves(self.folder, self.records())
        found = recommendation, self.final_law
        result = outcome(self.study, self.space, self.folder, found)
        with written_files(self.folder):
            save_result(result)
        return result

    def explore(self, trials: int, baselines: dict[str, Mixture]) -> None:
        """The search proper: baselines first, then what the sampler proposes."""
        self.total = trials
        self.changed(certainly=True)
        first = list(baselines.items())[:trials]
        runs = [(mixture, BASELINE, label, self.seed) for label, mixture in first]
        self.take_part(runs, lambda: self.room(trials))
        if self.company.leads():
            early = ledger.used_trials(self.study) < trials
            gain = f"all further runs together promise {self.gain[1]:.2g}, less than {self.worth}"
            self.study.set_user_attr(ledger.SETTLED, gain if early else None)
        self.changed(certainly=True)

    def take_part(self, runs: Sequence[Run], more: Callable[[], int]) -> None:
        """One phase, with other drivers if there are any: until no run of it is left.

        Args:
            runs: What the leader queues, unless the study has it.
            more: As `Driver.run` has it.
        """
        queued = False
        while True:
            self.tend()
            if self.company.leads() and not queued:
                for run in runs:
                    ledger.enqueue(self.study, *run)
            queued = queued or all(ledger.is_known(self.study, *run) for run in runs)
            if queued:
                self.driver.run(more, self.seed)
                if not ledger.unended(self.study, self.phase == "confirmation"):
                    return
            self.interrupts.sleep(IDLE_SECONDS)
            self.changed()

    def tend(self) -> None:
        """Queue what dead drivers left running, now and then."""
        now = time.monotonic()
        if now - self.tended > TEND_SECONDS and self.company.leads():
            if not self.company.alone or self.tended < 0:
                ledger.requeue_lost(self.study, self.company.lost())
            self.tended = now

    def room(self, trials: int) -> int:
        """How many more runs are affordable and worth it; those in the queue always are."""
        queue = ledger.waiting(self.study)
        repeats = sum(ledger.RETRY_OF in t.user_attrs for t in queue)
        left = trials - ledger.used_trials(self.study)
        if left <= 0 or self.worth is None or queue:
            return max(left, 0) + repeats
        law, _ = self.law_keeper.law_for(self.study, -1)
        if law is not None and law is not self.gain[0]:
            keeper = StopWhenSettled(self.worth, self.law_keeper)
            self.gain = law, keeper.gain(self.study) or 0.0
        return left if self.gain[1] >= self.worth else 0

    def is_wanted(self, trial: Trial) -> bool:
        """Whether a new trial is within the budget; several drivers may ask for the last one."""
        if self.company.alone or ledger.is_queued(trial):
            return True
        if self.phase == "confirmation":  # another driver was faster
            return False
        self.study._storage.refresh()  # type: ignore[attr-defined]
        before = [t for t in ledger.counted(self.study) if t.number < trial.number]
        return len(before) < self.total

    def confirm(
        self, recommendation: Mixture, baselines: dict[str, Mixture], seeds: int, rivals: str
    ) -> None:
        """Fresh runs of the recommendation and its rivals, paired by seed."""
        if rivals == "best":
            best = best_of(r for r in self.records() if r.role == BASELINE)
            baselines = {k: m for k, m in baselines.items() if best and k == best.label}
        chosen = {RECOMMENDATION: recommendation, **baselines}
        self.phase, self.total = "confirmation", len(chosen) * seeds
        runs = [
            (mixture, CONFIRMATION, label, self.seed + offset)
            for offset in range(1, seeds + 1)
            for label, mixture in chosen.items()
        ]
        self.take_part(runs, lambda: len(ledger.waiting(self.study)))
        self.changed(certainly=True)

    def settle_recommendation(self) -> Mixture:
        """The recommendation, noted by the leader, so that all drivers confirm the same one."""
        while True:
            found, self.final_law = recommend(self.study, self.space, self.target_tokens)
            if self.company.leads():
                note_recommendation(self.study, self.space, self.target_tokens, found)
                return found
            if is_noted(self.study, self.space, self.target_tokens):
                found, _ = recommend(self.study, self.space, self.target_tokens)
                return found
            self.interrupts.sleep(IDLE_SECONDS)

    def note_role(self, trial: Trial, mixture: Mixture) -> None:
        """Note a trial's role, and what the law predicts for it before it has run."""
        law = self.law_now(trial.number)
        if ledger.ROLE not in trial.user_attrs:
            trial.set_user_attr(ledger.ROLE, STARTUP if law is None else PROPOSAL)
        if law is not None and not self.law_keeper.hasty:
            mean, sd = law.objective([mixture], self.trainer.tokens)
            trial.set_user_attr(ledger.PREDICTED, [float(mean[0]), float(sd[0])])

    def law_now(self, number: int = -1) -> LawFit | None:
        """The law behind a trial's proposal; a confirmation is judged by the law that
        recommended, which has seen no run of it."""
        if self.phase == "confirmation":
            return self.final_law
        law, _ = self.law_keeper.law_for(self.study, number)
        mine = law is not None and law.space.target_names == self.space.target_names
        return law if mine else None

    def changed(self, certainly: bool = False) -> None:
        """Tell the monitor, at most about twice a second, and when a phase begins or ends."""
        self.tend()
        now = time.monotonic()
        if self.monitor is not None and (certainly or now - self.told > MONITOR_SECONDS):
            self.monitor(self.state())
            self.told = now

    def records(self) -> list[RunRecord]:
        """All runs; one that has ended is read once."""
        return ledger.records_of(self.study, self.space, self.ended)

    def state(self) -> SearchState:
        """The state of the search now."""
        records = self.records()
        mine = [r for r in records if (r.role == CONFIRMATION) == (self.phase == "confirmation")]
        law = self.law_now()
        if law is not None and (self.optimum is None or self.optimum[0] is not law):
            region = trust_region(self.space, self.law_keeper.tried(self.study))
            mixture = optimise(law, region, self.target_tokens, rough=True)  # to be shown only
            mean, sd = law.objective([mixture], self.trainer.tokens)
            self.optimum = (law, mixture, float(mean[0]), float(sd[0]))
        return SearchState(
            self.phase,
            sum(r.state in ("COMPLETE", "PRUNED", "FAIL") for r in mine),
            self.total,
            self.executor.slots,
            tuple(self.driver.running.values()),
            tuple(records),
            law,
            None if self.optimum is None else self.optimum[1:],
            self.trainer.tokens,
        )
