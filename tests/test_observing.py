"""Observers: told everything, unable to hurt a search; and what they write."""

import json
import logging
import threading
import time

from bimix_tune import Mixture, SearchSpace
from bimix_tune.loop import search
from bimix_tune.loop.outcome import load_study
from bimix_tune.loop.search_log import RUN_LOG_CHARACTERS, RunLogs, SearchLog
from bimix_tune.observing import (
    LawFitted,
    Observers,
    RunAsked,
    RunCheckpoint,
    RunEnded,
    RunOutput,
    RunRetried,
    RunStarted,
    SlotsChanged,
    happened,
)
from bimix_tune.space import Domain
from bimix_tune.tracking import Background
from bimix_tune.training.synthetic import SyntheticTrainer

NAMES = ("web", "code", "books")
MIXTURE = Mixture(NAMES, [0.5, 0.25, 0.25])
ALL = [
    SlotsChanged(2),
    RunAsked(0, "baseline", "natural", MIXTURE, 3),
    RunStarted(0, "host/1"),
    RunCheckpoint(0, 100, {"web": 2.0, "code": 3.0, "books": 4.0}, 2.75),
    RunOutput(0, "hello\n"),
    RunRetried(0, "WorkerCrashedError: gone"),
    RunStarted(0, "host/2"),
    RunEnded(0, "FAIL", 100, 2.75, 1.5, "Error: no luck"),
    RunEnded(1, "COMPLETE", 200, 2.5, 1.0),
    RunEnded(2, "PRUNED", 100, 2.9, 1.0),
    LawFitted("from 3 runs"),
]


class Recorder:
    def __init__(self):
        self.events, self.closed = [], 0

    def __call__(self, event):
        self.events.append(event)

    def close(self):
        self.closed += 1


class Broken(Recorder):
    name = "a broken observer"

    def __call__(self, event):
        super().__call__(event)
        raise ValueError("no such\nserver")


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_search_tells_its_observers_what_its_study_says(tmp_path):
    recorder, broken = Recorder(), Broken()
    space = SearchSpace([Domain(n, prior=p) for n, p in zip(NAMES, (3, 1, 1), strict=True)])
    trainer = SyntheticTrainer(domains=NAMES, tokens=1000)
    search(
        space,
        trainer,
        folder=tmp_path,
        trials=8,
        confirm_seeds=1,
        observers=[broken, recorder],
    )
    study, _ = load_study(tmp_path)
    trials = study.get_trials()
    assert recorder.closed == 1
    assert len(broken.events) == 1  # then it was switched off
    ends = {e.run: e.state for e in recorder.events if isinstance(e, RunEnded)}
    assert ends == {t.number: t.state.name for t in trials}
    for kind in (RunAsked, RunStarted):
        assert sorted(e.run for e in recorder.events if isinstance(e, kind)) == sorted(ends)
    told = {(e.run, e.tokens) for e in recorder.events if isinstance(e, RunCheckpoint)}
    assert told == {(t.number, step) for t in trials for step in t.intermediate_values}
    best = {e.run: e.objective for e in recorder.events if isinstance(e, RunEnded)}
    assert best[study.best_trial.number] == study.best_value
    assert any(isinstance(e, LawFitted) for e in recorder.events)

    written = lines(tmp_path / "log.jsonl")
    names = [line["event"] for line in written]
    assert names.count("asked") == names.count("started") == len(trials)
    assert names.count("finished") + names.count("pruned") == len(trials)
    assert names.count("checkpoint") == len(told)
    warned = [line["event"] for line in written if line["level"] == "WARNING"]
    assert warned == ["a broken observer failed and is switched off: ValueError: no such server"]
    assert not (tmp_path / "logs").exists()  # no run had anything to say


