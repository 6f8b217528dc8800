"""What a search must never do: run what it reads, show a secret, open a port, leave its folder."""

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bimix_tune
from bimix_tune.config import check_storage, load_config
from bimix_tune.errors import ConfigError
from bimix_tune.masking import expanded, masked

PACKAGE = Path(bimix_tune.__file__).parent
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
UNSAFE_CALLS = {
    "torch.load",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "eval",
    "exec",
    "os.system",
}
UNSAFE_KEYWORDS = {("allow_pickle", True), ("shell", True), ("weights_only", False)}
UNSAFE_KEYWORDS |= {("trust_remote_code", True)}


def unsafe(source):
    """Lines of Python that could run what they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
        bad = any(n.split(".")[0] in UNSAFE_MODULES or n in UNSAFE_CALLS for n in names)
        if isinstance(node, ast.Call):
            bad = ast.unparse(node.func) in UNSAFE_CALLS
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            bad = (node.arg, node.value.value) in UNSAFE_KEYWORDS
        if bad:
            found.append(node.lineno if hasattr(node, "lineno") else 0)
    return found


def test_nothing_that_is_read_can_run():
    found = {p.name: unsafe(p.read_text(encoding="utf-8")) for p in PACKAGE.rglob("*.py")}
    assert len(found) > 100
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "from yaml import full_load",
        "torch.load(path)",
        "yaml.load(text, Loader)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "eval(text)",
    ],
)
def test_the_search_for_unsafe_lines_finds_them(line):
    assert unsafe(line) == [1]
    assert unsafe("np.load(path)\nyaml.safe_load(text)\nimport json") == []


word = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P", "S"], exclude_characters="@"),
    min_size=1,
)


@given(word, st.sampled_from(["", " and so on", "\nnext line", "/db?x=1", '", "k": 1']))
def test_no_password_of_a_url_is_shown(password, rest):
    shown = masked(f"cannot open postgresql+psycopg://me:{password}@host{rest}")
    assert shown == f"cannot open postgresql+psycopg://me:***@host{rest}"


def test_text_without_a_password_is_left_alone():
    for text in (
        "sqlite:////a/study.db",
        "http://127.0.0.1:8265 at 12:30, me@host",
        "postgresql://me@host:5432/db",
        "tokens=5 token=6",
    ):
        assert masked(text) == text


def test_a_storage_may_be_in_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("BIMIX_STORAGE", "sqlite:///a.db")
    monkeypatch.setenv("NAME", "b")
    assert check_storage("$BIMIX_STORAGE") == "sqlite:///a.db"
    assert check_storage("sqlite:///${NAME}.db") == "sqlite:///b.db"
    assert expanded("storage", "no reference: 100%") == "no reference: 100%"
    with pytest.raises(ConfigError, match="storage names the environment variable 'ABSENT'"):
        check_storage("sqlite:///$ABSENT")
    path = tmp_path / "run.yaml"
    path.write_text("storage: $BIMIX_STORAGE\n")
    assert load_config(path).storage == "sqlite:///a.db"
    monkeypatch.setenv("BIMIX_STORAGE", "postgresql+psycopg://me:hunter2@host/db")
    assert "hunter2" not in repr(load_config(path))
    path.write_text("storage: nothing://me:hunter2@host/db\n")
    with pytest.raises(ConfigError, match="storage is the URL") as caught:
        load_config(path)
    assert "hunter2" not in str(caught.value)


def run_cli(arguments, folder, prelude="pass", **environment):
    code = f"import os; {prelude}; from bimix_tune.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_database_that_cannot_be_reached_does_not_show_its_password(tmp_path):
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://me:hunter2@127.0.0.1:1/db"
    (tmp_path / "runs").mkdir()
    done = run_cli(["status", "runs", "--storage", "$DB"], tmp_path, DB=url)
    assert done.returncode == 1
    assert "cannot be opened" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


HOSTILE = "../../<script>alert(1)</script>"


def test_hostile_names_stay_text_and_files_stay_in_the_run_folder(tmp_path):
    pytest.importorskip("plotly")
    work = tmp_path / "a" / "b" / "c"
    work.mkdir(parents=True)
    (work / "program.py").write_text(
        "import json, sys\n"
        "mixture = json.load(open(sys.argv[1]))\n"
        "print('</script><script>alert(2)</script>')\n"
        "for tokens in (500, 1000):\n"
        "    losses = {name: 1 + r + 100 / tokens for name, r in mixture.items()}\n"
        "    print(json.dumps({'tokens': tokens, 'losses': losses}))\n"
    )
    (work / "run.yaml").write_text(
        f"space: {{domains: [{{name: web}}, {{name: '{HOSTILE}'}}]}}\n"
        f"trainer: {{type: command, command: [{sys.executable}, program.py, '{{mixture}}'],"
        f" tokens: 1000, targets: [web, '{HOSTILE}']}}\n"
        "search: {trials: 4, confirm_seeds: 1}\nexecutor: local\ntrack: [tensorboard]\n"
    )
    before = set(tmp_path.rglob("*"))
    done = run_cli(["search", "run.yaml"], work, "os.umask(0)")
    assert done.returncode == 0, done.stderr
    new = set(tmp_path.rglob("*")) - before
    assert all(p == work / "runs" or work / "runs" in p.parents for p in new)
    assert "alert(2)" in (work / "runs/run/logs/run-0000.log").read_text()
    page = (work / "runs/run/report.html").read_text(encoding="utf-8")
    assert "alert(1)" in page
    assert "<script>alert" not in page and "</script>alert" not in page
    # Whatever the umask, not everybody may change what a search has written.
    assert [p for p in new if p.stat().st_mode & stat.S_IWOTH] == []
