"""Every example runs as a user would run it: in a process and a folder of its own."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
NEEDS = {
    "01_first_search.py": ("plotly",),
    "04_entropy_mixtures.py": ("tokenizers",),
    "06_on_a_ray_cluster.py": ("ray",),
    "07_ray_tune.py": ("ray", "pandas", "pyarrow"),
}
"""Optional libraries without which a script cannot show what it is about."""
LEAVES = {
    "01_first_search.py": ("runs/first_search/report.html", "runs/first_search/result.json"),
    "03_law_from_finished_runs.py": ("finished_runs.csv",),
    "05_own_trainer.py": ("runs/own_trainer/law.json",),
    "06_on_a_ray_cluster.py": ("runs/on_ray/result.json",),
}
"""Files that a script says it writes."""


def run_python(arguments: list[str], folder: Path) -> str:
    """What a fresh interpreter prints, warnings being errors."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script(script: Path, tmp_path: Path) -> None:
    for library in NEEDS.get(script.name, ()):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}")
    shown = run_python([str(script)], tmp_path)
    assert shown.strip() and "skipped" not in shown
    assert "nan" not in shown.lower().split()
    for name in LEAVES.get(script.name, ()):
        assert (tmp_path / name).stat().st_size > 0


def test_own_program(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    (tmp_path / "examples").mkdir()
    for name in ("own_program.py", "own_program.yaml"):
        shutil.copy(ROOT / "examples" / name, tmp_path / "examples")
    command = "from bimix_tune.cli import main; main()"
    shown = run_python(["-c", command, "search", "examples/own_program.yaml"], tmp_path)
    assert "Recommended mixture" in shown
    assert (tmp_path / "runs/own_program/report.html").stat().st_size > 0


def test_every_example_is_listed() -> None:
    index = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    names = {p.name for p in (ROOT / "examples").iterdir() if p.suffix in (".py", ".yaml")}
    assert SCRIPTS and {n for n in names if f"[{n}]({n})" not in index} == set()
