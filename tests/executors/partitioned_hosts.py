"""Two hosts, imitated by network namespaces joined by a veth pair, and the link goes down.

The second host has a mount namespace too, in which the folder of the corpus is empty.
Needs root. Run with a scratch folder as the only argument.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HEARTBEAT = 10.0
LIMIT = 150.0  # seconds for anything else to happen
ADDRESS = "10.213.77.1", "10.213.77.2"
HOSTS = [f"bimix-{os.getpid()}-{side}" for side in "ab"]
LINKS = [f"bimix{os.getpid() % 100000}{side}" for side in "ab"]


def sh(command: str) -> None:
    subprocess.run(shlex.split(command), check=True)


def make_hosts() -> None:
    for host in HOSTS:
        sh(f"ip netns add {host}")
        sh(f"ip -n {host} link set lo up")
    sh(f"ip link add {LINKS[0]} type veth peer name {LINKS[1]}")
    for host, link, address in zip(HOSTS, LINKS, ADDRESS, strict=True):
        sh(f"ip link set {link} netns {host}")
        sh(f"ip -n {host} addr add {address}/24 dev {link}")
        sh(f"ip -n {host} link set {link} up")


def remove_hosts() -> None:
    for host in HOSTS:
        pids = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True)
        for pid in pids.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", host], check=False)


def write_corpus(folder: Path) -> None:
    folder.mkdir()
    tokens = np.arange(1000, dtype=np.uint16)
    tokens.tofile(folder / "web.train.bin")
    tokens[:50].tofile(folder / "web.valid.bin")
    (folder / "tokenizer.json").write_text("{}")
    facts = {"train": {"tokens": 1000, "bytes": 3000}, "valid": {"tokens": 50, "bytes": 150}}
    description = {"key": "k1", "dtype": "uint16", "end_token": 0, "domains": {"web": facts}}
    (folder / "corpus.json").write_text(json.dumps(description))


def start_ray(folder: Path, corpus: Path, logs: Path) -> list[subprocess.Popen[bytes]]:
    ray = f"{sys.executable} -m ray.scripts.scripts start --num-cpus=1 --num-gpus=0 --block"
    head = f"{ray} --head --node-ip-address={ADDRESS[0]} --port=6399 --include-dashboard=false"
    join = f"{ray} --address={ADDRESS[0]}:6399 --node-ip-address={ADDRESS[1]}"
    hide = f"unshare -m sh -c 'mount -t tmpfs none {corpus} && exec {join}'"
    processes = []
    for host, command in zip(HOSTS, (head, hide), strict=True):
        env = os.environ | {"BIMIX_TUNE_CACHE": str(folder / host)}
        with (logs / f"{host}.log").open("wb") as log:
            words = shlex.split(f"ip netns exec {host} {command}")
            processes.append(subprocess.Popen(words, env=env, stdout=log, stderr=log))
        until(lambda: "Ray runtime started" in (logs / f"{host}.log").read_text(), logs)  # noqa: B023
    return processes


def until(condition, what):  # type: ignore[no-untyped-def]
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def fact(words: str) -> None:
    print("fact:", words, flush=True)  # noqa: T201 - for the test that started this


def main(folder: Path) -> int:
    corpus, processes = folder / "corpus", []
    ray_folder = tempfile.mkdtemp(prefix="ray-")  # a short path, and nobody else's `auto` address
    os.environ |= {"RAY_TMPDIR": ray_folder}
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    write_corpus(corpus)
    try:
        make_hosts()
        processes = start_ray(folder, corpus, folder)
        inside = ["ip", "netns", "exec", HOSTS[0], sys.executable, __file__]
        drive = subprocess.run([*inside, "drive", str(corpus), LINKS[0]], check=False, timeout=380)
        return drive.returncode
    finally:
        for process in processes:
            process.terminate()
        remove_hosts()
        for process in processes:
            process.wait(timeout=30)
        shutil.rmtree(ray_folder, ignore_errors=True)


def drive(corpus: Path, link: str) -> None:
    """What the user's program does, on the first host."""
    from bimix_tune.corpus import Corpus
    from bimix_tune.executors import Failed, Finished, Job, Progress, Retried, Started
    from bimix_tune.executors.ray import RayExecutor
    from bimix_tune.mixture import Mixture
    from bimix_tune.training.base import Checkpoint

    @dataclasses.dataclass(frozen=True)
    class Reader:
        corpus: str
        tokens = 10
        targets = ("web",)
        unit = "nats/token"

        def with_corpus(self, folder):  # type: ignore[no-untyped-def]
            return dataclasses.replace(self, corpus=str(folder))

        def run(self, mixture, seed):  # type: ignore[no-untyped-def]
            tokens = Corpus.open(self.corpus).tokens("web")
            for at in range(1, self.tokens + 1):
                time.sleep(seed / 10)
                yield Checkpoint(at, {"web": float(tokens[-1])}, notes={"corpus": self.corpus})

    again = []  # when a job was queued again

    events, place, jobs = [], {}, []
    mixture = Mixture(["web"], [1.0])

    def ended():  # type: ignore[no-untyped-def]
        return {e.job_id for e in events if isinstance(e, Finished)}

    def read_until(condition, submit=True):  # type: ignore[no-untyped-def]
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, events
            while submit and len(jobs) - len(ended()) < 2 * executor.slots:
                jobs.append(len(jobs))
                executor.submit(Job(jobs[-1], mixture, 2))
            for event in executor.events(0.2):
                events.append(event)
                assert not isinstance(event, Failed), event
                if isinstance(event, Started):
                    place.setdefault(event.slot, []).append(event.job_id)
                elif isinstance(event, Retried):
                    again.append((time.monotonic(), event.cause))

    def folders():  # type: ignore[no-untyped-def]
        progress = [e.checkpoint for e in events if isinstance(e, Progress)]
        assert all(c.losses == {"web": 999.0} for c in progress)
        return {c.notes["corpus"] for c in progress}

    with RayExecutor(
        Reader(str(corpus)), address=f"{ADDRESS[0]}:6399", heartbeat=HEARTBEAT
    ) as executor:
        read_until(lambda: len(folders()) == 2 and len(place) == 2)
        copies = folders() - {str(corpus)}
        assert "bimix" in copies.pop()
        fact("two hosts: 2 slots, the corpus copied to the second")

        sh(f"ip link set {link} down")
        down = time.monotonic()
        read_until(lambda: again, submit=False)
        took = again[0][0] - down
        assert took < 2 * HEARTBEAT, took
        assert "no answer from" in again[0][1], again
        fact("the link is down: its job began again within twice the heartbeat")

        read_until(lambda: ended() == set(jobs), submit=False)
        fact("all jobs finished")


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        drive(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(main(Path(sys.argv[1])))
