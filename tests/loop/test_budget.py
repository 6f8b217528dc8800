"""What the budget of a search is spent on."""

import optuna
from optuna.trial import TrialState

from bimix_tune.loop import ledger
from bimix_tune.loop.budget import Budget
from bimix_tune.loop.result import CONFIRMATION, PROPOSAL


def asked(study, **attrs):
    trial = study.ask()
    for key, value in attrs.items():
        trial.set_user_attr(key, value)
    return trial.number


def test_the_budget_is_spent_on_runs_once():
    study = optuna.create_study()
    budget = Budget(study)
    assert budget.spent() == set()
    done, lost, failed = (asked(study, role=PROPOSAL) for _ in range(3))
    asked(study, role=CONFIRMATION)
    assert budget.spent() == {done, lost, failed}
    study.tell(done, 1.0)
    study.tell(lost, state=TrialState.FAIL)
    study.tell(failed, state=TrialState.FAIL)
    assert budget.spent() == {done, lost, failed}
    study.enqueue_trial({"x": 1.0})  # one that has not begun costs nothing yet
    assert budget.spent() == {done, lost, failed}
    study.enqueue_trial({"x": 1.0}, user_attrs={ledger.RETRY_OF: lost})
    assert budget.spent() == {done, failed, 5}
    assert study.ask().number == 4
    ledger.withdraw(study, 4, "no further run was wanted")
    assert budget.spent() == {done, failed, 5}
    assert Budget(study).spent() == budget.spent()  # remembered or read anew
