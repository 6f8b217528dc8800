"""How fast proxies are that compute their gradients together, beside the same ones alone.

Both sides are runs of the lean trainer, compiled, with the same weights on the same text: a round
is some steps of each of K runs, in an ensemble or of one run as many times. All members train
alike here, so every loss of theirs must agree with that of the run alone.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bimix_tune.benchmark.training_speed.cases import CASES
from bimix_tune.benchmark.training_speed.lean import (
    COMPILE,
    MIXTURE,
    SEED,
    CaseLlama,
    case_trainer,
    every_step,
    lean,
)
from bimix_tune.benchmark.training_speed.paced import Paced, Told
from bimix_tune.benchmark.training_speed.record import TOLERANCES, Ratio, median_ratio
from bimix_tune.benchmark.training_speed.tables import Sheet
from bimix_tune.benchmark.training_speed.text import write_text
from bimix_tune.errors import ConfigError, did_you_mean
from bimix_tune.training import loop
from bimix_tune.training.ensemble import Ensemble, Seconds

if TYPE_CHECKING:
    import torch

ALONE, TOGETHER = "one at a time", "together"
COMPARED = 20
"""Steps whose losses are compared: later on rounding grows into a difference of its own."""
CASE = "0.1M"
"""The one that is small enough to gain from it on a CPU."""


@dataclass(frozen=True)
class Company:
    """What was measured in a case.

    Args:
        case: A name of `CASES`.
        members: Runs K.
        tokens: Of all runs in a round.
        device: Type of the device.
        alone: Seconds of each round, one run after the other.
        together: Seconds of each round, all at once.
        verdict: What a worker makes of it when it times the two.
        difference: Greatest relative difference of a step's loss between the sides, in the first
            `COMPARED` steps.
        precision: A name of `TOLERANCES`.
    """

    case: str
    members: int
    tokens: int
    device: str
    alone: list[float]
    together: list[float]
    verdict: str
    difference: float
    precision: str

    @property
    def gain(self) -> Ratio:
        """How many times as fast they are together."""
        return median_ratio([a / t for a, t in zip(self.alone, self.together, strict=True)])

    @property
    def agrees(self) -> bool:
        """Whether both sides train alike."""
        return self.difference <= TOLERANCES[self.precision]


class _Together(CaseLlama):
    """Goes together whatever was timed."""

    def ensemble(self, device: torch.device) -> Ensemble:
        found = super().ensemble(device)
        found.seconds = Seconds(1.0, 0.5)
        return found


def time_members(
    members: int,
    names: list[str] | None,
    *,
    rounds: int,
    device: str,
    batch_tokens: int | None = None,
) -> list[Company]:
    """Time K runs together and one after the other, by turns.

    Args:
        members: Runs K, at least two.
        names: Of `CASES`; None: `CASE`.
        rounds: Turns of each side that are timed.
        device: As a trainer takes it.
        batch_tokens: Tokens of a step of each run; None: what the case says.

    Raises:
        ConfigError: A case is unknown, a number out of range, or there is no such device.
    """
    from bimix_tune.training.device import choose_device

    if members < 2:
        raise ConfigError(f"members must be at least 2 to be together, but got {members}")
    for name in names or ():
        if name not in CASES:
            raise ConfigError(f"no case {name!r}" + did_you_mean(name, CASES))
    place = choose_device(device)
    return [_time(name, members, rounds, place, batch_tokens) for name in names or [CASE]]


def _time(
    name: str, members: int, rounds: int, device: torch.device, batch_tokens: int | None
) -> Company:
    from bimix_tune.benchmark.training_speed.campaign import precisions_of, step_tokens
    from bimix_tune.benchmark.training_speed.rounds import steps_needed, take_turns
    from bimix_tune.training.device import one_thread

    case, precision = CASES[name], precisions_of(device)[0]
    tokens = step_tokens(name, case, device.type, batch_tokens)
    steps = case.steps_of_round(device.type)
    most = 1 + steps_needed(rounds, members * steps)
    with tempfile.TemporaryDirectory(prefix="bimix-tune-") as folder, one_thread(device):
        corpus = write_text(Path(folder) / "text", case.vocabulary)
        given = (case, corpus, str(device), precision, tokens, most)
        alone = case_trainer(*given, compile=COMPILE)
        several = case_trainer(*given, compile=COMPILE, members=members)
        verdict = several.ensemble(device).verdict
        losses: list[list[torch.Tensor]] = [[] for _ in range(members)]
        sides = {ALONE: lean(alone), TOGETHER: _together(several, losses)}
        with _no_signs_of_life():
            paced = {name: Paced(train, device) for name, train in sides.items()}
            timed = take_turns(paced, rounds, members * steps)
    own = np.array(timed.losses[ALONE])
    theirs = [np.array([float(loss) for loss in run]) for run in losses]
    return Company(
        name,
        members,
        members * steps * tokens,
        device.type,
        timed.seconds[ALONE],
        timed.seconds[TOGETHER],
        verdict,
        max(float(np.abs(run / own[: len(run)] - 1)[:COMPARED].max()) for run in theirs),
        precision,
    )


@contextmanager
def _no_signs_of_life() -> Iterator[None]:
    """Runs that never pause, so that the members of an ensemble take every step together."""
    before = loop.SIGN_OF_LIFE
    loop.SIGN_OF_LIFE = math.inf
    try:
        yield
    finally:
        loop.SIGN_OF_LIFE = before


def _together(trainer: CaseLlama, losses: list[list[torch.Tensor]]) -> Callable[[Told], None]:
    """K equal runs as `Paced` wants them: it is told of every step of each.

    Args:
        trainer: Of the runs.
        losses: A list for each run, which gets the loss of every step.
    """
    several = _Together(**vars(trainer))
    mine = threading.local()

    def train(told: Told) -> None:
        def tell(loss: torch.Tensor) -> None:
            mine.losses.append(loss)
            told(loss)

        runs = [several.run(MIXTURE, SEED) for _ in losses]
        with every_step(tell):
            for run in runs:
                next(run)
        errors: list[BaseException] = []

        def go_on(run: Iterator[object], found: list[torch.Tensor]) -> None:
            mine.losses = found
            try:
                for _ in run:
                    pass
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)

        each = zip(runs, losses, strict=True)
        threads = [threading.Thread(target=go_on, args=pair, daemon=True) for pair in each]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    return train


def company_sheet(results: list[Company]) -> Sheet:
    """The results as a table."""
    unit = "tokens/cpu-s" if results[0].device == "cpu" else "tokens/s"
    rows = [
        (
            r.case,
            r.verdict,
            str(r.members),
            f"{r.tokens / float(np.median(r.alone)):,.0f}",
            f"{r.tokens / float(np.median(r.together)):,.0f}",
            str(r.gain),
            f"{r.difference:.0e}" + ("" if r.agrees else " (too much)"),
        )
        for r in results
    ]
    head = ("case", "a worker finds", "runs", f"{unit} one at a time", "together", "gain")
    note = (
        "Gain: how many times as fast the runs are together, with a compiled step on both sides: "
        "median over rounds in turn, with the 95 % interval of the median. Difference: the "
        f"greatest relative one of a loss in the first {COMPARED} steps. A worker finds its answer "
        "by 20 steps of each kind."
    )
    return Sheet("Several proxies at once", (*head, "difference"), tuple(rows), note)
