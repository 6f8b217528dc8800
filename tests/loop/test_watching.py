"""How busy slots are, and the state of a search as its study alone tells it."""

import dataclasses
import io
import math
import time

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from rich.console import Console

from bimix_tune import LossCurve, Mixture, SearchSpace
from bimix_tune.cli.display import Display, head
from bimix_tune.loop import SearchState, ledger
from bimix_tune.loop.result import RunRecord
from bimix_tune.loop.utilisation import utilisation
from bimix_tune.loop.watching import Watcher
from bimix_tune.space import Domain
from bimix_tune.trials import report_losses, suggest_mixture

NAMES = ("web", "code")
MIXTURE = Mixture(NAMES, [0.5, 0.5])
NOW = 1_000_000.0


def record(number, slot, started, seconds=math.nan, state="COMPLETE", tokens=1000, **more):
    curve = LossCurve(MIXTURE, [tokens], [[1.0, 2.0]], targets=NAMES) if tokens else None
    return RunRecord(
        number, "proposal", "", state, MIXTURE, curve, 1.5, seconds=seconds, slot=slot,
        started=started, **more
    )  # fmt: skip


def test_utilisation_by_hand():
    records = [
        record(0, "a", NOW - 100, 60),
        record(1, "a", NOW - 40, state="RUNNING", tokens=500),
        record(2, "b", NOW - 50, 25),
        record(3, "", math.nan, state="WAITING", tokens=0),
        record(4, "b", NOW - 9000, 25),  # too long ago
    ]
    found = utilisation(records, NOW)
    assert found.busy == {"a": 1.0, "b": 0.5}
    assert found.running == 1
    assert found.mean == 0.75
    assert found.tokens_per_second == pytest.approx(2500 / 100)
    assert utilisation(records, NOW, {1: 900}).tokens_per_second == pytest.approx(2900 / 100)
    nothing = utilisation([], NOW)
    assert (nothing.busy, nothing.running, nothing.tokens_per_second) == ({}, 0, 0.0)
    assert math.isnan(nothing.mean)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 700), st.integers(1, 99)), max_size=12))
def test_utilisation_is_the_time_with_a_run(spans):
    """Against a count of whole seconds; runs of a slot follow each other."""
    records, busy, end = [], {}, {}
    for number, (slot, gap, seconds) in enumerate(spans):
        begin = end.get(slot, 0) + gap
        if begin + seconds > 1000:  # it would end in the future
            continue
        end[slot] = begin + seconds
        records.append(record(number, str(slot), NOW - 1000 + begin, seconds, tokens=seconds))
        for second in range(begin, end[slot]):
            if 400 <= second < 1000:
                busy.setdefault(slot, set()).add(second)
    found = utilisation(records, NOW, window=600)
    expected = {str(s): len(b) / (1000 - min(b)) for s, b in busy.items()}
    assert found.busy == pytest.approx(expected)
    if busy:  # one token per second and slot
        total = sum(map(len, busy.values())) / (1000 - min(map(min, busy.values())))
        assert found.tokens_per_second == pytest.approx(total)


@pytest.fixture
def study(tmp_path):
    space = SearchSpace([Domain(n, prior=1) for n in NAMES])
    settings = {"space": space.to_dict(), "tokens": 1000, "unit": "nats/token"}
    study = optuna.create_study(
        study_name="bimix-tune", storage=f"sqlite:///{tmp_path / 'study.db'}"
    )
    study.set_user_attr(ledger.SETTINGS, settings)
    study.set_user_attr(ledger.TARGET_TOKENS, 1000)
    study.set_user_attr(ledger.PLANNED, ["search", 20])
    return study


def run(study, space, state=TrialState.COMPLETE, **attrs):
    trial = study.ask()
    mixture = suggest_mixture(trial, space)
    for key, value in {ledger.STARTED: time.time() - 5, ledger.SECONDS: 5.0, **attrs}.items():
        trial.set_user_attr(key, value)
    losses = {n: 2.0 * (0.1 + r) ** -0.2 for n, r in mixture.items()}
    value = report_losses(trial, 500 if state == TrialState.RUNNING else 1000, losses)
    if state != TrialState.RUNNING:
        complete = state == TrialState.COMPLETE
        study.tell(trial.number, value if complete else None, state=state)


