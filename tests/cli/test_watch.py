"""`bimix-tune status --watch`, from another process than the search's."""

import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

from bimix_tune.cli import app
from bimix_tune.loop import company

RUN = """
space: {domains: [{name: web, prior: 3}, {name: code, prior: 1}]}
trainer: {type: synthetic, domains: [web, code], tokens: 10k, sleep: 0.1}
search: {trials: 4, confirm_seeds: 1}
executor: {type: local}
"""


def begun(folder):
    """A search in a process of its own that has asked for a run."""
    (folder / "run.yaml").write_text(RUN)
    command = [sys.executable, "-c", "from bimix_tune.cli import main; main()", "search"]
    searching = subprocess.Popen(
        [*command, "run.yaml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = folder / "runs" / "run" / "log.jsonl"
    limit = time.monotonic() + 120
    while not log.exists() or "asked" not in log.read_text():
        assert searching.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    return searching


def test_a_search_is_watched_to_its_end(cli, tmp_path):
    searching = begun(tmp_path)
    code, out, err = cli("status", "runs/run", "--watch")
    assert (code, err) == (0, "")
    assert searching.wait(120) == 0
    before = re.findall(r"^watching: (\d+) runs are already done$", out, re.MULTILINE)
    listed = [int(n) for n in re.findall(r"^run +(\d+)  ", out, re.MULTILINE)]
    assert len(set(listed)) == len(listed) == 7 - sum(map(int, before))
    assert max(listed) == 6
    assert "Recommended mixture" in out
    assert "\x1b" not in out  # no terminal, no panel

    code, again, _ = cli("status", "runs/run", "--watch")  # it has ended: no waiting
    assert code == 0
    assert "watching: 7 runs are already done" in again


def test_a_killed_driver_is_missed(cli, tmp_path, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    searching = begun(tmp_path)
    monkeypatch.setattr(app, "time", SimpleNamespace(sleep=interrupt))  # after one look
    _, out, _ = cli("status", "runs/run", "--watch")
    assert "no driver" not in out
    searching.kill()
    searching.wait()
    monkeypatch.setattr(company, "GRACE_SECONDS", 0.0)
    _, out, _ = cli("status", "runs/run", "--watch")
    assert re.search(r"^search \d/4, no driver for 0:00:\d\d: resume with the same", out, re.M)
    _, out, _ = cli("status", "runs/run")
    assert re.search(r"^no driver for 0:00:\d\d: resume", out, re.M)

    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, out, _ = cli("search", "run.yaml")
    assert code == 0
    _, out, _ = cli("status", "runs/run", "--watch")
    assert "no driver" not in out
