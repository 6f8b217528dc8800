import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from bimix_tune import LossCurve, Mixture, entropy, read_curves, write_curves
from bimix_tune.config import load_config
from bimix_tune.loop.outcome import load_study
from bimix_tune.planning import open_corpus

NAMES = ("web", "code", "books")
RUN = """
space: {domains: [{name: web, prior: 3}, {name: code, prior: 1}, {name: books, prior: 1}]}
trainer: {type: synthetic, domains: [web, code, books], tokens: 10k, sleep: %s}
search: {trials: 8, confirm_seeds: 1}
executor: {type: local}
"""


def write_run(tmp_path, sleep=0):
    path = tmp_path / "run.yaml"
    path.write_text(RUN % sleep)
    return path


def write_runs(path):
    rng = np.random.default_rng(0)
    curves = []
    for i in range(8):
        r = rng.dirichlet(np.ones(3))
        losses = (0.02 + r) ** -np.array([0.1, 0.3, 0.2]) * 2
        curves.append(LossCurve(Mixture(NAMES, r), [1000], [losses], run=str(i)))
    write_curves(path, curves)


def test_a_search_from_a_run_file_to_the_report(cli, tmp_path):
    code, out, err = cli("search", write_run(tmp_path))
    assert (code, err) == (0, "")
    for part in (
        "Training-free mixtures",
        "run   0",
        "Recommended mixture",
        "Confirmation",
        "law:",
    ):
        assert part in out
    folder = tmp_path / "runs" / "run"
    assert {p.name for p in folder.iterdir()} >= {
        "study.db",
        "curves.jsonl",
        "law.json",
        "result.json",
        "report.html",
    }
    code, out, _ = cli("search", write_run(tmp_path))
    assert code == 0
    assert "continuing: 11 runs are already done" in out
    assert "run   0" not in out

    code, out, _ = cli("status", folder)
    assert code == 0
    assert "complete" in out
    (folder / "report.html").unlink()
    assert cli("report", folder)[0] == 0
    assert (folder / "report.html").exists()
    code, out, _ = cli("fit", folder, "--output", "law.json")
    assert code == 0
    assert "held-out error" in out
    code, out, _ = cli("optimise", "law.json", "--tokens", "10000")
    assert code == 0
    proportions = json.loads(out[out.rindex("{") :])
    assert sum(proportions.values()) == pytest.approx(1)


def test_fit_and_optimise_work_on_foreign_runs(cli, tmp_path):
    write_runs(tmp_path / "runs.jsonl")
    code, out, _ = cli("fit", "runs.jsonl", "--law", "bimix")
    assert code == 0
    assert "bimix law from 8 runs" in out
    code, _, err = cli("fit", "runs.jsonl", "--scale", "1B")
    assert code == 1
    assert "no run of scale '1B'" in err
    (tmp_path / "space.yaml").write_text(
        "domains: [{name: web, low: 0.5, tokens: 900}, {name: code, tokens: 300}, "
        "{name: books, tokens: 300}]"
    )
    args = ("optimise", "runs.jsonl", "--tokens", "1000", "--space", "space.yaml")
    assert cli(*args[:3], "1k", *args[4:], "--max-epochs", "1")[0] == 0
    code, out, _ = cli(*args, "--max-epochs", "1")
    assert code == 0
    proportions = json.loads(out[out.rindex("{") :])
    assert proportions["web"] >= 0.5
    assert proportions["code"] <= 0.3 + 1e-9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("search", "nothing.yaml"), "no run file 'nothing.yaml'"),
        (("status", "nowhere"), "no search in nowhere"),
        (("report", "nowhere"), "no search in nowhere"),
        (("fit", "nothing.csv"), "no such file or folder: nothing.csv"),
        (("optimise", "nothing.json", "--tokens", "5"), "no law 'nothing.json'"),
        (("fit", "empty.jsonl"), "empty.jsonl holds no runs"),
        (("fit", "binary.jsonl"), "binary.jsonl is not text"),
        (("optimise", "bad.json", "--tokens", "5"), "holds no law"),
        (("optimise", "nothing.json", "--tokens", "many"), "--tokens must be a whole number"),
        (("optimise", "nothing.json", "--tokens", "0"), "--tokens must be >= 1"),
        (("status", "nowhere", "--storage", "nothing://x"), "URL of a database"),
        (("report", "nowhere", "--storage", "nothing://x"), "URL of a database"),
        (("entropy", "nothing.yaml"), "no run file"),
        (("corpus", "nocorpus.yaml"), "no section `corpus`"),
        (("search", "infeasible.yaml"), "lower bounds sum to 1.4"),
        (("search", "key.yaml"), "unknown key 'search.trails'; did you mean 'trials'"),
        (("search", "empty.yaml"), "'a'"),
    ],
)
def test_bad_input_is_one_message_and_no_traceback(cli, tmp_path, args, message):
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    (tmp_path / "nocorpus.yaml").write_text("search: {trials: 3}")
    (tmp_path / "key.yaml").write_text("search: {trails: 3}")
    (tmp_path / "infeasible.yaml").write_text(
        "space: {domains: [{name: a, low: 0.7}, {name: b, low: 0.7}]}\ntrainer: {type: synthetic}"
    )
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("")
    (tmp_path / "empty.yaml").write_text(
        f"corpus: {{domains: {{a: text}}, cache: {tmp_path / 'cache'}}}"
    )
    code, _, err = cli(*args)
    assert code == 1
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_a_search_without_a_result_has_a_status(cli, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "space: {domains: [a, b]}\n"
        "trainer: {type: command, command: ['false', '{mixture}'], tokens: 10,"
        " targets: [a, b]}\n"
        "executor: local\n"
    )
    code, _, err = cli("search", path)
    assert code == 1
    assert "the first 3 runs all failed" in err
    code, out, _ = cli("status", tmp_path / "runs" / "run")
    assert code == 0
    assert "3 fail" in out
    assert "run 0 failed: " in out
    assert "nothing to recommend" in out


