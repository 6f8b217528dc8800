"""Trackers against their libraries where those are installed, else against what these declare."""

import importlib.util
import sys
import types
from pathlib import Path

import pytest

from bimix_tune import Mixture
from bimix_tune.errors import ConfigError, MissingExtraError
from bimix_tune.observing import RunAsked, RunCheckpoint, RunEnded, RunOutput, RunStarted
from bimix_tune.tracking import TRACKERS, check_trackers, make_trackers

MIXTURE = Mixture(["web", "c++ <code>"], [0.25, 0.75])
EVENTS = [
    RunAsked(0, "baseline", "natural", MIXTURE, 3),
    RunAsked(1, "proposal", "", MIXTURE, 3),
    RunStarted(0, "host/1"),
    RunOutput(0, "hello"),
    RunCheckpoint(0, 100, {"web": 2.0, "c++ <code>": 3.0}, 2.5),
    RunCheckpoint(1, 100, {"web": 2.5, "c++ <code>": 3.5}, 3.0),
    RunCheckpoint(0, 200, {"web": 1.0, "c++ <code>": 2.0}, 1.5),
    RunEnded(0, "COMPLETE", 200, 1.5, 1.0),
    RunEnded(1, "FAIL", 100, 3.0, 1.0, "Error: no luck"),
]


def track(name, folder, **options):
    (tracker,) = make_trackers({name: options}, folder)
    for event in EVENTS:
        tracker(event)
    tracker.close()


