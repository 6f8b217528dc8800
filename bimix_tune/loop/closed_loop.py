"""The closed loop: baselines, proposals, recommendation, confirmation.

1. The training-free baselines run first; they start the law and are the rivals to beat.
2. The sampler proposes, the executor trains, the law is refitted after every finished run, and
   the pruner stops runs that cannot win.
3. The law's optimum at the target token count is the recommendation.
4. Fresh runs of it and of the baselines, paired by seed, say how much better it is.

All of it is in the study on disk, so the same call again continues where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage

from bimix_tune.errors import ConfigError, did_you_mean
from bimix_tune.executors.base import Executor
from bimix_tune.executors.local import LocalExecutor
from bimix_tune.loop import ledger, run_folder
from bimix_tune.loop.company import Company
from bimix_tune.loop.interrupts import Interrupts
from bimix_tune.loop.phases import Phases
from bimix_tune.loop.result import SearchResult
from bimix_tune.loop.search_log import RunLogs, SearchLog
from bimix_tune.loop.state import SearchState
from bimix_tune.mixture import Mixture
from bimix_tune.observing import Observer, Observers
from bimix_tune.pruner import BiMixPruner
from bimix_tune.sampler import BiMixSampler
from bimix_tune.space import SearchSpace
from bimix_tune.strategies.baselines import baseline_mixtures, distinct
from bimix_tune.training.base import Trainer, described

RIVALS = ("all", "best")


def search(
    space: SearchSpace,
    trainer: Trainer,
    *,
    folder: str | Path,
    trials: int = 24,
    worth: float | None = None,
    baselines: Mapping[str, Mixture] | None = None,
    repeats: int = 0,
    executor: Executor | None = None,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    storage: str | BaseStorage | None = None,
    settings: Mapping[str, Any] | None = None,
    target_tokens: int | None = None,
    confirm_seeds: int = 2,
    rivals: str = "all",
    seed: int = 0,
    monitor: Callable[[SearchState], None] | None = None,
    observers: Iterable[Observer] = (),
) -> SearchResult:
    """Search for the best mixture by training proxies; continue a search that was stopped.

    Args:
        space: The mixtures allowed and the targets that judge them.
        trainer: The recipe of one proxy run.
        folder: The run folder: study, curves, law and result are kept there.
        trials: Runs before the confirmation, baselines included.
        worth: The least improvement of the objective that is worth a run: the search ends before
            ``trials`` runs once less is expected of all further ones together
            (`bimix_tune.stopping`). None: never.
        baselines: Training-free mixtures by label, run first; None: natural, uniform and, where
            the space states tokens, UniMax.
        repeats: How many of the first baselines run a second time, under a seed of their own, to
            tell the noise of a run before the confirmation does (`SearchResult.run_noise`); they
            count as trials.
        executor: Where runs happen; None: one after another in this process. It is not closed.
        sampler: Proposes mixtures; None: `BiMixSampler`.
        pruner: Stops runs early; None: `BiMixPruner`.
        storage: Optuna storage or its URL; None: SQLite in the folder.
        settings: What else the losses depend on, to refuse continuing under other settings.
        target_tokens: Token count that the recommendation is for; None: that of the proxies.
        confirm_seeds: Fresh seeds of the confirmation; 0 leaves it out.
        rivals: Which baselines are confirmed: ``"all"``, or the ``"best"`` of the search.
        seed: Seed of the search and of its trainings; the confirmation uses the next ones.
        monitor: Called about twice a second with the state of the search.
        observers: Are told every event, and closed at the end; see `bimix_tune.observing`.

    Returns:
        The recommendation with its evidence; also written to ``result.json``, ``law.json`` and
        ``curves.jsonl`` in the folder, beside ``log.jsonl`` and the output of runs in ``logs/``.

    Raises:
        ConfigError: An argument is out of range, or the folder holds a search begun with other
            settings.
        ExecutorError: The first runs all fail, or another process drives the folder.
        KeyboardInterrupt: Passed on; nothing finished is lost and the runs under way are queued.
    """
    _check(space, trainer, rivals)
    for name, value, least in (
        ("trials", trials, 2),  # a law needs two mixtures
        ("repeats", repeats, 0),
        ("confirm_seeds", confirm_seeds, 0),
        ("seed", seed, 0),
        ("target_tokens", trainer.tokens if target_tokens is None else target_tokens, 1),
    ):
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} must be a whole number >= {least}, but got {value!r}")
    if worth is not None and not worth > 0:
        raise ConfigError(f"worth must be > 0, but got {worth!r}")
    folder = Path(folder)
    tokens = target_tokens or trainer.tokens
    known: dict[str, Any] = {"space": space.to_dict(), "tokens": trainer.tokens, "seed": seed}
    known |= {"unit": trainer.unit, **(settings or {}), "trainer": described(trainer)}
    interrupts = Interrupts()
    with (
        run_folder.only_driver(folder) if storage is None else nullcontext(),
        interrupts.deferred(),
        closing(
            Observers([SearchLog(folder / "log.jsonl"), RunLogs(folder / "logs"), *observers])
        ) as observe,
        nullcontext(executor) if executor else LocalExecutor(trainer) as running_on,
    ):
        study = run_folder.open_study(
            folder,
            storage,
            known,
            sampler or BiMixSampler(space, target_tokens=tokens, seed=seed),
            pruner or BiMixPruner(),
            wait=interrupts.sleep,
        )
        study.set_user_attr(ledger.TARGET_TOKENS, tokens)
        if baselines is None:
            baselines = baseline_mixtures(space, budget=tokens)
        for label, mixture in baselines.items():
            if broken := space.violation(mixture):
                raise ConfigError(f"baseline {label!r} is no mixture of the space: {broken}")
        # A folder has one driver, and a storage in memory one process.
        company = Company(study, alone=storage is None or isinstance(storage, InMemoryStorage))
        loop = Phases(
            study,
            space,
            trainer,
            running_on,
            folder,
            tokens,
            seed,
            worth,
            monitor,
            observe,
            interrupts,
            company,
        )
        return loop.run(trials, distinct(dict(baselines)), repeats, confirm_seeds, rivals)


def _check(space: SearchSpace, trainer: Trainer, rivals: str) -> None:
    if (space.low < space.high).sum() < 2:
        raise ConfigError("fewer than two domains are free to vary, so there is nothing to search")
    if rivals not in RIVALS:
        raise ConfigError(f"unknown rivals {rivals!r}" + did_you_mean(rivals, RIVALS))
    for target in space.target_names:
        if target not in trainer.targets:
            raise ConfigError(
                f"the trainer does not evaluate target {target!r}"
                + did_you_mean(target, trainer.targets)
            )