def test_every_command_explains_itself_with_an_example(cli):
    code, out, _ = cli("--help")
    assert code == 0
    for name in ("search", "status", "report", "fit", "optimise", "explain", "entropy", "corpus"):
        assert name in out
        code, text, _ = cli(name, "--help")
        assert code == 0
        assert f"bimix-tune {name}" in text.replace("Usage: bimix-tune", "")


def test_names_and_causes_are_text_not_markup(cli, tmp_path):
    names = ["[/code]", "[red]x", ":books:"]
    listed = ", ".join(f'"{name}"' for name in names)
    run = tmp_path / "[red] run.yaml"
    run.write_text(
        f"space: {{domains: [{listed}]}}\n"
        f"trainer: {{type: synthetic, domains: [{listed}], tokens: 10k}}\n"
        "search: {trials: 3, confirm_seeds: 1}\nexecutor: local\n"
    )
    for args in (("search", run), ("status", "runs/[red] run"), ("fit", "runs/[red] run")):
        code, out, err = cli(*args)
        assert (code, err) == (0, "")
        assert all(name in out for name in names)
    code, _, err = cli("search", "[/nothing].yaml")
    assert (code, err.strip()) == (
        1,
        "error: no run file '[/nothing].yaml': No such file or directory",
    )


def test_the_cause_of_a_failed_run_is_text_not_markup(cli, tmp_path):
    (tmp_path / "run.yaml").write_text(
        "space: {domains: [web, code]}\n"
        "trainer: {type: command, tokens: 5, targets: [web, code], "
        "command: ['/[/no/such]', '{mixture}']}\n"
        "search: {trials: 2, confirm_seeds: 0}\nexecutor: local\n"
    )
    code, out, err = cli("search", "run.yaml")
    assert code == 1
    assert "Traceback" not in err
    assert "'/[/no/such]' cannot start" in out + err


def test_entropies_are_computed_once(cli, tmp_path, monkeypatch):
    for name, word in (("fruit", "apple"), ("tools", "saw")):
        (tmp_path / name).mkdir()
        for i in range(30):
            (tmp_path / name / f"{i}.txt").write_text(" ".join(f"{word}{i * j}" for j in range(90)))
    (tmp_path / "run.yaml").write_text(
        "corpus: {domains: {fruit: fruit, tools: tools}, tokenizer: 300, cache: cache}"
    )
    measured = []
    for kind, measure in list(entropy._MEASURES.items()):

        def counted(*args, kind=kind, measure=measure):
            measured.append(kind)
            return measure(*args)

        monkeypatch.setitem(entropy._MEASURES, kind, counted)
    code, out, _ = cli("entropy", "run.yaml")
    assert code == 0
    assert measured == list(entropy.KINDS)
    corpus = open_corpus(load_config("run.yaml").corpus, tmp_path, lambda message: None)
    share = entropy.entropy_mixture(corpus, "JE")["fruit"]
    assert f"{share:.1%}" in out.partition("Training-free mixtures")[2]


def start(tmp_path, run):
    script = "import sys; sys.argv[0] = 'bimix-tune'; from bimix_tune.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", script, "search", str(run)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(database, runs):
    """Until so many runs have ended, read without touching the study."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        time.sleep(0.1)
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection,
        ):
            query = "select count(*) from trials where state in ('COMPLETE', 'PRUNED')"
            if connection.execute(query).fetchone()[0] >= runs:
                return
    raise AssertionError("the search did not get going")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_search_keeps_what_it_has_and_continues(cli, tmp_path, signum):
    run = write_run(tmp_path, sleep=0.1)
    child = start(tmp_path, run)
    folder = tmp_path / "runs" / "run"
    try:
        wait_for(folder / "study.db", 2)
        os.kill(child.pid, signum)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    if signum != signal.SIGKILL:
        assert child.returncode == 130
        assert "the same command continues" in err
        assert "Traceback" not in err
    study, _ = load_study(folder)
    done = {t.number for t in study.trials if t.state.name in ("COMPLETE", "PRUNED")}
    assert cli("search", run)[0] == 0
    study, _ = load_study(folder)
    states = [t.state.name for t in study.trials]
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}
    assert all(study.trials[n].state.name in ("COMPLETE", "PRUNED") for n in done)
    assert states.count("FAIL") <= 1
    assert len(read_curves(folder)) == states.count("COMPLETE") + states.count("PRUNED")