def test_unknown_trackers_and_options_are_refused_with_a_hint():
    for wanted, message in (
        (["tensorbord"], "did you mean 'tensorboard'"),
        ({"mlflow": {"experimnt": "x"}}, "did you mean 'experiment'"),
        ({"mlflow": {"experiment": [1]}}, "track.mlflow.experiment must be"),
        ({"mlflow": "x"}, "takes options by name"),
        (5, "a list or a mapping"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_trackers(wanted)
    assert check_trackers("wandb") == check_trackers(["wandb"]) == {"wandb": {}}
    assert check_trackers({"mlflow": None}) == {"mlflow": {}}


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_a_missing_library_names_the_extra(name, tmp_path, monkeypatch):
    library = {"tensorboard": "tensorboardX"}.get(name, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bimix-tune\[tracking\]'"):
        make_trackers([name], tmp_path)


def test_tensorboard_files_have_the_losses_over_tokens(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter  # noqa: F401 - the format read below

    track("tensorboard", tmp_path)
    (path,) = (tmp_path / "tensorboard" / "run-0000").iterdir()
    data, scalars = path.read_bytes(), {}
    while data:  # a record: length, its checksum, event, its checksum
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert scalars["loss/web"] == [(100, 2.0), (200, 1.0)]
    assert scalars["objective"] == [(100, 2.5), (200, 1.5)]
    assert scalars["mixture/web"] == [(0, 0.25)]
    assert {p.name for p in (tmp_path / "tensorboard").iterdir()} == {"run-0000", "run-0001"}


class Calls(list):
    """Records calls of methods that a library has, with the arguments that it takes."""

    def of(self, kind, **methods):
        def method(name, parameters, answer):
            def call(_, *args, **kwargs):
                assert len(args) <= len(parameters) and set(kwargs) <= set(parameters), (name, args)
                self.append((kind, name, {**dict(zip(parameters, args, strict=False)), **kwargs}))
                return answer

            return call

        made = {name: method(name, *spec) for name, spec in methods.items()}
        return type(kind, (), made)


def fake_mlflow(calls):
    """As mlflow 3.17 declares ``MlflowClient`` and ``entities``."""
    run = types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))
    client = calls.of(
        "client",
        __init__=(("tracking_uri", "registry_uri"), None),
        get_experiment_by_name=(("name",), None),
        create_experiment=(("name", "artifact_location", "tags"), "7"),
        create_run=(("experiment_id", "start_time", "tags", "run_name"), run),
        log_batch=(("run_id", "metrics", "params", "tags", "synchronous"), None),
        set_tag=(("run_id", "key", "value", "synchronous"), None),
        set_terminated=(("run_id", "status", "end_time"), None),
    )

    def metric(key, value, timestamp, step, model_id=None, dataset_name=None):
        return (key, value, step)

    entities = types.SimpleNamespace(Metric=metric, Param=lambda key, value: (key, value))
    module = types.ModuleType("mlflow")
    module.MlflowClient, module.entities = client, entities
    return module


def test_mlflow_gets_a_run_per_training(tmp_path, monkeypatch):
    calls = Calls()
    monkeypatch.setitem(sys.modules, "mlflow", fake_mlflow(calls))
    track("mlflow", tmp_path / "my-search", tracking_uri="http://localhost:1")
    made = [(name, args) for _, name, args in calls]
    assert made[0] == ("__init__", {"tracking_uri": "http://localhost:1"})
    assert ("create_experiment", {"name": "my-search"}) in made
    assert [name for name, _ in made].count("create_experiment") == 1
    params = made[4][1]["params"]
    assert ("mixture/c__ _code_", "0.75") in params and ("seed", "3") in params
    metrics = [m for name, args in made if name == "log_batch" for m in args.get("metrics", ())]
    assert ("loss/web", 1.0, 200) in metrics and ("objective", 3.0, 100) in metrics
    ends = [args["status"] for name, args in made if name == "set_terminated"]
    assert ends == ["FINISHED", "FAILED"]
    assert ("set_tag", {"run_id": "abc", "key": "cause", "value": "Error: no luck"}) in made


def fake_wandb(calls):
    """As wandb 0.31 declares ``init`` and ``Run``."""
    kind = calls.of("run", log=(("data", "step", "commit"), None), finish=(("exit_code",), None))

    def init(*, entity, project, dir, mode, group, name, config, reinit):
        assert reinit in ("default", "return_previous", "finish_previous", "create_new")
        calls.append(("module", "init", {"name": name, "config": config, "group": group}))
        run = kind()
        run.summary = {}
        return run

    module = types.ModuleType("wandb")
    module.init = init
    return module


def test_wandb_gets_a_run_per_training(tmp_path, monkeypatch):
    calls = Calls()
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(calls))
    track("wandb", tmp_path / "my-search", project="p")
    config = calls[0][2]["config"]
    assert config == {
        "mixture/web": 0.25,
        "mixture/c++ <code>": 0.75,
        "role": "baseline",
        "label": "natural",
        "seed": 3,
    }
    assert calls[0][2]["group"] == "my-search"
    logged = [args for _, name, args in calls if name == "log"]
    assert logged[0] == {
        "data": {"loss/web": 2.0, "loss/c++ <code>": 3.0, "objective": 2.5},
        "step": 100,
    }
    assert [args for _, name, args in calls if name == "finish"] == [
        {"exit_code": 0},
        {"exit_code": 1},
    ]


@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="needs mlflow")
def test_mlflow_itself(tmp_path):
    uri = (tmp_path / "mlruns.db").as_posix()
    track("mlflow", tmp_path / "my-search", tracking_uri=f"sqlite:///{uri}")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{uri}")
    experiment = client.get_experiment_by_name("my-search")
    runs = client.search_runs([experiment.experiment_id])
    assert {r.info.status for r in runs} == {"FINISHED", "FAILED"}
    (done,) = [r for r in runs if r.info.status == "FINISHED"]
    assert done.data.params["mixture/web"] == "0.25"
    history = client.get_metric_history(done.info.run_id, "loss/web")
    assert [(m.step, m.value) for m in history] == [(100, 2.0), (200, 1.0)]


@pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="needs wandb")
def test_wandb_itself_offline(tmp_path):
    track("wandb", tmp_path, mode="offline")
    assert len(list(Path(tmp_path).glob("wandb/offline-run-*/run-*.wandb"))) == 2
