"""All cases asked for, one after the other in this process, each result kept when it is there."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from bimix_tune.benchmark.resuming import carry_on
from bimix_tune.benchmark.training_speed.cases import CASES, Case
from bimix_tune.benchmark.training_speed.record import OURS, PEER, Speed, contender
from bimix_tune.errors import BimixError, ConfigError, did_you_mean, missing_extra

if TYPE_CHECKING:
    import torch

FILE = "results.jsonl"
ROUNDS = 10
NEEDS = {"torch": "train", "transformers": "train", "accelerate": "benchmark"}
"""Libraries by the extra that brings them."""


@dataclass(frozen=True)
class Job:
    """A case to time.

    Args:
        case: What is trained.
        blank: Its result, with nothing measured yet.
    """

    case: Case
    blank: Speed

    @property
    def size(self) -> float:
        """Operations of a step."""
        return float(self.case.flops * self.blank.batch_tokens)

    def lost(self, cause: str) -> Speed:
        """The result where there is none."""
        return replace(self.blank, failure=cause)


def time_training(
    folder: str | Path,
    cases: Sequence[str] | None = None,
    *,
    rounds: int = ROUNDS,
    device: str = "auto",
    batch_tokens: int | None = None,
    monitor: Callable[[int, int], None] | None = None,
) -> list[Speed]:
    """Time the lean trainer beside `transformers.Trainer`, or what an earlier call left to do.

    Args:
        folder: Results are kept in its ``results.jsonl``.
        cases: Names of `CASES`; None: all on a GPU, the quick ones on a CPU.
        rounds: Turns of each contender that are timed.
        device: As a trainer takes it.
        batch_tokens: Tokens of a step; None: what each case says.
        monitor: Called with the number of results at hand and their total.

    Raises:
        ConfigError: A case is unknown, a number out of range, or there is no such device.
        CurveError: ``results.jsonl`` holds something else.
        MissingExtraError: A library is not installed.
    """
    for library, extra in NEEDS.items():
        if importlib.util.find_spec(library) is None:
            raise missing_extra(library, extra, "timing trainings")
    if rounds < 1:
        raise ConfigError(f"rounds must be >= 1, but got {rounds}")
    from bimix_tune.training.device import choose_device

    place = choose_device(device)
    if place.type == "cuda" and _gpus() > 1:  # the Trainer would share the batch among all
        raise ConfigError(
            f"training is timed on one GPU, but {_gpus()} can be seen: set CUDA_VISIBLE_DEVICES=0"
        )
    jobs = _jobs(cases, rounds, place.type, batch_tokens)
    wanted: dict[Hashable, Job] = {job.blank.key: job for job in jobs}
    work = partial(time_case, device=place)
    return carry_on(Path(folder) / FILE, wanted, work, Speed.from_json, workers=0, monitor=monitor)


def _jobs(
    cases: Sequence[str] | None, rounds: int, device: str, batch_tokens: int | None
) -> list[Job]:
    if cases is None:
        cases = [n for n, case in CASES.items() if case.quick or device != "cpu"]
    jobs = []
    for name in cases:
        if name not in CASES:
            raise ConfigError(f"no case {name!r}" + did_you_mean(name, CASES))
        case = CASES[name]
        tokens = step_tokens(name, case, device, batch_tokens)
        steps = case.steps_of_round(device)
        jobs.append(Job(case, Speed(name, device, tokens, rounds, steps, code_digest())))
    return jobs


def step_tokens(name: str, case: Case, device: str, wanted: int | None) -> int:
    """Tokens of a step: those wanted, or what the case says.

    Raises:
        ConfigError: They are no whole sequences.
    """
    tokens = wanted or case.batch_tokens(device)
    if tokens < 1 or tokens % case.length:
        raise ConfigError(
            f"batch_tokens must be a multiple of the {case.length} tokens of a sequence of "
            f"case {name}, but got {tokens}"
        )
    return tokens


def time_case(job: Job, device: torch.device) -> Speed:
    """Time one case; an error that a user can mend becomes its failure."""
    from bimix_tune.benchmark.training_speed.text import write_text
    from bimix_tune.training.device import memory_errors, one_thread

    try:
        with (
            tempfile.TemporaryDirectory(prefix="bimix-tune-") as folder,
            one_thread(device),
            memory_errors(f"case {job.blank.case}"),
        ):
            return _measure(job, write_text(Path(folder) / "text", job.case.vocabulary), device)
    except BimixError as error:
        return job.lost(f"{type(error).__name__}: {error}")


def _measure(job: Job, corpus: Path, device: torch.device) -> Speed:
    from bimix_tune.benchmark.training_speed.apart import Apart
    from bimix_tune.benchmark.training_speed.clock import machine
    from bimix_tune.benchmark.training_speed.lean import COMPILE, case_trainer, lean
    from bimix_tune.benchmark.training_speed.overhead import overhead
    from bimix_tune.benchmark.training_speed.peak import gemm_peaks
    from bimix_tune.benchmark.training_speed.peer import peer
    from bimix_tune.benchmark.training_speed.rounds import steps_needed, take_turns
    from bimix_tune.benchmark.training_speed.start import start_times

    case, blank = job.case, job.blank
    precisions = precisions_of(device)
    tokens, steps = blank.batch_tokens, 1 + steps_needed(blank.rounds, blank.steps)
    trainings = {}
    for precision in precisions:
        ours = case_trainer(case, corpus, str(device), precision, tokens, steps, compile=COMPILE)
        for name, made in ((OURS, partial(lean, ours)), (PEER, partial(peer, ours, device))):
            trainings[contender(name, precision)] = Apart(made, device)
    peaks = gemm_peaks(precisions, device)
    timed = take_turns(trainings, blank.rounds, blank.steps)
    where = (case, corpus, device, precisions[0], tokens)
    return replace(
        blank,
        machine=machine(device),
        flops=case.flops,
        peaks=peaks,
        overhead=overhead(*where),
        start=start_times(case, corpus, str(device), precisions[0], tokens),
        **vars(timed),
    )


def _gpus() -> int:
    import torch

    return int(torch.cuda.device_count())


def precisions_of(device: torch.device) -> tuple[str, ...]:
    """The lean trainer's own first; bfloat16 that would be emulated is left out."""
    import torch

    from bimix_tune.training.device import compute_dtype

    return ("bf16", "fp32") if compute_dtype(device) == torch.bfloat16 else ("fp32",)


@cache
def code_digest() -> str:
    """Changes with the modules of the trainers and of this benchmark."""
    here = Path(__file__).parent
    files = [*here.glob("*.py"), *here.parents[1].joinpath("training").glob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
