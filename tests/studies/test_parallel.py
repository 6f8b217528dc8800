"""Trials that run at the same time: in threads, in processes, in batches; and interrupted ones."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from bimix_tune import suggest_mixture
from bimix_tune.trials import PROPOSED, mixture_of

WORKER = """
    import sys, warnings
    import numpy as np, optuna
    from optuna.storages.journal import JournalFileBackend
    from bimix_tune import BiMixSampler, SearchSpace, report_losses, suggest_mixture

    url, seed, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    space = SearchSpace(["web", "code", "books", "law"])

    def objective(trial):
        mixture = suggest_mixture(trial, space)
        level = dict(zip(space.names, (2.0, 1.5, 3.0, 2.5)))
        # Runs have noise: processes that ask at one moment do not see each other, and only their
        # draws from an uncertain law differ.
        noise = np.random.default_rng(trial.number).normal(1, 0.003)
        losses = {n: noise * level[n] * (0.02 + r) ** -0.2 for n, r in mixture.items()}
        return report_losses(trial, 1000, losses)

    path = url.removeprefix("journal:")
    storage = url
    if path != url:
        storage = optuna.storages.JournalStorage(JournalFileBackend(path))
    sampler = BiMixSampler(space, seed=seed)
    study = optuna.load_study(study_name="shared", storage=storage, sampler=sampler)
    study.optimize(objective, n_trials=n)
