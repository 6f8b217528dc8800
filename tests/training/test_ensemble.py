"""Proxies that train together: each as if it were alone, whatever the others do."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from bimix_tune.errors import ConfigError, DivergedError, OutOfMemoryError
from bimix_tune.mixture import Mixture
from bimix_tune.training import ensemble_trial as module
from bimix_tune.training import loop
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.compile_ahead import Compilation
from bimix_tune.training.ensemble import Call, Ensemble, Member, Seconds, gradients
from bimix_tune.training.ensemble_trial import measured
from bimix_tune.training.llama import LlamaTrainer
from bimix_tune.training.memory import Footprint, predict
from bimix_tune.training.model import Llama
from bimix_tune.training.schedule import Steps
from bimix_tune.training.sizes import Shape
from bimix_tune.training.stacked import StackedLlama
from bimix_tune.training.transformers import TransformersTrainer

DOMAINS = ("ab", "cd", "mixed")
SHARES = ([0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [1.0, 0.0, 0.0])
MIXTURES = [Mixture(DOMAINS, shares) for shares in SHARES]
RATES = (2e-3, 1e-3, 1.5e-3, 5e-4)
"""Low, so that 30 steps do not make much of a difference by rounding."""
STEPS = 30
PATIENCE = 120.0

Losses = dict[str, list[float]]


def make(corpus: Path, **options: object) -> LlamaTrainer:
    chosen = {"tokens": 160 * STEPS - 7, "size": "0.1M", "sequence_length": 16}
    chosen |= {"batch_tokens": 160, "device": "cpu", "compile": "never", **options}
    return LlamaTrainer(corpus=corpus, **chosen)


def members(corpus: Path, count: int, **options: object) -> list[LlamaTrainer]:
    """Trainers that differ in their learning rates only."""
    return [make(corpus, members=4, learning_rate=r, **options) for r in RATES[:count]]


def at_once(*work: Callable[[], object]) -> list[object]:
    """Do all of it in threads; what each returned or raised."""
    found: list[object] = [None] * len(work)

    def do(at: int) -> None:
        try:
            found[at] = work[at]()
        except Exception as error:  # noqa: BLE001 - returned
            found[at] = error

    threads = [threading.Thread(target=do, args=(at,), daemon=True) for at in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it hangs"
    return found


def train(trainer: LlamaTrainer, mixture: Mixture, seed: int, until: int = 10**9) -> Losses:
    """Losses of all steps and evaluations; stopped at the first evaluation after so many tokens."""
    found: Losses = {"steps": []}
    TOLD[threading.get_ident()] = found["steps"]
    run = trainer.run(mixture, seed)
    for checkpoint in run:
        for name, loss in checkpoint.losses.items():
            found.setdefault(name, []).append(loss)
        if checkpoint.losses and checkpoint.tokens >= until:
            run.close()
    return found


TOLD: dict[int, list[float]] = {}


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The loss of every step is kept; products are exact to float32; nothing was measured yet."""
    step = loop.Training._step

    def telling(self: loop.Training, number: int) -> torch.Tensor:
        loss = step(self, number)
        TOLD.setdefault(threading.get_ident(), []).append(float(loss))
        return loss

    monkeypatch.setattr(loop.Training, "_step", telling)
    monkeypatch.setattr("bimix_tune.training.device.compute_dtype", lambda d: torch.float32)
    monkeypatch.setattr("bimix_tune.training.step.CLIP", 0.2)  # so that all steps are clipped
    monkeypatch.setattr(module, "_ensembles", {})
    yield
    TOLD.clear()