def test_a_watcher_follows_the_study_and_reads_what_ended_once(study, tmp_path, monkeypatch):
    watcher = Watcher(tmp_path)
    assert watcher.state().done == 0
    for number in range(10):
        run(study, watcher.space, slot=f"host/{number % 2}")
    run(study, watcher.space, TrialState.FAIL, cause="Error: no luck")
    run(study, watcher.space, TrialState.RUNNING, slot="host/0", retries=["Lost: a node"])
    watcher._next_fit = 0.0
    state = watcher.state()
    assert (state.phase, state.done, state.total, state.slots) == ("search", 11, 20, 1)
    assert state.law is not None and state.optimum is not None
    assert sum(state.optimum[0].values()) == pytest.approx(1)
    assert state.records[-1].retries == ("Lost: a node",)

    read = []
    monkeypatch.setattr(
        ledger, "record_of", lambda t, s, f=ledger.record_of: read.append(t.number) or f(t, s)
    )
    assert [r.number for r in watcher.state().records] == list(range(12))
    assert read == [11]  # the one that runs
    assert not watcher.ended
    study.set_user_attr(ledger.PLANNED, ["ended", 0])
    assert watcher.state().phase == "ended"
    assert watcher.ended


def shown(state, width=100, **options):
    console = Console(width=width, file=io.StringIO(), markup=False, emoji=False)
    console.print(Display(console, "nats/token", **options).panel(state))
    return console.file.getvalue()


def state_of(records, running=()):
    done = sum(r.state != "RUNNING" for r in records)
    return SearchState("search", done, 999, 64, running, tuple(records), None, None, 1000)


def test_the_panel_of_64_slots_is_compact(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    records = [
        record(n, f"host{n // 8}/gpu{n % 8}/{n}", NOW - 100, state="RUNNING", tokens=10 * n)
        for n in range(64)
    ]
    text = shown(state_of(records), dashboard="http://127.0.0.1:8265")
    assert "64 of 64 with a run, 100% busy lately, 202 tokens/s" in text
    assert text.count("████████ 100%") == 8
    assert "and 56 more" in text
    assert "http://127.0.0.1:8265" in text
    assert len(text.splitlines()) < 24
    assert max(map(len, text.splitlines())) <= 100


def test_without_a_driver_nothing_seems_to_run(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    records = [record(n, "host/1", NOW - 100, state="RUNNING") for n in range(2)]
    left = dataclasses.replace(state_of(records), silent=70.4)
    assert head(left) == (
        "search 0/999, no driver for 0:01:10: resume with the same `bimix-tune search` command"
    )
    text = shown(left)
    assert "cut short  2 runs, which will be queued again" in text
    assert "host" not in text and "run 0" not in text and "run 0" in shown(state_of(records))


def test_the_panel_counts_causes(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    failed = [
        record(n, "a", NOW - 50, 10, "FAIL", cause=f"Error: [red]{n % 2}[/red]\n" + "x" * 200)
        for n in range(5)
    ]
    again = [record(9, "a", NOW - 10, state="RUNNING", retries=("Lost: a", "Lost: b", "Lost: a"))]
    text = shown(state_of(failed + again), width=140)
    assert "3 x Error: [red]0[/red] xxx" in text and "2 x Error: [red]1[/red] xxx" in text
    assert "2 x Lost: a" in text and "1 x Lost: b" in text
    assert "x" * 100 not in text


def test_without_a_terminal_there_are_lines_and_no_panel(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    console = Console(width=100, force_terminal=False, markup=False)
    records = [record(n, "a", NOW - 50, 10) for n in range(2)]
    with Display(console, "nats/token") as display:
        display(state_of(records[:1]))
        display(state_of(records))
        clock[0] += 61
        display(state_of(records))
        left = dataclasses.replace(state_of(records), silent=60.0)
        display(left)  # at once, and once
        display(left)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "watching: 1 runs are already done",
        "run   1  proposal                         1.5000",
        head(state_of(records)),
        head(left),
    ]
    assert np.all(["\x1b" not in line for line in lines])
