"""The recipes for clusters: what they call exists, and what can run here runs."""

import importlib.metadata
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import typer
import yaml

from bimix_tune.cli.app import app
from bimix_tune.config import load_config
from bimix_tune.executors import EXECUTORS
from bimix_tune.planning import make_executor, prepare

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "examples" / "cluster"
SCRIPTS = [RECIPES / "two_nodes.sh", RECIPES / "slurm.sbatch"]
SBATCH = {
    "--job-name",
    "--nodes",
    "--ntasks-per-node",
    "--cpus-per-task",
    "--gpus-per-task",
    "--exclusive",
    "--time",
    "--signal",
}
"""Options of sbatch, by its manual page."""


def commands(text):
    """All words of each command line of a script that starts with a program of ours."""
    text = re.sub(r"^\s*#.*$", "", re.sub(r"\\\n", " ", text), flags=re.MULTILINE)
    for part in re.split(r"\n|&&|[;|&()]| -- ", text):
        words = re.match(r"\s*(?:until |srun (?:-\S+ +)*)?((?:ray|bimix-tune) [^>#]*)", part)
        if words:
            yield shlex.split(words[1])


def options(words):
    return {w.split("=")[0] for w in words if w.startswith("--")}


def known_options(command):
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)}


def check(words):
    """That a command of Ray or of ours exists, with these options."""
    if words[0] == "bimix-tune":
        known = known_options(typer.main.get_command(app).commands[words[1]])
    else:
        scripts = pytest.importorskip("ray.scripts.scripts")
        known = known_options(scripts.cli.commands[words[1]])
        if words[1] == "symmetric-run":  # the rest goes to `ray start`
            known |= known_options(scripts.cli.commands["start"])
            known -= {"--head", "--node-ip-address", "--port", "--block"}
    assert options(words) <= known, words


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_call_commands_that_exist(script):
    text = script.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", script], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, script], check=True)
    called = list(commands(text))
    assert {"start", "search"} <= {w[1] for w in called} | (
        {"start"} if "symmetric-run" in text else set()
    )
    for words in called:
        check(words)
    directives = re.findall(r"^#SBATCH (\S+?)(?:=\S+)?$", text, re.MULTILINE)
    assert set(directives) <= SBATCH
    assert "ray stop" not in re.sub("#.*", "", text)


def test_options_that_do_not_exist_are_found():
    with pytest.raises(AssertionError, match="--adress"):
        check(["bimix-tune", "search", "--adress", "x"])
    pytest.importorskip("ray")
    with pytest.raises(AssertionError, match="--block"):
        check(["ray", "symmetric-run", "--block"])
    assert list(commands('(umask 077 && ray start --head \\\n --x="$y" > /dev/null &)')) == [
        ["ray", "start", "--head", "--x=$y"]
    ]


