"""A checked run file turned into the objects of a search.

Paths to text are relative to the run file, so that a folder with both can be moved; the run
folder is relative to the working directory.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from bimix_tune.config import CorpusSection, RunConfig
from bimix_tune.corpus import PINS, STARTER_BYTES, Corpus, build_corpus, starter_sources
from bimix_tune.corpus.copy import is_url
from bimix_tune.errors import ConfigError, SpaceError, did_you_mean
from bimix_tune.executors import Executor, executor_class
from bimix_tune.mixture import Mixture
from bimix_tune.observing import Observer
from bimix_tune.options import typed
from bimix_tune.space import Domain, SearchSpace, Target, load_space
from bimix_tune.strategies.baselines import baseline_mixtures
from bimix_tune.tracking import make_trackers
from bimix_tune.training import check_options, load_trainer
from bimix_tune.training.base import Trainer
from bimix_tune.training.memory import free_memory, predict, require
from bimix_tune.training.mixing import matched_repetition
from bimix_tune.training.torch_trainer import TorchTrainer

STARTER_DOMAINS = ("python", *PINS)
CORPUS_TRAINERS = ("llama", "transformers")
"""Trainers whose data is the corpus; the others bring their own."""

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run file turned into objects.

    Args:
        config: The run file.
        folder: The run folder.
        space: The space, with tokens from the corpus and epoch caps applied.
        trainer: The recipe of one run.
        corpus: The tokenised text, or None for a trainer that brings its own.
        baselines: The training-free mixtures by label.
        settings: What losses depend on beside space and trainer, to refuse continuing a search
            under others.
    """

    config: RunConfig
    folder: Path
    space: SearchSpace
    trainer: Trainer
    corpus: Corpus | None
    baselines: Mapping[str, Mixture]
    settings: Mapping[str, Any]


def prepare(config: RunConfig, path: str | Path, say: Say) -> Plan:
    """Build the corpus and all objects of a search.

    Args:
        config: The checked run file.
        path: Where it came from; paths to text are relative to its folder.
        say: Called with a sentence at each step.

    Raises:
        BimixError: Some part cannot be built, or the proxies do not fit into memory; the message
            says which and why.
    """
    path = Path(path)
    folder = Path(config.folder or f"runs/{path.stem}")
    options = dict(config.trainer)
    kind = str(options.pop("type", "llama"))
    options = check_options(kind, options)  # better before the corpus is built than after
    _executor(config)
    corpus = None
    if kind in CORPUS_TRAINERS:
        if "corpus" in options:
            raise ConfigError(
                f"trainer.corpus is set by the section `corpus`, but got {options['corpus']!r}: "
                "name the text under corpus.domains instead"
            )
        corpus = open_corpus(config.corpus or CorpusSection(), path.parent, say)
        url = config.corpus.folder if config.corpus else None
        options["corpus"] = url if url and is_url(url) else str(corpus.folder)
    stated = _stated(config, path.parent)
    space = _space(stated, corpus, say)
    if kind in CORPUS_TRAINERS:
        options.setdefault("targets", space.target_names)
        options.setdefault("states", str(folder / "states"))
        limits = _unique_tokens(stated, corpus, options.get("tokens"), config.search.target_tokens)
        if limits:
            options.setdefault("unique_tokens", limits)
            say(f"the text of {', '.join(limits)} repeats as it will at the target token count")
    trainer = load_trainer(kind, **options)
    if corpus is not None and isinstance(trainer, TorchTrainer):
        corpus.require(trainer.steps().sequence_length)  # before a run fails of it
        _require_memory(config, trainer)
    budget = config.search.target_tokens or trainer.tokens
    if config.search.max_epochs is not None:
        space = space.cap_epochs(budget, config.search.max_epochs)
    settings = {"corpus": corpus.key if corpus else None}
    baselines = baseline_mixtures(space, corpus, budget)
    return Plan(config, folder, space, trainer, corpus, baselines, settings)


def open_corpus(section: CorpusSection, base: Path, say: Say) -> Corpus:
    """Fetch or find the text of a run file and tokenise it, or reuse what is cached."""
    if section.folder is not None:
        folder = section.folder
        return Corpus.open(folder if is_url(folder) else base / Path(folder).expanduser())
    cache = Path(section.cache).expanduser()
    limit = section.max_bytes_per_domain
    if isinstance(section.domains, str):
        domains: Mapping[str, Any] = starter_sources(cache, say)
        limit = limit or STARTER_BYTES
    else:
        domains = {name: _resolve(spec, base) for name, spec in section.domains.items()}
    tokenizer = section.tokenizer
    if isinstance(tokenizer, str) and (base / tokenizer).exists():
        tokenizer = str(base / tokenizer)
    return build_corpus(
        domains, tokenizer=tokenizer, cache=cache, progress=say, max_bytes_per_domain=limit
    )


def _resolve(spec: Any, base: Path) -> Any:
    """Make the paths of a domain absolute; names on a hub (``hf:``) stay as they are."""
    if isinstance(spec, list):
        return [_resolve(item, base) for item in spec]
    if isinstance(spec, dict) and "path" in spec:
        return {**spec, "path": str(base / Path(str(spec["path"])).expanduser())}
    if isinstance(spec, str) and not spec.startswith("hf:"):
        return str(base / Path(spec).expanduser())
    return spec


