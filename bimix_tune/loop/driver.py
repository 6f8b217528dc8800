"""Keep every slot of an executor busy with trials of a study.

The driver asks for a trial whenever a slot is free, and for some ahead where slots would else wait
for it (`bimix_tune.loop.pace`); it turns events of the executor into checkpoints, and tells the
study how each run ended. It waits for events only, never for one run. What it has to write goes
into the storage once a round.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from optuna.study import Study
from optuna.trial import Trial, TrialState

from bimix_tune.errors import BimixError, DivergedError, ExecutorError
from bimix_tune.executors.base import (
    Event,
    Executor,
    Failed,
    Finished,
    Job,
    Output,
    Progress,
    Retried,
    Started,
)
from bimix_tune.executors.local import LocalExecutor
from bimix_tune.loop import ledger
from bimix_tune.loop.interrupts import Interrupts
from bimix_tune.loop.pace import Pace
from bimix_tune.loop.result import PROPOSAL
from bimix_tune.loop.storage import DriverStorage
from bimix_tune.mixture import Mixture
from bimix_tune.observing import (
    RunAsked,
    RunCheckpoint,
    RunEnded,
    RunOutput,
    RunRetried,
    RunStarted,
    SearchEvent,
)
from bimix_tune.sampler import BiMixSampler
from bimix_tune.space import SearchSpace
from bimix_tune.training.base import Checkpoint
from bimix_tune.trials import report_losses, suggest_mixture

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Longest wait for an event before the display is refreshed."""

FILL_SECONDS = 0.05
"""After so long a time of asking, events are looked at."""

WRITE_SECONDS = 0.05
"""In haste results are written down at most so often; a driver that is killed then loses those of
so long."""

HOPELESS = 3
"""Runs that must fail before one has succeeded for the search to be called off."""


@dataclass
class Running:
    """A trial under way."""

    trial: Trial
    role: str
    label: str
    mixture: Mixture
    prunable: bool = True
    started: float = field(default_factory=time.monotonic)  # handed over; then: begun on a slot
    tokens: int = 0
    reported: int = 0
    objective: float | None = None
    stopping: bool = False
    retries: list[str] = field(default_factory=list)