@pytest.fixture
def pays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two and more go together; how many did so in each pass."""
    passes: list[int] = []

    def counted(*args):
        passes.append(len(args[-1]))
        return gradients(*args)

    monkeypatch.setattr(module, "measured", lambda *args: Seconds(1.0, 1.5))
    monkeypatch.setattr(module, "gradients", counted)
    return passes


def assert_near(found: Losses, expected: Losses, count: int | None = None) -> None:
    assert found.keys() == expected.keys()
    for name, losses in found.items():
        assert losses == pytest.approx(expected[name][: len(losses)], rel=1e-5), name
    if count is None:
        assert {n: len(v) for n, v in found.items()} == {n: len(v) for n, v in expected.items()}


def test_members_equal_runs_alone(corpus: Path, pays: list[int]) -> None:
    together = at_once(
        *(
            lambda t=t, m=m, s=s: train(t, m, s)
            for s, (t, m) in enumerate(zip(members(corpus, 4), MIXTURES, strict=True))
        )
    )
    assert pays.count(4) > STEPS / 2
    for seed, (rate, mixture) in enumerate(zip(RATES, MIXTURES, strict=True)):
        alone = train(make(corpus, learning_rate=rate), mixture, seed)
        assert len(alone["steps"]) == STEPS
        assert_near(together[seed], alone)


def test_micro_batches_meet_too(
    corpus: Path, pays: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bimix_tune.training.memory.CPU_MICRO_BATCH", 64)
    one, two = members(corpus, 2)
    found = at_once(lambda: train(one, MIXTURES[0], 0), lambda: train(two, MIXTURES[1], 1))
    assert pays.count(2) > STEPS
    for seed, rate in enumerate(RATES[:2]):
        assert_near(found[seed], train(make(corpus, learning_rate=rate), MIXTURES[seed], seed))


def test_others_go_on_when_one_stops_diverges_or_comes_late(corpus: Path, pays: list[int]) -> None:
    steady, stopped, late, _ = members(corpus, 4)
    wild = dataclasses.replace(stopped, learning_rate=1e30)
    begun = threading.Event()

    def stop() -> Losses:
        losses = train(stopped, MIXTURES[1], 1, until=1000)
        begun.set()
        return losses

    def come_late() -> Losses:
        assert begun.wait(PATIENCE)
        return train(late, MIXTURES[2], 2)

    found = at_once(
        lambda: train(steady, MIXTURES[0], 0), stop, come_late, lambda: train(wild, MIXTURES[3], 3)
    )
    assert isinstance(found[3], DivergedError)
    assert_near(found[0], train(make(corpus, learning_rate=RATES[0]), MIXTURES[0], 0))
    assert_near(found[1], train(make(corpus, learning_rate=RATES[1]), MIXTURES[1], 1), count=1)
    assert_near(found[2], train(make(corpus, learning_rate=RATES[2]), MIXTURES[2], 2))
    assert max(pays) > 2


def test_a_run_that_nobody_continues_is_not_waited_for(corpus: Path, pays: list[int]) -> None:
    one, two = (t.run(MIXTURES[0], 0) for t in members(corpus, 2))
    assert [next(one).tokens, next(two).tokens] == [0, 0]
    losses = [list(run)[-1].losses for run in (one, two)]
    assert losses[0] != losses[1]
    assert pays == []


@pytest.mark.parametrize("first", [1, 4])
def test_a_run_goes_on_with_others_or_without(
    first: int, corpus: Path, tmp_path: Path, pays: list[int]
) -> None:
    """What began alone ends in an ensemble, and the other way round."""
    whole = [train(make(corpus, learning_rate=4e-3), MIXTURES[s], s) for s in (0, 1)]
    for number in (first, 5 - first):
        trainer = make(corpus, learning_rate=4e-3, members=number, states=tmp_path)
        until = 1000 if number == first else 10**9
        parts = at_once(
            *(lambda s=s, t=trainer, u=until: train(t, MIXTURES[s], s, u) for s in (0, 1))
        )
        for part, expected in zip(parts, whole, strict=True):
            steps = part.pop("steps")
            assert steps == pytest.approx(
                expected["steps"][: len(steps)]
                if number == first
                else expected["steps"][-len(steps) :],
                rel=1e-5,
            )
            assert_near(part, {n: v for n, v in expected.items() if n != "steps"}, count=1)
        assert len(list(tmp_path.iterdir())) == (2 if number == first else 0)
    assert pays.count(2) > 5


@pytest.mark.parametrize(
    ("alone", "expected", "verdict"),
    [
        (0.4, 4, "4 at once, 1.60 times as fast as one at a time"),
        (0.2, 1, "one at a time, 4 at once would be 0.80 times as fast"),
    ],
)
def test_it_is_timed_once_and_the_faster_way_is_taken(
    alone: float, expected: int, verdict: str, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a step of four takes a second, and a single one takes ``alone``."""
    seconds = iter([t for _ in range(21) for t in (0.0, 1.0, 0.0, 4 * alone)])
    monkeypatch.setattr(module, "now", lambda device: next(seconds))
    trainer = make(corpus, members=4)
    assert trainer.at_once() == expected
    assert next(seconds, None) is None
    assert dataclasses.replace(trainer, learning_rate=1e-3).at_once() == expected
    notes = list(trainer.run(MIXTURES[0], 0))[-1].notes
    assert notes["members"] == verdict
    assert make(corpus).at_once() == 1


