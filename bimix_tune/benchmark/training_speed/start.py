"""How long a new process takes to its first training step, when all caches are warm.

Run as a program, this module is that process: it gets the time at which it was begun and a case as
JSON, and prints seconds as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bimix_tune.benchmark.training_speed.cases import Case
from bimix_tune.errors import TrainingError
from bimix_tune.training.sizes import Shape

STEPS = 1000
"""Of the run that is begun; it is never ended."""
TIMEOUT = 900.0


def start_times(
    case: Case, corpus: Path, device: str, precision: str, batch_tokens: int
) -> dict[str, float]:
    """Wall seconds of the second of two processes: ``imports``, ``build`` and ``first step``.

    Raises:
        TrainingError: The process fails.
    """
    told: dict[str, Any] = {"case": asdict(case), "corpus": str(corpus), "device": device}
    told |= {"precision": precision, "batch_tokens": batch_tokens}
    _start(told)
    return _start(told)


def _start(told: dict[str, Any]) -> dict[str, float]:
    began = repr(time.time())
    words = [sys.executable, "-m", __name__, began, json.dumps(told)]
    threads = {"OMP_NUM_THREADS": "1"} if told["device"] == "cpu" else {}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=TIMEOUT, env={**os.environ, **threads}
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise TrainingError(f"a new process did not come to its first step: {' '.join(last)}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Begin a training, and print how long that took."""
    times = [float(sys.argv[1])]
    told = json.loads(sys.argv[2])
    shape = Shape(**told["case"].pop("shape"))
    told |= {"case": Case(shape, **told["case"]), "corpus": Path(told["corpus"])}
    import torch

    from bimix_tune.benchmark.training_speed.lean import MIXTURE, SEED, case_trainer
    from bimix_tune.training import loop, model  # noqa: F401 - what a run imports, timed here

    times.append(time.time())
    loop.SIGN_OF_LIFE = 0.0  # a checkpoint after every step
    run = case_trainer(**told, steps=STEPS).run(MIXTURE, SEED)
    next(run)
    times.append(time.time())
    next(run)
    if told["device"] == "cuda":
        torch.cuda.synchronize()
    times.append(time.time())
    names = ("imports", "build", "first step")
    seconds = {n: after - before for n, before, after in zip(names, times, times[1:], strict=False)}
    sys.stdout.write(json.dumps(seconds))


if __name__ == "__main__":
    main()