class Driver:
    """Runs trials of one study on one executor.

    Args:
        study: Where trials come from and results go to.
        space: The space of the mixtures.
        executor: Runs the trainings.
        tokens: Training tokens of a complete run.
        unit: Unit of the losses.
        wanted: Whether a new trial is within the budget, also where other drivers ask too.
        on_ask: Called with each new trial before it starts; must note its role if it has none.
        on_change: Called after every round of events.
        observe: Called with everything that happens to a run.
        interrupts: Told when the driver only waits, so that a signal does no harm.
    """

    def __init__(
        self,
        study: Study,
        space: SearchSpace,
        executor: Executor,
        *,
        tokens: int,
        unit: str,
        wanted: Callable[[Trial], bool],
        on_ask: Callable[[Trial, Mixture], None],
        on_change: Callable[[], None],
        observe: Callable[[SearchEvent], None],
        interrupts: Interrupts,
    ) -> None:
        self._study = study
        self._space = space
        self._executor = executor
        self._tokens = tokens
        self._unit = unit
        self._wanted = wanted
        self._on_ask = on_ask
        self._on_change = on_change
        self._observe = observe
        self._interrupts = interrupts
        self._failures: list[str] = []
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        self._succeeded = bool(ended)
        self.running: dict[int, Running] = {}
        self._pace = Pace()

    def run(self, more: Callable[[], int], seed: int) -> None:
        """Ask, train and tell until there is no more to ask for and all runs have ended.

        Args:
            more: How many more trials the study may be asked for, now.
            seed: Seed of a training that the sampler proposes (an enqueued one has its own).

        Raises:
            ExecutorError: The first runs all failed, or the storage went away for good.
        """
        while True:
            hungry = self._fill(more, seed)
            if not self.running:
                self._release()
                return
            patience = 0.0 if hungry else self._write()
            with self._interrupts.allowed():
                events = self._executor.events(patience)
            for event in events:
                self._handle(event)
            self._on_change()

    def _fill(self, more: Callable[[], int], seed: int) -> bool:
        """Hand over jobs; whether more are wanted still, but it is time to look at events."""
        sampler = self._study.sampler
        if isinstance(sampler, BiMixSampler) and not isinstance(self._executor, LocalExecutor):
            sampler.hasty = self._pace.overrun(self._executor.slots)
        until = time.monotonic() + FILL_SECONDS
        while (lacking := self._lacking()) > 0 and (left := more()) > 0:
            wanted = min(lacking, left)
            self._reserve(wanted, left)
            for _ in range(wanted):
                self._start(seed)
                if time.monotonic() > until:
                    self._write()
                    return True
        return False

    def _write(self) -> float:
        """Write down what is new, in haste not too often; and how long to wait for events now."""
        storage = self._study._storage
        if not isinstance(storage, DriverStorage) or not storage.unwritten:
            return POLL_SECONDS
        in_haste = getattr(self._study.sampler, "hasty", False)
        if in_haste and time.monotonic() - storage.written < WRITE_SECONDS:
            return WRITE_SECONDS
        storage.flush()
        return POLL_SECONDS

    def _release(self) -> None:
        """Withdraw trials that were reserved and not asked for, and write down all."""
        storage = self._study._storage
        while isinstance(storage, DriverStorage) and storage.reserved:
            number = storage.reserved[0].number
            storage.create_new_trial(self._study._study_id)
            ledger.withdraw(self._study, number, "no further run was wanted")
        ledger.flush(self._study)

    def _lacking(self) -> int:
        """How many jobs the executor should be given."""
        slots = self._executor.slots
        # A training in this process does not go on while the next proposal is thought out.
        ahead = 0 if isinstance(self._executor, LocalExecutor) else self._pace.ahead(slots)
        return slots + ahead - len(self.running)

    def _reserve(self, wanted: int, left: int) -> None:
        """Let new trials be created in one go, in haste one for each slot; the queue comes first.

        Args:
            wanted: Trials that are asked for next.
            left: Trials that may be asked for at all.
        """
        storage = self._study._storage
        if isinstance(storage, DriverStorage):
            there = len(ledger.waiting(self._study)) + len(storage.reserved)
            if there < wanted:
                hasty = getattr(self._study.sampler, "hasty", False)
                storage.flush(
                    create=min(max(wanted, self._executor.slots if hasty else 0), left) - there
                )

    def _start(self, seed: int) -> None:
        began, hasty = time.monotonic(), getattr(self._study.sampler, "hasty", False)
        trial = self._study.ask()
        if not self._wanted(trial):
            ledger.withdraw(self._study, trial.number, "other drivers had taken all trials")
            return
        try:
            mixture = suggest_mixture(trial, self._space)
        except BimixError as error:  # an enqueued trial that is no mixture of this space
            ledger.fail(self._study, trial.number, str(error))
            return
        if ledger.SEED not in trial.user_attrs:
            trial.set_user_attr(ledger.SEED, seed)
        self._on_ask(trial, mixture)
        attrs = trial.user_attrs
        role, label = attrs[ledger.ROLE], attrs.get(ledger.LABEL, "")
        run = Running(trial, role, label, mixture, ledger.is_prunable(attrs))
        self.running[trial.number] = run
        self._observe(RunAsked(trial.number, run.role, run.label, mixture, int(attrs[ledger.SEED])))
        self._executor.submit(Job(trial.number, mixture, int(attrs[ledger.SEED])))
        self._pace.asked(time.monotonic() - began, run.role == PROPOSAL and not hasty)

    def _handle(self, event: Event) -> None:
        run = self.running.get(event.job_id)
        if run is None:
            return
        if not self._owned(event.job_id):
            self._give_up(event.job_id)
            return
        if isinstance(event, Started):
            run.started = time.monotonic()
            run.trial.set_user_attr(ledger.SLOT, event.slot)
            run.trial.set_user_attr(ledger.STARTED, round(time.time(), 2))
            self._observe(RunStarted(event.job_id, event.slot))
        elif isinstance(event, Progress):
            try:
                self._progress(run, event.checkpoint)
            except BimixError as error:  # a trainer that leaves out a target, say
                self._executor.stop(event.job_id)
                self._end(event.job_id, run, str(error))
        elif isinstance(event, Output):
            self._observe(RunOutput(event.job_id, event.text))
        elif isinstance(event, Retried):
            self._retried(run, event.cause)
        elif isinstance(event, Failed):
            self._end(event.job_id, run, event.cause)
        else:
            self._finished(run, event)

    def _owned(self, number: int) -> bool:
        """Whether the run is still ours: other drivers repeat those of one that seems dead."""
        storage = self._study._storage
        return not isinstance(storage, DriverStorage) or storage.owns(number)

    def _give_up(self, number: int) -> None:
        logger.warning("run %d was taken over by another driver", number)
        self._executor.stop(number)
        self._forget(number, self.running[number], TrialState.FAIL, "taken over by another driver")

    def _progress(self, run: Running, checkpoint: Checkpoint) -> None:
        """Record a checkpoint, and stop the run if it is hopeless.

        Raises:
            BimixError: The losses are not what a search can go on with.
        """
        if checkpoint.losses and checkpoint.tokens > run.reported:
            for target, loss in checkpoint.losses.items():
                if not math.isfinite(loss):
                    raise DivergedError(
                        f"the loss of {target!r} became {loss} after {checkpoint.tokens} tokens"
                    )
            run.reported = checkpoint.tokens  # a retried run begins again below it
            run.objective = report_losses(
                run.trial,
                checkpoint.tokens,
                checkpoint.losses,
                decayed=checkpoint.decayed,
                unit=self._unit,
            )
            self._observe(
                RunCheckpoint(run.trial.number, checkpoint.tokens, checkpoint.losses, run.objective)
            )
            if run.prunable and checkpoint.tokens < self._tokens:
                run.stopping = run.stopping or run.trial.should_prune()
                if run.stopping:
                    self._executor.stop(run.trial.number)
        if checkpoint.notes:
            run.trial.set_user_attr(ledger.NOTES, dict(checkpoint.notes))
        run.tokens = checkpoint.tokens

    def _retried(self, run: Running, cause: str) -> None:
        """Note on the trial why it is tried again."""
        run.retries.append(cause)
        run.trial.set_user_attr(ledger.RETRIES, run.retries)
        self._observe(RunRetried(run.trial.number, cause))

    def _finished(self, run: Running, event: Finished) -> None:
        number = run.trial.number
        if run.reported >= self._tokens:  # also where a request to stop came too late
            self._tell(number, run, TrialState.COMPLETE)
        elif event.stopped and run.objective is not None:
            self._tell(number, run, TrialState.PRUNED)
        else:
            cause = f"ended after {run.tokens} of {self._tokens} tokens without its final losses"
            self._end(number, run, cause)

    def _tell(self, number: int, run: Running, state: TrialState) -> None:
        self._note_seconds(run)
        self._pace.ran(time.monotonic() - run.started)
        value = run.objective if state == TrialState.COMPLETE else None
        self._study.tell(number, value, state=state)
        self._succeeded = True
        self._forget(number, run, state)

    def _forget(self, number: int, run: Running, state: TrialState, cause: str = "") -> None:
        del self.running[number]
        seconds = round(time.monotonic() - run.started, 2)
        self._observe(RunEnded(number, state.name, run.tokens, run.objective, seconds, cause))

    def _note_seconds(self, run: Running) -> None:
        seconds = time.monotonic() - run.started
        run.trial.set_user_attr(ledger.SECONDS, round(seconds, 2))

    def _end(self, number: int, run: Running, cause: str) -> None:
        """Record a failure; call the search off if nothing ever worked."""
        logger.info("run %d failed: %s", number, cause)
        self._note_seconds(run)
        run.trial.set_user_attr(ledger.CAUSE, cause)
        self._study.tell(number, state=TrialState.FAIL)
        self._forget(number, run, TrialState.FAIL, cause)
        self._failures.append(cause)
        if not self._succeeded and len(self._failures) >= HOPELESS:
            raise ExecutorError(
                f"the first {HOPELESS} runs all failed, the last with: {cause}. "
                "Mend the cause and run the same command again"
            )
