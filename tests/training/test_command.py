"""External programs: what they report, how they fail, and how they are stopped."""

import logging
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bimix_tune.errors import ConfigError, DivergedError, TrainingError
from bimix_tune.mixture import Mixture
from bimix_tune.training.command import CommandTrainer

MIXTURE = Mixture(["a", "b"], [0.25, 0.75])


def program(folder: Path, code: str, **options: object) -> CommandTrainer:
    script = folder / "program.py"
    script.write_text("import json, os, sys, time\n" + textwrap.dedent(code))
    command = f"{sys.executable} -u {script} {{mixture}} {{seed}} {{tokens}}"
    return CommandTrainer(command=command, tokens=100, targets=("a", "b"), **options)


def test_placeholders_and_reports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = program(
        tmp_path,
        """
        r = json.load(open(sys.argv[1]))
        print("hello")
        print(json.dumps({"step": 1}))
        print(json.dumps({"tokens": 50, "losses": {"b": 1 + r["b"], "a": int(sys.argv[2])}}))
        print(json.dumps({"tokens": 60}))
        print(json.dumps({"tokens": int(sys.argv[3]), "losses": {"a": 2, "b": 1}, "decayed": True}))
        """,
    )
    with caplog.at_level(logging.DEBUG):
        got = list(trainer.run(MIXTURE, 7))
    assert [(c.tokens, c.losses, c.decayed) for c in got if c.tokens] == [
        (50, {"a": 7.0, "b": 1.75}, False),
        (60, {}, False),
        (100, {"a": 2.0, "b": 1.0}, True),
    ]
    assert "hello" in caplog.text


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("sys.exit('no data in /tmp/x')", TrainingError, r"status 1(?s:.*)no data in /tmp/x"),
        ("os.abort()", TrainingError, "killed by signal 6"),
        ("pass", TrainingError, "last report is at 0 of 100"),
        ('print(\'{"tokens": 9, "losses": {"a": 1}}\')', TrainingError, r"losses of \['a'\]"),
        ('print(\'{"tokens": 9, "losses": {"a": "x", "b": 1}}\')', TrainingError, "a number"),
        ("print('{\"tokens\": NaN}')", TrainingError, "last report is at 0"),
        ("print('{\"tokens\": 900}')", TrainingError, "at 900 tokens after 0 of 100"),
        ('print(\'{"tokens": 0, "losses": {"a": 1, "b": 1}}\')', TrainingError, "at 0 tokens"),
        ('print(\'{"tokens": 9, "losses": {"a": NaN, "b": 1}}\')', DivergedError, "'a' became"),
    ],
)
def test_failures_are_named(code: str, kind: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message) as caught:
        list(program(tmp_path, code).run(MIXTURE, 0))
    assert type(caught.value) is kind


def test_silence_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bimix_tune.training.command.SIGN_OF_LIFE", 0.05)
    run = program(tmp_path, "time.sleep(60)").run(MIXTURE, 0)
    assert [next(run).tokens for _ in range(3)] == [0, 0, 0]
    run.close()


@pytest.mark.parametrize("stubborn", [False, True])
def test_closing_ends_the_program_and_its_children(stubborn: bool, tmp_path: Path) -> None:
    code = f"""
        import signal, subprocess
        if {stubborn}:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(json.dumps({{"tokens": child.pid % 50 + 1, "pids": [os.getpid(), child.pid]}}))
        open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
        print(json.dumps({{"tokens": 60}}))
        time.sleep(60)
    """
    run = program(tmp_path, code, grace=0.5).run(MIXTURE, 0)
    while next(run).tokens != 60:
        pass
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    run.close()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("code", [0, 3])
def test_an_ended_program_leaves_nothing_behind(code: int, tmp_path: Path) -> None:
    trainer = leaving_a_child(tmp_path, code, holding=False)
    if code:
        with pytest.raises(TrainingError, match="ended with status 3"):
            list(trainer.run(MIXTURE, 0))
    else:
        assert list(trainer.run(MIXTURE, 0))[-1].tokens == 100
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_child_that_holds_the_output_does_not_keep_a_run_waiting(tmp_path: Path) -> None:
    began = time.monotonic()
    trainer = leaving_a_child(tmp_path, code=0, holding=True)
    try:
        assert [c.tokens for c in trainer.run(MIXTURE, 0) if c.losses] == [100]
        assert time.monotonic() - began < 30
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def leaving_a_child(folder: Path, code: int, holding: bool) -> CommandTrainer:
    """A program that ends at once while its child goes on for a minute.

    Args:
        folder: Gets the program, and the child's number in the file ``pid``.
        code: Exit status.
        holding: Whether the child leaves the group and keeps the output open.
    """
    text = f"""
        import subprocess
        sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
        output = None if {holding} else subprocess.DEVNULL
        child = subprocess.Popen(sleeper, start_new_session={holding}, stdout=output, stderr=output)
        open({str(folder / "pid")!r}, "w").write(str(child.pid))
        print(json.dumps({{"tokens": 100, "losses": {{"a": 1, "b": 1}}}}))
        sys.exit({code})
    """
    return program(folder, text)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"must contain \{mixture\}"):
        CommandTrainer(command="python train.py", tokens=1, targets=("a",))
    with pytest.raises(ConfigError, match="targets must be a list, but got 'ab'"):
        CommandTrainer(command="x {mixture}", tokens=1, targets="ab")
    with pytest.raises(ConfigError, match=r"cannot be split: No closing quotation"):
        CommandTrainer(command="x '{mixture}", tokens=1, targets=("a",))
    with pytest.raises(ConfigError, match="at least one target"):
        CommandTrainer(command="x {mixture}", tokens=1, targets=())
    with pytest.raises(ConfigError, match="unit must be"):
        CommandTrainer(command="x {mixture}", tokens=1, targets=("a",), unit="bits")
    with pytest.raises(TrainingError, match="'/no/such' cannot start"):
        next(CommandTrainer(command="/no/such {mixture}", tokens=1, targets=("a",)).run(MIXTURE, 0))