def test_the_time_that_counts_is_measured(corpus: Path) -> None:
    unit = Compilation(Shape(1, 32, 2, 48), 64, "float32", "cpu", 2, 16, 4)
    found = measured(unit, torch.device("cpu"), "never")
    assert 0 < found.alone < found.together < 40 * found.alone


def test_without_room_for_all_they_go_one_at_a_time(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make(corpus)
    need = predict(one.footprint(), one.steps(), "cpu", False).total
    monkeypatch.setattr("bimix_tune.training.device.free_memory", lambda: need + 10**6)
    trainer = make(corpus, members=4)
    assert trainer.at_once() == 1
    notes = next(iter(trainer.run(MIXTURES[0], 0))).notes
    assert notes["members"].startswith("one at a time, 4 proxies at once")


def test_memory_counts_all_members() -> None:
    footprint, steps = Footprint(10**6, 1000, 2048, chunked=True), Steps(10**6, 128, 8)
    one, four = (predict(footprint, steps, "cpu", True, members=n).parts for n in (1, 4))
    for name in ("weights", "gradients", "AdamW moments", "average of the weights", "activations"):
        assert four[name] == 4 * one[name]
    assert four["copies for a common pass"] == 4 * 8 * 10**6
    assert four["PyTorch"] == one["PyTorch"]
    large = Footprint(10**6, 1000, 200_000, chunked=True)
    assert large.logits(1024) < predict(large, steps, "cpu", True, members=2).parts["logits"] // 2


def test_what_cannot_be_is_refused(corpus: Path) -> None:
    with pytest.raises(ConfigError, match=r"LlamaTrainer|runs share a process .* members=4"):
        make(corpus, members=4, processes=2)
    with pytest.raises(ConfigError, match=r"TransformersTrainer cannot .* got 4; the trainer `l"):
        TransformersTrainer(corpus=corpus, tokens=1000, model={"model_type": "gpt2"}, members=4)
    with pytest.raises(ConfigError, match="members must be a whole number > 0, but got 0"):
        make(corpus, members=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_stacked_pass_is_that_of_each_decoder(compiled: bool) -> None:
    """Loss and all gradients, also where one of them holds NaN and another is missing."""
    shape = Shape(layers=1, width=32, heads=2, ffn=48)
    unit = Compilation(shape, 61, "float32", "cpu", 2, 16, 4)
    stacked = unit.module("cpu")
    assert isinstance(stacked, StackedLlama)
    singles = [Llama(shape, 61) for _ in range(3)]
    for seed, single in enumerate(singles):
        single.initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        singles[1].model.norm.weight.fill_(torch.nan)
    tokens = torch.randint(61, (3, 2, 17), generator=torch.Generator().manual_seed(9))
    labels = tokens[..., 1:].clone().masked_fill(tokens[..., 1:] == 7, -100)
    calls = [
        Call(tuple(m.parameters()), t, y)
        for m, t, y in zip(singles, tokens[..., :-1], labels, strict=True)
    ]
    loss = unit.load(stacked) if compiled else stacked.loss
    answers = gradients(stacked, loss, calls)
    assert len(answers) == 3
    assert answers[1][0].isnan()
    for at in (0, 2):
        value = singles[at].loss(calls[at].inputs, calls[at].labels)
        torch.testing.assert_close(answers[at][0], value.detach())
        exact = torch.autograd.grad(value, calls[at].parameters)
        for ours, theirs in zip(answers[at][1], exact, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_an_error_of_the_common_pass_is_everybodys_and_not_the_end() -> None:
    broken = [True]

    def answer(calls):
        if len(calls) == 2 and broken:
            raise OutOfMemoryError(f"full {broken.pop()}")
        return list(calls)

    ensemble = Ensemble(answer, 2, Seconds(1.0, 0.5), "")

    def run(name: str) -> list[object]:
        met: list[object] = []
        with ensemble.present(name):
            while broken or len(met) < 3:
                try:
                    met.append(ensemble.meet(name, name))
                except OutOfMemoryError as error:
                    met.append(str(error))
        return met

    for name, met in zip("ab", at_once(lambda: run("a"), lambda: run("b")), strict=True):
        assert set(met) == {name, "full True"}


def test_a_call_from_outside_a_run_is_answered_alone() -> None:
    llama = Llama(Shape(1, 32, 2, 48), 61)
    llama.initialise(torch.Generator().manual_seed(0))
    ensemble = Ensemble(lambda calls: pytest.fail("met"), 2, Seconds(1.0, 0.1), "")
    tokens = torch.zeros(2, 16, dtype=torch.int64)
    member = Member(ensemble, llama, llama.loss)
    assert torch.equal(member(tokens, tokens), llama.loss(tokens, tokens))


Program = list[list[bool]]
"""Of a member: for each stretch between two checkpoints, whether it calls or does nothing."""


@settings(deadline=None, max_examples=60)
@given(
    programs=st.lists(
        st.lists(st.lists(st.booleans(), max_size=4), max_size=5), min_size=1, max_size=5
    ),
    raising=st.sets(st.integers(0, 4)),
    capacity=st.integers(1, 4),
    together=st.sampled_from([0.1, 1.5, 100.0]),
)
def test_everybody_gets_an_own_answer_and_nobody_waits_for_ever(
    programs: list[Program], raising: set[int], capacity: int, together: float
) -> None:
    """Members begin, call, pause, end and fail as they like."""

    def answer(calls):
        assert 1 <= len(calls) <= capacity
        return [call * 10 for call in calls]

    ensemble = Ensemble(answer, capacity, Seconds(1.0, together), "")

    def run(name: int) -> int:
        calls = 0
        for stretch in programs[name]:
            with ensemble.present(name):
                for wanted in stretch:
                    if wanted:
                        calls += 1
                        call = 1000 * name + calls
                        assert ensemble.meet(name, call) in (None, 10 * call)
        if name in raising:
            with ensemble.present(name):
                raise DivergedError("nan")
        return calls

    found = at_once(*(lambda n=n: run(n) for n in range(len(programs))))
    for name, program in enumerate(programs):
        if name in raising:
            assert isinstance(found[name], DivergedError)
        else:
            assert found[name] == sum(map(sum, program))


def test_a_member_is_absent_between_checkpoints() -> None:
    ensemble = Ensemble(lambda calls: [], 2, Seconds(1.0, 0.1), "")
    llama = Llama(Shape(1, 32, 2, 48), 61)
    member = Member(ensemble, llama, llama.loss)
    seen: list[bool] = []

    def checkpoints() -> Iterator[Checkpoint]:
        for tokens in range(2):
            seen.append(member in ensemble._present)
            yield Checkpoint(tokens)

    for checkpoint in member.under_way(checkpoints()):
        assert member not in ensemble._present, checkpoint
    assert seen == [True, True]
    assert not ensemble._present
