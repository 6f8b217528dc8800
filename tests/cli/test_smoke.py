"""The smoke example from the command line: real text, real proxies, Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]


def test_the_smoke_search_trains_real_proxies_on_ray(tmp_path):
    script = "import sys; sys.argv[0] = 'bimix-tune'; from bimix_tune.cli import main; main()"
    run = ROOT / "examples" / "smoke.yaml"
    done = subprocess.run(
        [sys.executable, "-c", script, "search", str(run), "--folder", "smoke"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Recommended mixture" in done.stdout
    result = json.loads((tmp_path / "smoke" / "result.json").read_text())
    assert sum(result["recommendation"].values()) == pytest.approx(1)
    states = {r["state"] for r in result["runs"]}
    assert states <= {"COMPLETE", "PRUNED"}
    assert len(result["confirmation"]["comparisons"]) == 1
    assert (tmp_path / "smoke" / "report.html").stat().st_size > 1e6