def test_the_log_has_one_object_per_event_and_is_appended_to(tmp_path):
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        log = SearchLog(path)
        for event in ALL:
            log(event)
            assert path.read_bytes().endswith(b"}\n")  # flushed, whole lines
        happened.info("worker up", extra={"fields": {"slot": "host/1"}})
        log.close()
    happened.info("after the end")
    written = lines(path)
    assert [line["event"] for line in written[: len(written) // 2]] == [
        "search",
        "slots",
        "asked",
        "started",
        "checkpoint",
        "retried",
        "started",
        "failed",
        "finished",
        "pruned",
        "fit",
        "worker up",
    ]
    assert written[2]["mixture"] == dict(MIXTURE)
    assert written[11]["slot"] == "host/1"
    assert written[12]["event"] == "search"
    assert len(written) == 24


def test_passwords_are_masked_in_log_and_output(tmp_path):
    log, runs = SearchLog(tmp_path / "log.jsonl"), RunLogs(tmp_path / "logs")
    for observer in (log, runs):
        observer(RunOutput(0, "opening postgresql://me:hunter2@host/db\n"))
        observer(RunRetried(0, "cannot reach postgresql://me:hunter2@host/db?password=hunter2"))
    logging.getLogger("bimix_tune.anything").error("lost mysql://me:hunter2@host")
    log.close()
    shown = (tmp_path / "log.jsonl").read_text() + (tmp_path / "logs/run-0000.log").read_text()
    assert "hunter2" not in shown
    assert shown.count("me:***@host") == 4


def test_a_log_that_cannot_be_written_is_switched_off_once(tmp_path, caplog, capsys):
    (tmp_path / "log.jsonl").mkdir()
    recorder = Recorder()
    observers = Observers([SearchLog(tmp_path / "log.jsonl"), recorder])
    for event in ALL:
        observers(event)
    observers.close()
    assert len(recorder.events) == len(ALL)
    assert caplog.text.count("the search log failed and is switched off") == 1
    assert capsys.readouterr().err == ""


def test_the_log_of_a_run_has_its_output_and_its_fate(tmp_path):
    runs = RunLogs(tmp_path / "logs")
    for event in ALL:
        runs(event)
    assert [p.name for p in (tmp_path / "logs").iterdir()] == ["run-0000.log"]
    first, second, third = (tmp_path / "logs" / "run-0000.log").read_text().splitlines()
    assert first == "hello"
    assert second.endswith("on host/1: broke off: WorkerCrashedError: gone")
    assert third.endswith("on host/2: failed: Error: no luck")


def test_the_log_of_a_run_is_bounded_but_tells_the_end(tmp_path):
    runs = RunLogs(tmp_path)
    for _ in range(30):
        runs(RunOutput(7, "x" * 64_000 + "\n"))
    runs(RunEnded(7, "FAIL", 0, None, 1.0, "Error: too much"))
    text = (tmp_path / "run-0007.log").read_text()
    assert len(text) < RUN_LOG_CHARACTERS + 300
    assert text.count("the rest is left out") == 1
    assert text.endswith("Error: too much\n")


def test_a_slow_observer_holds_nobody_up_and_gets_everything_in_order():
    gate, slow = threading.Event(), Recorder()

    def wait(event):
        gate.wait(60)
        slow.events.append(event)

    slow_observer = type("Slow", (), {"__call__": staticmethod(wait), "close": slow.close})()
    background = Background(slow_observer, "slow")
    for event in ALL:
        background(event)  # returns though nothing has been taken
    assert slow.events == []
    gate.set()
    background.close()
    assert slow.events == ALL
    assert slow.closed == 1


def test_the_error_of_a_background_observer_reaches_the_search(caplog):
    observers = Observers([Background(Broken(), "broken")])
    end = time.monotonic() + 60
    while "switched off" not in caplog.text and time.monotonic() < end:
        observers(ALL[0])
        time.sleep(0.01)
    observers.close()
    assert "the tracker 'broken' failed and is switched off: ValueError" in caplog.text
