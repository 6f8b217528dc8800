"""A driver that is killed again and again, and what is left of its search."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from bimix_tune.benchmark.cluster.parts import Figure, holds, told
from bimix_tune.benchmark.cluster.simulated import SimulatedExecutor
from bimix_tune.errors import ConfigError
from bimix_tune.laws import fit
from bimix_tune.loop import ledger, search
from bimix_tune.loop.outcome import ENDED, load_study
from bimix_tune.loop.result import RunRecord
from bimix_tune.space import SearchSpace
from bimix_tune.training.synthetic import SyntheticTrainer

MOST_CURVES = 256
"""Runs that laws are compared on: the time of a fit grows with the cube of them."""
TRAINER = SyntheticTrainer(checkpoints=4)
SPACE = SearchSpace(TRAINER.domains)


def drive(folder: str, trials: int, slots: int, seconds: float) -> None:
    """One driver, to be killed: what the child processes of `killed_search` run."""
    executor = SimulatedExecutor(TRAINER, slots, seconds)
    search(SPACE, TRAINER, folder=folder, trials=trials, executor=executor, confirm_seeds=0, seed=1)


def killed_search(
    folder: Path,
    kills: int,
    *,
    more: int = 100,
    slots: int = 4,
    seconds: float = 0.5,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Figure]:
    """Kill the driver of one search at random moments, let it end, and look at what it left.

    Args:
        folder: Run folder.
        kills: How often.
        more: Runs beyond those that have ended, that each driver is told to do.
        slots: Simulated slots.
        seconds: Of a run.
        seed: Of the moments.
        say: Told of every kill.
    """
    rng = np.random.default_rng(seed)
    kept = 0
    for number in range(kills):
        before = ended(folder)
        with start_driver(__name__, folder, len(before) + more, slots, seconds) as child:
            # A random moment after the driver has begun to add to the study.
            _wait_for(child, partial(_touched, folder, before))
            time.sleep(float(rng.exponential(2 * seconds)))
            if child.poll() is not None:
                raise ConfigError(f"the driver ended before it was killed; see {log_of(folder)}")
            child.kill()
        after = ended(folder)
        kept += all(after.get(number) == trial for number, trial in before.items())
        say(f"kill {number + 1} of {kills}: {len(after)} trials have ended")
    final = ended(folder)
    trials = len(final) + more
    with start_driver(__name__, folder, trials, slots, seconds) as child:
        if child.wait() != 0:
            raise ConfigError(f"the driver failed after the last kill; see {log_of(folder)}")
    last = ended(folder)
    kept_all = all(last.get(number) == trial for number, trial in final.items())
    yield told("kills", "kills", kills)
    yield Figure(
        "kills",
        "kills after which every finished trial was still as it had been",
        kept,
        f"= {kills}",
        kept == kills and kept_all,
    )
    yield from soundness("kills", folder, trials)


def soundness(part: str, folder: Path, trials: int) -> Iterator[Figure]:
    """What must hold of a search whatever happened to it."""
    study, space = load_study(folder)
    states = {t.state.name for t in study.trials}
    yield holds(part, "every trial is COMPLETE, PRUNED or FAIL", states <= {*ENDED, "FAIL"})
    failed = [t for t in study.trials if t.state.name == "FAIL"]
    yield holds(
        part, "every failed one has a cause", all(t.user_attrs.get("cause") for t in failed)
    )
    records = [r for r in ledger.records_of(study, space) if r.role != "confirmation"]
    yield Figure(part, "runs that count", len(records), f"= {trials}", len(records) == trials)
    yield holds(part, "no finished work was done again", not _repeated(study))
    yield holds(part, "curves are those of undisturbed runs", _undisturbed(records))
    yield holds(part, "the law is that of a faultless search", _same_law(records, space))
    yield told(
        part, "runs begun again", sum(ledger.LOST in t.user_attrs.get("cause", "") for t in failed)
    )


def _repeated(study: Study) -> bool:
    """Whether a trial that ended in order has a successor."""
    again = {t.user_attrs.get(ledger.RETRY_OF) for t in study.trials}
    return any(t.number in again for t in study.trials if t.state.name in ENDED)


def _reference(record: RunRecord) -> list[tuple[int, dict[str, float]]]:
    """The checkpoints of the same run without any fault, as far as this one came."""
    assert record.mixture is not None and record.curve is not None
    end = record.curve.tokens[-1]
    points = TRAINER.run(record.mixture, record.seed)
    return [(p.tokens, dict(p.losses)) for p in points if p.tokens <= end]


def _undisturbed(records: list[RunRecord]) -> bool:
    for record in records:
        if record.curve is not None and record.state in ENDED:
            rows = [
                dict(zip(record.curve.targets, row, strict=True))
                for row in record.curve.losses.tolist()
            ]
            if list(zip(record.curve.tokens.tolist(), rows, strict=True)) != _reference(record):
                return False
    return True


def _same_law(records: list[RunRecord], space: SearchSpace) -> bool:
    """Fit the recorded curves, and those of the same runs made anew without any fault."""
    done = [r for r in records if r.curve is not None and r.state in ENDED][-MOST_CURVES:]
    curves = [r.curve for r in done if r.curve is not None]
    anew = []
    for record, curve in zip(done, curves, strict=True):
        losses = [[point[t] for t in curve.targets] for _, point in _reference(record)]
        tokens = [tokens for tokens, _ in _reference(record)]
        anew.append(dataclasses.replace(curve, tokens=np.array(tokens), losses=np.array(losses)))
    grid = np.random.default_rng(0).dirichlet(np.ones(len(space.names)), 32)
    mixtures = [space.mixture(row) for row in grid]
    ours, theirs = (
        fit(c, space, judge=False).predict(mixtures, TRAINER.tokens) for c in (curves, anew)
    )
    return bool(np.array_equal(ours, theirs))


def ended(folder: Path) -> dict[int, FrozenTrial]:
    """Trials that ended in order, by number."""
    try:
        study, _ = load_study(folder)
    except ConfigError:
        return {}
    return {t.number: t for t in study.trials if t.state.name in ENDED}


def _touched(folder: Path, known: dict[int, FrozenTrial]) -> bool:
    """Whether a driver has come so far as to add to what was known."""
    return len(ended(folder)) > len(known)


def start_driver(module: str, folder: Path, *arguments: Any) -> subprocess.Popen[bytes]:
    """Call ``drive`` of a module in a process of its own; it writes to `log_of` the folder."""
    call = json.dumps([str(folder), *arguments])
    code = f"import json, {module}; {module}.drive(*json.loads({call!r}))"
    folder.mkdir(parents=True, exist_ok=True)
    with log_of(folder).open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", code], stderr=log)


def log_of(folder: Path) -> Path:
    """What the drivers said."""
    return folder / "driver.log"


def _wait_for(child: subprocess.Popen[bytes], happened: Callable[[], bool]) -> None:
    while child.poll() is None and not happened():
        time.sleep(0.1)
