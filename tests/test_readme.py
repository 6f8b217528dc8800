"""The run files and the code about laws in the README, on small data in place of the user's."""

import re
from pathlib import Path

import numpy as np
import pytest

from bimix_tune import LossCurve, Mixture, write_curves
from bimix_tune.config import load_config
from bimix_tune.laws import LAWS
from bimix_tune.planning import prepare

datasets = pytest.importorskip("datasets")
zstandard = pytest.importorskip("zstandard")
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def documents(stem):
    """Enough text for the longest sequences."""
    return [" ".join(f"{stem}{i * j % 97}" for j in range(150)) for i in range(1, 100)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the texts that the README names, and a cache of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "web").mkdir(parents=True)
    (tmp_path / "data" / "code").mkdir()
    lines = "".join(f'{{"text": "{text}"}}\n' for text in documents("web"))
    packed = zstandard.ZstdCompressor().compress(lines.encode())
    (tmp_path / "data" / "web" / "0.jsonl.zst").write_bytes(packed)
    for i, text in enumerate(documents("code")):
        (tmp_path / "data" / "code" / f"{i}.py").write_text(text)
    papers = datasets.Dataset.from_dict({"text": documents("papers")})
    papers.save_to_disk(str(tmp_path / "org" / "papers"))
    return tmp_path


def test_there_is_a_run_file():
    assert any("corpus:" in block for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS)
def test_run_files_prepare_a_search(block, folder):
    path = folder / "run.yaml"
    path.write_text(block)
    config = load_config(path)
    plan = prepare(config, path, lambda message: None)
    assert plan.corpus is not None
    assert plan.space.names == plan.corpus.names
    assert plan.trainer.steps().count > 1
    for domain in plan.space.domains:  # the caps are by the full data, not by the sample
        assert domain.tokens > 1000 * plan.corpus.count(domain.name)
    assert all(plan.space.violation(mixture) is None for mixture in plan.baselines.values())


def test_the_code_about_laws_runs_on_finished_runs(tmp_path, monkeypatch, capsys):
    code = next(block for block in PYTHON if "explain(" in block)
    monkeypatch.chdir(tmp_path)
    names, rng = ("web", "code", "math"), np.random.default_rng(0)
    runs = []
    for i, r in enumerate(rng.dirichlet(np.ones(3), size=8)):
        losses = [(0.02 + r) ** -0.2 * (2 + 30 * s**-0.5) for s in (1e6, 1e7)]
        runs.append(LossCurve(Mixture(names, r), [1e6, 1e7], losses, run=str(i)))
    write_curves(tmp_path / "runs.jsonl", runs)
    values = {}
    exec(code, values)
    assert values["mixture"]["code"] + values["mixture"]["math"] <= 0.3 + 1e-9
    assert values["found"].effects.shape == (3, 3)
    assert "auto law from 8 runs" in capsys.readouterr().out


def test_the_table_of_laws_is_complete():
    section = README.partition("## Laws")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(LAWS)
