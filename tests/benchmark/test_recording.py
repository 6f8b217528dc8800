"""Recording a swarm, which is a data set afterwards."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from bimix_tune.benchmark import load_data
from bimix_tune.benchmark.problems import problems
from bimix_tune.benchmark.recording import record_swarm, swarm_design
from bimix_tune.cli.app import app
from bimix_tune.errors import ConfigError, ExecutorError
from bimix_tune.executors.local import LocalExecutor
from bimix_tune.space import Domain, SearchSpace
from bimix_tune.training.synthetic import SyntheticTrainer

SPACE = SearchSpace([Domain("a", tokens=30), Domain("b", tokens=20), Domain("c", tokens=50)])
TRAINER = SyntheticTrainer(domains=SPACE.names, checkpoints=3)


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(app, ["benchmark", *map(str, args)])


def test_a_design_is_natural_uniform_then_sparse_and_dense():
    design = swarm_design(SPACE, 40)
    assert len(set(design)) == 40
    assert design[:2] == [SPACE.natural(), SPACE.uniform()]
    absent = (SPACE.matrix(design) == 0).sum(axis=1)
    assert 15 <= (absent > 0).sum() <= 20
    assert swarm_design(SPACE, 10) == design[:10]
    bounded = SearchSpace([Domain("a", low=0.1, high=0.4), "b", "c"])
    assert all(bounded.violation(m) is None for m in swarm_design(bounded, 30))


def test_a_stopped_recording_goes_on_where_it_was(tmp_path):
    path, heard = tmp_path / "curves.jsonl", []
    plan = {"mixtures": 6, "repeated": 2, "seeds": 2, "scale": "1M"}
    with LocalExecutor(TRAINER) as executor:
        whole = record_swarm(SPACE, TRAINER, executor, path, **plan)
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == len(whole) == 8
    path.write_text("".join(lines[:5]) + lines[5][:40])
    with LocalExecutor(TRAINER) as executor:
        again = record_swarm(
            SPACE, TRAINER, executor, path, **plan, monitor=lambda *n: heard.append(n)
        )
    assert [c.to_json() for c in again] == [c.to_json() for c in whole]
    assert heard[-1] == (8, 8)
    assert len(heard) == 3


@pytest.mark.parametrize("wrong", [{"mixtures": 1}, {"repeated": 200}, {"seeds": 0}])
def test_numbers_out_of_range_are_refused(wrong, tmp_path):
    with pytest.raises(ConfigError, match="a swarm needs mixtures >= 2"):
        record_swarm(SPACE, TRAINER, LocalExecutor(TRAINER), tmp_path / "x.jsonl", **wrong)


def test_a_failed_run_is_named(tmp_path):
    wrong = SyntheticTrainer(domains=("a", "b"))
    with LocalExecutor(wrong) as executor, pytest.raises(ExecutorError, match=r"run 0000-0 failed"):
        record_swarm(SPACE, wrong, executor, tmp_path / "x.jsonl", mixtures=2, repeated=0)


def test_the_command_writes_a_data_set(run, tmp_path):
    space = SPACE.to_dict() | {
        "targets": [{"name": n, "domain": n} for n in "ab"] + [{"name": "c"}]
    }
    trainer = {"type": "synthetic", "domains": ["a", "b", "c"], "checkpoints": 3}
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps({"space": space, "trainer": trainer, "executor": {"type": "local"}}))
    said = run("record", file, "--mixtures", "24", "--repeated", "2", "--seeds", "2")
    assert said.exit_code == 0, said.output
    folder = tmp_path / "runs" / "tiny" / "swarm"
    assert "swarm: runs/tiny/swarm" in said.output
    ((swarm,),) = (d.swarms for d in load_data(folder))
    assert swarm.space == SearchSpace.from_dict(space)
    assert len(swarm.curves) == 26
    assert {"natural", "uniform"} <= set(swarm.known)
    (pool,) = problems(["swarm-ood"], load_data(folder))
    assert len(pool.candidates) == 24
    assert pool.space.weights.tolist() == [0, 0, 1]
    np.testing.assert_allclose(pool.best, swarm.final[:, 2].min(), rtol=0.01)