"""


def run_workers(url, workers=3, each=4):
    """Several processes on one storage; each must succeed."""
    command = [sys.executable, "-c", textwrap.dedent(WORKER), url]
    running = [
        subprocess.Popen([*command, str(seed), str(each)], stderr=subprocess.PIPE, text=True)
        for seed in range(workers)
    ]
    for process in running:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors


def check(study, count):
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    mixtures = np.array([list(t.params.values()) for t in study.trials])
    assert mixtures.shape == (count, 4)
    assert mixtures.sum(axis=1) == pytest.approx(np.ones(count), abs=1e-9)
    assert nearest(mixtures) > 1e-4  # nobody repeats anybody


def nearest(mixtures):
    distance = np.abs(mixtures[:, None] - mixtures[None]).max(axis=2)
    return distance[~np.eye(len(mixtures), dtype=bool)].min()


def test_processes_share_sqlite(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=url, study_name="shared")
    run_workers(url)
    check(optuna.load_study(storage=url, study_name="shared"), 12)


def test_processes_share_a_journal(tmp_path):
    path = str(tmp_path / "journal.log")
    storage = optuna.storages.JournalStorage(JournalFileBackend(path))
    study = optuna.create_study(storage=storage, study_name="shared")
    run_workers("journal:" + path)
    check(study, 12)


@pytest.fixture
def postgres():
    """The address of a PostgreSQL server of its own, which listens on a socket in a folder."""
    pytest.importorskip("psycopg")
    tools = {name: shutil.which(name) for name in ("initdb", "pg_ctl")}
    if not all(tools.values()):
        pytest.skip("needs PostgreSQL's initdb and pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="bimix-"))  # pytest's are too long for a socket
    options = {}
    if os.getuid() == 0:  # a server refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def run(name, *arguments):
        done = subprocess.run(
            [tools[name], "-D", str(folder / "data"), *arguments],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            **options,
        )
        assert done.returncode == 0, done.stderr

    run("initdb", "-U", "bimix", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8")
    server = f"-c listen_addresses='' -k {folder} -c fsync=off"
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", server, "start")
    try:
        yield f"postgresql+psycopg://bimix@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def test_processes_share_postgresql(postgres):
    storage = optuna.storages.RDBStorage(postgres)
    optuna.create_study(storage=storage, study_name="shared")
    run_workers(postgres)
    check(optuna.load_study(storage=storage, study_name="shared"), 12)
    storage.engine.dispose()


def test_drivers_share_postgresql(postgres, tmp_path):
    sys.path.insert(0, str(Path(__file__).parents[1] / "loop"))
    from test_company import share

    share(tmp_path, postgres)


def test_threads_do_not_repeat_each_other(problem):
    """Losses have no noise, so the law is certain, and all its draws have one optimum."""
    study = problem.study()
    study.optimize(problem.objective, n_trials=16, n_jobs=4)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert nearest(np.array([list(t.params.values()) for t in study.trials])) > 1e-4
    assert study.best_value < problem.best() + 0.01


@pytest.mark.parametrize("recorded", [True, False], ids=["losses", "values"])
def test_a_batch_differs_and_is_good(problem, recorded):
    study = problem.study()
    study.optimize(problem.objective if recorded else problem.value, n_trials=12)
    batch = [suggest_mixture(study.ask(), problem.space) for _ in range(8)]
    assert nearest(np.array([list(m.values()) for m in batch])) >= 1e-3
    values = [np.mean(list(problem.losses(m).values())) for m in batch]
    assert np.median(values) < problem.best() + (0.02 if recorded else 0.1)


def test_a_running_mixture_is_visible_before_its_parameters(problem, tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = problem.study(storage=url, study_name="s")
    trial = study.ask()
    first = trial.suggest_float("r_web", 0, 1)
    other = optuna.load_study(storage=url, study_name="s", sampler=problem.sampler())
    seen = other.trials[0]
    assert set(seen.params) == {"r_web"}
    mixture = mixture_of(seen, problem.space)
    assert mixture["web"] == first
    assert dict(mixture) == seen.system_attrs[PROPOSED]
    assert problem.sampler().tried(other).tolist() == [list(mixture.values())]


def test_abandoned_trials_block_nothing(problem):
    study = problem.study()
    for _ in range(20):  # asked for, never told
        suggest_mixture(study.ask(), problem.space)
    study.optimize(problem.objective, n_trials=12)
    assert study.best_value < problem.best() + 0.01


def test_failed_pruned_and_infinite_trials_are_survived(problem):
    study = problem.study()

    def objective(trial):
        value = problem.objective(trial)
        if trial.number % 5 == 1:
            raise optuna.TrialPruned
        if trial.number % 5 == 2:
            raise ZeroDivisionError
        return [value, value, value, float("nan"), float("inf")][trial.number % 5]

    study.optimize(objective, n_trials=15, catch=ZeroDivisionError)
    assert [t.state.name for t in study.trials[:5]] == [
        "COMPLETE",
        "PRUNED",
        "FAIL",
        "FAIL",
        "COMPLETE",
    ]
    assert (
        min(
            np.mean(list(problem.losses(mixture_of(t, problem.space)).values()))
            for t in study.trials
        )
        < problem.best() + 0.02
    )


@pytest.mark.parametrize("recorded", [True, False], ids=["losses", "values"])
def test_hyperband(problem, recorded):
    from bimix_tune import report_losses

    def objective(trial):
        mixture = suggest_mixture(trial, problem.space)
        for step in (1, 3, 9):
            losses = problem.losses(mixture, 100 * step)
            value = float(np.mean(list(losses.values())))
            if recorded:
                report_losses(trial, step, losses)
            else:
                trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9)
    study = problem.study(pruner=pruner)
    study.optimize(objective, n_trials=30)
    states = {t.state for t in study.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}
    best = min(
        np.mean(list(problem.losses(mixture_of(t, problem.space), 1e3).values()))
        for t in study.trials
    )
    assert best < problem.best() + (0.01 if recorded else 0.06)


def test_values_told_complete_at_different_steps_are_not_mixed_up(problem):
    """As a scheduler outside Optuna does that stops trials: the poor ones have early values."""
    study = problem.study()
    for i in range(24):
        trial = study.ask()
        mixture = suggest_mixture(trial, problem.space)
        last = 16 if i % 4 == 0 else 1 + i % 3
        for step in range(1, last + 1):
            value = float(np.mean(list(problem.losses(mixture, 10 * step).values())))
            trial.report(value, step)
        study.tell(trial, value)
    best = min(
        np.mean(list(problem.losses(mixture_of(t, problem.space)).values())) for t in study.trials
    )
    assert best < problem.best() + 0.06


@pytest.mark.parametrize("recorded", [True, False], ids=["losses", "values"])
def test_a_study_begun_by_another_sampler_goes_on(problem, recorded):
    study = problem.study(optuna.samplers.TPESampler(seed=0))
    study.optimize(problem.objective if recorded else problem.value, n_trials=60)
    study.sampler = problem.sampler()
    study.optimize(problem.objective if recorded else problem.value, n_trials=3)
    assert min(t.value for t in study.trials[60:]) < problem.best() + (0.002 if recorded else 0.02)


def test_a_study_survives_a_new_process(problem, tmp_path):
    """A proposal depends on the study and the seed, not on the life of a sampler object."""
    proposals = []
    for i in range(2):
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / str(i))))
        study = problem.study(storage=storage, study_name="s")
        study.optimize(problem.objective, n_trials=7)
        if i:
            study = optuna.load_study(study_name="s", storage=storage, sampler=problem.sampler())
        proposals.append(dict(suggest_mixture(study.ask(), problem.space)))
    assert proposals[0] == proposals[1]