def _stated(config: RunConfig, base: Path) -> SearchSpace | None:
    """The space that the run file names; None where it leaves it to the corpus."""
    named = config.space
    if named is None:
        return None
    if isinstance(named, dict):
        return SearchSpace.from_dict(named)
    relative = base / named
    return load_space(relative if relative.is_file() else named)


def _space(stated: SearchSpace | None, corpus: Corpus | None, say: Say) -> SearchSpace:
    """The space stated, with the corpus's tokens where it states none; else all of the corpus."""
    if stated is not None:
        return stated if corpus is None else _matched(stated, corpus, say)
    if corpus is None:
        raise ConfigError("key `space` is needed: this trainer has no corpus to take it from")
    return SearchSpace(corpus.domains(), source="all domains of the corpus")


def _unique_tokens(
    stated: SearchSpace | None, corpus: Corpus | None, tokens: int | None, target: int | None
) -> dict[str, int]:
    """Domains of which proxies must read less than the corpus has, so that its text repeats as it
    will at the target scale. Where the space states no tokens, the corpus may be a sample."""
    if stated is None or corpus is None or tokens is None or target is None:
        return {}
    limits = matched_repetition(stated, tokens, target)
    return {
        n: limit for n, limit in limits.items() if n in corpus.names and limit < corpus.count(n)
    }


def _matched(space: SearchSpace, corpus: Corpus, say: Say) -> SearchSpace:
    """Drop what the corpus could not provide, and fill in the tokens that it has."""
    absent = [n for n in space.names if n not in corpus.names]
    if len(absent) == len(space.names):
        raise SpaceError(
            f"the corpus has none of the domains of the space {list(space.names)}; "
            f"it has {list(corpus.names)}"
        )
    for name in absent:
        if name not in STARTER_DOMAINS:
            raise SpaceError(
                f"domain {name!r} of the space is not in the corpus"
                + did_you_mean(name, corpus.names)
            )
        say(f"domain {name!r} could not be fetched and is left out")
    tokens = {d.name: d.tokens for d in corpus.domains()}
    domains: list[Domain] = [
        d if d.tokens else dataclasses.replace(d, tokens=tokens[d.name])
        for d in space.domains
        if d.name not in absent
    ]
    targets: list[Target] = [t for t in space.targets if t.domain not in absent]
    unknown = [t.name for t in targets if t.name not in corpus.names]
    if unknown:
        raise SpaceError(
            f"target {unknown[0]!r} has no validation text in the corpus"
            + did_you_mean(unknown[0], corpus.names)
        )
    return SearchSpace(domains, targets, space.source)


def make_executor(config: RunConfig, trainer: Trainer) -> Executor:
    """The executor that a run file asks for.

    Raises:
        ConfigError: An option is unknown to that executor, or a value is not of its type.
        ExecutorError: It is unknown or cannot start.
    """
    kind, options = _executor(config)
    made: Executor = kind(trainer, **options)
    return made


def _require_memory(config: RunConfig, trainer: TorchTrainer) -> None:
    """Refuse a search whose proxies do not fit into this machine's memory, all at once.

    Where they train on other machines or on a GPU, which only workers see, each run looks for
    itself when it begins.
    """
    kind, options = str(config.executor.get("type", "ray")), config.executor
    elsewhere = kind == "ray" and (options.get("address") or os.environ.get("RAY_ADDRESS"))
    gpu = trainer.device == "auto" and any(Path("/dev").glob("nvidia[0-9]*"))
    if elsewhere or gpu or trainer.device not in ("auto", "cpu"):
        return
    cores = (os.cpu_count() or 1) / (options.get("cpus_per_slot") or 1)
    count = 1 if kind == "local" else int(options.get("slots") or max(1, cores))
    processes, members = trainer.processes, trainer.members
    need = predict(trainer.footprint(), trainer.steps(), "cpu", True, processes, members)
    require(need, free_memory(), "a search", count * processes)


def make_observers(config: RunConfig, folder: Path) -> list[Observer]:
    """Who else is told of the search: trackers, and Prometheus where Ray can export to it.

    Raises:
        MissingExtraError: The library of a tracker is not installed.
    """
    observers = make_trackers(config.track, folder)
    if config.executor.get("type", "ray") == "ray":
        from bimix_tune.executors.ray_metrics import RayMetrics

        observers.append(RayMetrics(folder.resolve().name))
    return observers


def _executor(config: RunConfig) -> tuple[Any, dict[str, Any]]:
    """Class and options, checked."""
    options = dict(config.executor)
    kind = executor_class(str(options.pop("type", "ray")))
    types = get_type_hints(kind.__init__)
    known = [n for n in types if n not in ("trainer", "return")]
    for key in options:
        if key not in known:
            raise ConfigError(f"executor: unknown key {key!r}" + did_you_mean(key, known))
    return kind, typed("executor", types, options)
