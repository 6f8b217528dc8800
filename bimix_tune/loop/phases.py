"""The phases of a search: exploration, recommendation, confirmation.

Each phase is a list of runs that must be in the study, and a rule for how many more to ask for;
a `Driver` does the rest. Where several drivers share a study, one of them leads: it queues and
decides, and the others take part.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from optuna.study import Study
from optuna.trial import Trial

from bimix_tune.errors import ExecutorError
from bimix_tune.executors.base import Executor
from bimix_tune.laws import LawFit, optimise
from bimix_tune.loop import ledger
from bimix_tune.loop.budget import Budget
from bimix_tune.loop.company import Company
from bimix_tune.loop.driver import Driver
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
from bimix_tune.loop.second_look import SecondLook
from bimix_tune.loop.state import SearchState
from bimix_tune.mixture import Mixture
from bimix_tune.observing import LawFitted, Observers, SlotsChanged
from bimix_tune.proposals import trust_region
from bimix_tune.sampler import BiMixSampler
from bimix_tune.space import SearchSpace
from bimix_tune.stopping import StopWhenSettled
from bimix_tune.training.base import Trainer

MONITOR_SECONDS = 0.4
REPEAT_SEED = 1000
"""From the seed of the search to that of repeated baselines: not one of the confirmation's."""
IDLE_SECONDS = 0.5
"""Between two looks at what other drivers have done, where there is nothing to do."""
TEND_SECONDS = 10.0
"""Between two looks for drivers that died."""


class Phases:
    """One search on one study; the attributes are what its phases share.

    Args are those of `bimix_tune.loop.closed_loop.search`, and whom to tell of events, when to let
    signals through, and which other drivers there are.
    """

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
        observe: Observers,
        interrupts: Interrupts,
        company: Company,
    ) -> None:
        self.interrupts, self.company, self.tended = interrupts, company, -math.inf
        ledger.sign(study, company.id)
        self.study, self.space, self.folder = study, space, folder
        self.budget = Budget(study)
        self.seed, self.monitor, self.told = seed, monitor, 0.0
        self.observe, self.slots = observe, 0
        self.fitted: LawFit | None = None  # the law that observers know
        self.ended: dict[int, RunRecord] = {}
        self.final_law: LawFit | None = None
        self.optimum: tuple[LawFit, Mixture, float, float] | None = None
        self.executor, self.trainer, self.target_tokens = executor, trainer, target_tokens
        self.phase, self.total = "search", 0
        self.worth = worth
        self.second_look = SecondLook(study, space, trainer)
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
            observe=observe,
            interrupts=interrupts,
        )

    def run(
        self,
        trials: int,
        baselines: dict[str, Mixture],
        repeats: int,
        confirm_seeds: int,
        rivals: str,
    ) -> SearchResult:
        """All phases; see `bimix_tune.loop.closed_loop.search`."""
        with self.company.present():
            try:
                self.explore(trials, baselines, repeats)
                recommendation = self.settle_recommendation()
                if confirm_seeds:
                    self.confirm(recommendation, baselines, confirm_seeds, rivals)
            except BaseException:
                for number in self.driver.running:
                    self.executor.stop(number)
                with suppress(ExecutorError):  # the storage may be what went wrong
                    ledger.requeue_lost(self.study, self.company.own())
                    ledger.flush(self.study)  # the failure that ended the search, say
                raise
            finally:
                with written_files(self.folder):
                    save_curves(self.folder, self.records())
        found = recommendation, self.final_law
        result = outcome(self.study, self.space, self.folder, found)
        with written_files(self.folder):
            save_result(result)
        self.study.set_user_attr(ledger.PLANNED, ["ended", 0])
        return result

    def explore(self, trials: int, baselines: dict[str, Mixture], repeats: int) -> None:
        """The search proper: baselines first, then what the sampler proposes."""
        self.enter("search", trials)
        first = [(mixture, BASELINE, label, self.seed) for label, mixture in baselines.items()]
        again = [(*run[:3], self.seed + REPEAT_SEED) for run in first[:repeats]]
        self.take_part([*first, *again][:trials], lambda: self.room(trials))
        if self.company.leads():
            early = len(self.budget.spent()) < trials
            gain = f"all further runs together promise {self.gain[1]:.2g}, less than {self.worth}"
            self.study.set_user_attr(ledger.SETTLED, gain if early else None)
        self.changed(certainly=True)

    def take_part(self, runs: Sequence[ledger.Run], more: Callable[[], int]) -> None:
        """One phase, with other drivers if there are any: until no run of it is left.

        Args:
            runs: What the leader queues, unless the study has it.
            more: As `Driver.run` has it.
        """
        queued = False
        while True:
            self.tend()
            if self.company.leads() and not queued:
                ledger.enqueue(self.study, runs)
            queued = queued or ledger.are_known(self.study, runs)
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
        left = trials - len(self.budget.spent())
        if left > 0 and self.fitted is not None and self.company.leads():
            self.second_look.take(self.fitted)
        queue = ledger.waiting(self.study)
        repeats = sum(map(ledger.repeats, queue))
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
        ledger.refresh(self.study)
        return sum(number < trial.number for number in self.budget.spent()) < self.total

    def confirm(
        self, recommendation: Mixture, baselines: dict[str, Mixture], seeds: int, rivals: str
    ) -> None:
        """Fresh runs of the recommendation and its rivals, paired by seed."""
        if rivals == "best":
            best = best_of(r for r in self.records() if r.role == BASELINE)
            baselines = {k: m for k, m in baselines.items() if best and k == best.label}
        chosen = {RECOMMENDATION: recommendation, **baselines}
        self.enter("confirmation", len(chosen) * seeds)
        runs = [
            (mixture, CONFIRMATION, label, self.seed + offset)
            for offset in range(1, seeds + 1)
            for label, mixture in chosen.items()
        ]
        self.take_part(runs, lambda: len(ledger.waiting(self.study)))
        self.changed(certainly=True)

    def enter(self, phase: str, total: int) -> None:
        """Begin a phase, and note it for those who watch from elsewhere."""
        self.phase, self.total = phase, total
        self.study.set_user_attr(ledger.PLANNED, [phase, total])
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
        if law is not None and law is not self.fitted:
            self.fitted = law
            self.observe(LawFitted(law.status))
        noted = ledger.PREDICTED in trial.user_attrs
        if law is not None and not noted and not self.law_keeper.hasty:
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
        if self.slots != self.executor.slots:
            self.slots = self.executor.slots
            self.observe(SlotsChanged(self.slots))
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
