"""On which trials the budget of a search is spent; one that has ended is looked at once."""

from __future__ import annotations

from optuna.study import Study
from optuna.trial import FrozenTrial

from bimix_tune.loop import ledger
from bimix_tune.loop.result import CONFIRMATION


class Budget:
    """Counts the trials of a study that ended or are under way, and those in the queue that repeat
    one; not the confirmation, nor what has a successor or was withdrawn.

    Args:
        study: The study.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._ended: set[int] = set()  # these three: numbers of trials
        self._spent: set[int] = set()
        self._gone: set[int] = set()

    def spent(self) -> set[int]:
        """Numbers of the trials that count."""
        spent: set[int] = set()
        gone: set[int] = set()
        for trial in self._study.get_trials(deepcopy=False):
            if trial.number not in self._ended:
                over = trial.state.is_finished()
                (self._gone if over else gone).update(ledger.ousted_by(trial))
                if _counts(trial):
                    (self._spent if over else spent).add(trial.number)
                if over:
                    self._ended.add(trial.number)
        return (self._spent | spent) - self._gone - gone


def _counts(trial: FrozenTrial) -> bool:
    begun = trial.state in ledger.USED or ledger.repeats(trial)
    return begun and trial.user_attrs.get(ledger.ROLE) != CONFIRMATION