def test_the_run_file_runs_without_any_cluster(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(RECIPES / "search.yaml")
    plan = prepare(config, RECIPES / "search.yaml", print)
    assert plan.trainer.tokens == 1_000_000
    local = load_config(RECIPES / "search.yaml", {"executor": "local"})
    with make_executor(local, plan.trainer) as executor:
        assert executor.slots == 1
    assert set(EXECUTORS) >= {"local", "ray"}


FAKES = {
    "scontrol": 'echo "node7"; sleep 0.3; echo "node8"',  # who stops reading early ends it
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": 'echo "ray $*" >> "$CALLS"; echo "mode $RAY_AUTH_MODE" >> "$CALLS"; echo secret-token\n'
    'while [[ $# -gt 0 && $1 != -- ]]; do shift; done; [[ $# -gt 0 ]] && shift && exec "$@"\ntrue',
    "bimix-tune": 'trap "echo stopped >> $CALLS; exit 5" TERM; echo "bimix-tune $*" >> "$CALLS"\n'
    'for _ in $(seq "$SECONDS_TO_RUN"); do sleep 1; done',
}


def slurm(folder, seconds):
    """The batch script on a stand-in for Slurm and Ray, which notes what is called."""
    for name, body in FAKES.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(folder / "calls"),
        "SECONDS_TO_RUN": str(seconds),
        "SLURM_JOB_ID": "40123",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "8",
    }
    return subprocess.Popen(
        ["bash", RECIPES / "slurm.sbatch", "my run.yaml"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_batch_script_starts_the_search_on_all_nodes(tmp_path):
    batch = slurm(tmp_path, 0)
    said, _ = batch.communicate(timeout=60)
    assert batch.returncode == 0, said
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "ray get-auth-token --generate"
    assert calls[2] == (
        "ray symmetric-run --address node7:20123 --min-nodes 2 --num-cpus=8 "
        "--include-dashboard=false -- bimix-tune search my run.yaml --address node7:20123"
    )
    assert calls[3] == "mode token"
    assert calls[4] == "bimix-tune search my run.yaml --address node7:20123"
    assert said.count("secret-token") == 1  # the fake of `ray symmetric-run`; not the generator


def test_the_batch_script_stops_the_search_before_the_time_is_up(tmp_path):
    batch = slurm(tmp_path, 60)
    calls = tmp_path / "calls"
    limit = time.monotonic() + 60
    while not calls.exists() or "\nbimix-tune" not in calls.read_text():
        assert batch.poll() is None and time.monotonic() < limit, batch.communicate()[0]
        time.sleep(0.1)
    batch.send_signal(signal.SIGTERM)
    said, _ = batch.communicate(timeout=60)
    assert calls.read_text().splitlines()[-1] == "stopped", said


def free_port():
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


def test_two_nodes_with_a_token(tmp_path):
    """The whole recipe, with real nodes; nothing of it is left running, and no token is shown."""
    pytest.importorskip("ray")
    if sys.platform != "linux" or shutil.which("hostname") is None:
        pytest.skip("needs `hostname -I`")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, code in {
        "bimix-tune": "from bimix_tune.cli import main; main()",
        "ray": "import sys; from ray.scripts.scripts import main; sys.exit(main())",
    }.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
        (programs / name).chmod(0o755)
    run = (RECIPES / "search.yaml").read_text().replace("trials: 12", "trials: 4")
    (tmp_path / "search.yaml").write_text(run.replace("confirm_seeds: 1", "confirm_seeds: 0"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as short:  # paths of sockets
        done = subprocess.run(
            ["bash", RECIPES / "two_nodes.sh", "search.yaml"],
            cwd=tmp_path,
            env={
                **kept,
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "HOME": str(tmp_path),
                "HEAD_PORT": str(free_port()),
                "RAY_TMPDIR": short,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
        )
        left = subprocess.run(["pgrep", "-f", short], capture_output=True, text=True).stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 proxies at once" in done.stdout
    assert "Recommended mixture" in done.stdout
    assert "note: anyone who reaches" not in done.stdout  # it has a token
    assert left == ""
    token = tmp_path / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o077 == 0
    shown = done.stdout + done.stderr
    shown += "".join(p.read_text(errors="replace") for p in (tmp_path / "runs").rglob("*.jsonl"))
    assert token.read_text().strip() not in shown


def closed(required=(), **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT, FLAG, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITY = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|[KMGT]i?)?$"}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
CONTAINER = closed(
    ["name", "image"],
    name=TEXT,
    image=TEXT,
    env={
        "type": "array",
        "items": closed(["name", "value"], name=TEXT, value=TEXT),
    },
    ports={"type": "array", "items": closed(["containerPort"], name=TEXT, containerPort=COUNT)},
    resources=closed(requests=QUANTITIES, limits=QUANTITIES),
    securityContext=closed(
        allowPrivilegeEscalation=FLAG,
        runAsNonRoot=FLAG,
        capabilities=closed(drop={"type": "array", "items": TEXT}),
    ),
    volumeMounts={
        "type": "array",
        "items": closed(["name", "mountPath"], name=TEXT, mountPath=TEXT, readOnly=FLAG),
    },
)
POD = closed(
    ["spec"],
    spec=closed(
        ["containers"],
        containers={"type": "array", "items": CONTAINER, "minItems": 1},
        securityContext=closed(fsGroup=COUNT),
        volumes={
            "type": "array",
            "items": closed(
                ["name"],
                name=TEXT,
                persistentVolumeClaim=closed(["claimName"], claimName=TEXT),
                configMap=closed(name=TEXT),
            ),
        },
    ),
)
WORKERS = closed(
    ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=TEXTS,
    template=POD,
)
CLUSTER = closed(
    ["headGroupSpec"],
    rayVersion=TEXT,
    authOptions=closed(["mode"], mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling=FLAG,
    headGroupSpec=closed(["rayStartParams", "template"], rayStartParams=TEXTS, template=POD),
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
RAY_JOB = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=closed(["name"], name={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"}),
    spec=closed(
        entrypoint=TEXT,
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        backoffLimit=COUNT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        rayClusterSpec=CLUSTER,
    ),
)
"""What a RayJob may have, as far as the recipe uses it, after KubeRay's generated reference of its
types (docs/reference/api.md, 1.6.2), its checks of names (ray-operator/controllers/ray/utils/
validation.go) and the types of Kubernetes; a misspelt key or a wrong type is refused."""


def ray_job():
    claim, job = yaml.safe_load_all((RECIPES / "kuberay.yaml").read_text(encoding="utf-8"))
    assert claim["kind"] == "PersistentVolumeClaim"
    return claim, job


def test_the_kuberay_job_is_of_its_schema():
    jsonschema = pytest.importorskip("jsonschema")
    _, job = ray_job()
    jsonschema.validate(job, RAY_JOB)
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(job, RAY_JOB)


def test_the_kuberay_job_fits_together():
    claim, job = ray_job()
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    check(shlex.split(spec["entrypoint"]))
    assert spec["shutdownAfterJobFinishes"]  # a time to live is refused without it
    head = cluster["headGroupSpec"]["template"]["spec"]
    volumes = {v["name"]: v for v in head["volumes"]}
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    mounts = {m["mountPath"]: m["name"] for m in head["containers"][0]["volumeMounts"]}
    assert set(mounts.values()) == set(volumes)
    words = shlex.split(spec["entrypoint"])
    for path in (words[2], words[words.index("--folder") + 1]):
        assert any(path.startswith(f"{mount}/") for mount in mounts)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [c for g in groups for c in g["template"]["spec"]["containers"]]
    for container in containers:
        env = {e["name"]: e for e in container["env"]}
        assert env["RAY_USAGE_STATS_ENABLED"]["value"] == "0"
        assert not any("TOKEN" in name for name in env)  # the operator's, from a Secret
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert len({c["image"] for c in containers}) == 1
    assert cluster["authOptions"] == {"mode": "token"}
    try:
        installed = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return
    assert cluster["rayVersion"] == installed
    scripts = pytest.importorskip("ray.scripts.scripts")
    for group in groups:
        given = {f"--{name}" for name in group["rayStartParams"]}
        assert given <= known_options(scripts.cli.commands["start"])


def test_every_recipe_is_listed():
    index = (RECIPES.parent / "README.md").read_text(encoding="utf-8")
    names = {p.name for p in RECIPES.iterdir()}
    assert len(names) == 4
    assert {n for n in names if f"[cluster/{n}](cluster/{n})" not in index} == set()
