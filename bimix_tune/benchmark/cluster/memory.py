"""Memory and time of a driver whose study has grown very large."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from bimix_tune.benchmark.cluster.parts import Figure, at_most, told
from bimix_tune.errors import ConfigError
from bimix_tune.loop import bulk, run_folder
from bimix_tune.loop.bulk import Pending
from bimix_tune.sampler import BiMixSampler
from bimix_tune.space import SearchSpace
from bimix_tune.trials import LOSSES, PREFIX, WEIGHTS, distributions, suggest_mixture

BATCH = 250
NAME = "large"


def large_study(path: Path, trials: int, domains: int, checkpoints: int, seed: int = 0) -> str:
    """Write a study of complete runs, with noisy losses of BiMix with a floor, into SQLite.

    Returns:
        The address of the storage.
    """
    url = f"sqlite:///{path}"
    storage = RDBStorage(url)
    study = optuna.create_study(storage=storage, study_name=NAME)
    space = _space(domains)
    rng = np.random.default_rng(seed)
    while trials > 0:
        count = min(trials, BATCH)
        added, _ = bulk.write(storage, study._study_id, {}, count)
        pending = {t._trial_id: _run(space, checkpoints, rng) for t in added}
        bulk.write(storage, study._study_id, pending)
        trials -= count
    storage.engine.dispose()
    return url


def _space(domains: int) -> SearchSpace:
    return SearchSpace([f"domain {i}" for i in range(domains)])


def _run(space: SearchSpace, checkpoints: int, rng: np.random.Generator) -> Pending:
    r = rng.dirichlet(np.ones(len(space.names)))
    known = distributions(space)
    end = 2.0 * (0.02 + r) ** -0.15 * np.exp(0.003 * rng.standard_normal(len(r)))
    what = Pending(
        params={
            PREFIX + n: (float(x), known[PREFIX + n]) for n, x in zip(space.names, r, strict=True)
        }
    )
    what.user_attrs[WEIGHTS] = dict.fromkeys(space.target_names, 1.0 / len(r))
    value = 0.0
    for step in np.unique(np.geomspace(1e6, 1e8, checkpoints).astype(int)).tolist():
        losses = end * (1.0 + 50.0 * step**-0.3)
        named = dict(zip(space.target_names, losses.tolist(), strict=True))
        what.user_attrs[f"{LOSSES}{step}"] = {
            "losses": named,
            "decayed": False,
            "unit": "nats/token",
        }
        what.steps[step] = value = float(losses.mean())
    what.end = TrialState.COMPLETE, [value]
    return what


def ask_in(url: str, domains: int, asks: int) -> dict[str, float]:
    """Ask the sampler in a large study, as a driver does; what a child process runs.

    Returns:
        Seconds to read the study and of asks (processor time), and the greatest memory in bytes.
    """
    import resource

    space = _space(domains)
    began = time.process_time()
    storage = run_folder.driver_storage(Path(), url, time.sleep)
    study = optuna.load_study(study_name=NAME, storage=storage, sampler=BiMixSampler(space, seed=0))
    count = len(study.get_trials(deepcopy=False))
    read = time.process_time() - began
    seconds = []
    for _ in range(asks):
        began = time.process_time()
        trial = study.ask()
        suggest_mixture(trial, space)
        storage.flush()
        seconds.append(time.process_time() - began)
        study.tell(trial, state=TrialState.FAIL)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    return {
        "trials": count,
        "read": read,
        "first": seconds[0],
        "median": float(np.median(seconds[1:])),
        "longest": max(seconds[1:]),
        "bytes": most,
    }


def memory(
    trials: int = 10_000, domains: int = 50, checkpoints: int = 20, asks: int = 10
) -> Iterator[Figure]:
    """A driver in a process of its own, on a study that another one has written."""
    with tempfile.TemporaryDirectory() as folder:
        url = large_study(Path(folder) / "study.db", trials, domains, checkpoints)
        call = f"print(json.dumps(ask_in({url!r}, {domains}, {asks})))"
        code = f"import json; from bimix_tune.benchmark.cluster.memory import ask_in; {call}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode != 0:
        raise ConfigError(f"the driver failed: {(done.stderr.splitlines() or ['killed'])[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    size = f"{trials:,} trials of {domains} domains x {checkpoints} checkpoints"
    yield at_most("memory", f"GB of memory, {size}", found["bytes"] / 1e9, 1.5)
    yield at_most("memory", "seconds for an ask, median", found["median"], 1.0)
    yield at_most("memory", "seconds for an ask, longest after the first", found["longest"], 1.0)
    yield told("memory", "seconds for the first ask, which fits the law", found["first"])
    yield told("memory", "seconds to read the study", found["read"])
