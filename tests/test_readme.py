"""The run files in the README, on small texts in place of the user's."""

import re
from pathlib import Path

import pytest

from bimix_tune.config import load_config, prepare

datasets = pytest.importorskip("datasets")
zstandard = pytest.importorskip("zstandard")
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
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
