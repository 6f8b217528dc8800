"""Fetching from a server on this machine in place of GitHub."""

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bimix_tune.benchmark import fetch_regmix, load_data, regmix
from bimix_tune.errors import CurveError

DOMAINS = ("arxiv", "github", "europarl")
TARGETS = ("arxiv", "github")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Two scales of three domains, served like the originals; the folder of the files."""
    root = tmp_path / "github"
    files = root / regmix.COMMIT / "data"
    files.mkdir(parents=True)
    head = ",".join(["index", *(f"train_the_pile_{d}" for d in DOMAINS)]) + "\n"
    losses = ",".join(["index", *(f"metric/the_pile_{t}_val_loss" for t in TARGETS)]) + "\n"
    scales = []
    for first, (label, tokens, count) in enumerate((("1M", 10, 25), ("1B", 20, 6))):
        rows = [(i + first, (i + 1) / 30) for i in range(count)]
        texts = {
            f"mixture_{label}": head + "".join(f"{i},{x:.3f},0.1,{0.9 - x:.3f}\n" for i, x in rows),
            f"loss_{label}": losses + "".join(f"{i},{3 - x},{2 + x}\n" for i, x in reversed(rows)),
        }
        tables = []
        for name, text in texts.items():
            (files / f"{name}.csv").write_text(text)
            digest = hashlib.sha256(text.encode()).hexdigest()
            tables.append(regmix.Table(f"data/{name}.csv", len(text.encode()), digest))
        scales.append(regmix.Scale(label, tokens, *tables))
    monkeypatch.setattr(regmix, "SCALES", tuple(scales))
    serve = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    thread = threading.Thread(target=serve.serve_forever)
    thread.start()
    monkeypatch.setattr(regmix, "SOURCE", f"http://127.0.0.1:{serve.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield files
    serve.shutdown()
    thread.join()
    serve.server_close()


def test_tables_become_a_data_set_of_both_scales(server, tmp_path):
    said = []
    place = fetch_regmix(tmp_path / "swarms", said.append)
    assert said[0] == "downloading data/mixture_1M.csv"
    (found,) = load_data(tmp_path / "swarms")
    (swarm,) = found.swarms
    assert (found.name, swarm.name, len(swarm.curves), swarm.tokens) == (
        "regmix",
        "regmix 1M",
        25,
        10,
    )
    assert swarm.space.names == DOMAINS
    assert swarm.space.own == (0, 1)
    for curve in swarm.curves:  # joined by index, in whatever order
        assert curve.final()["arxiv"] == pytest.approx(3 - curve.mixture["arxiv"], abs=1e-3)
    assert found.pair.name == "regmix 1M to 1B"
    assert json.loads((place / "meta.json").read_text())["commit"] == regmix.COMMIT


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    place = fetch_regmix(tmp_path)
    for file in server.iterdir():
        file.unlink()
    said = []
    assert fetch_regmix(tmp_path, said.append) == place
    assert said == []


def test_an_incomplete_folder_is_replaced(server, tmp_path):
    place = fetch_regmix(tmp_path)
    (place / "losses.csv").unlink()
    fetch_regmix(tmp_path)
    assert (place / "losses.csv").is_file()


@pytest.mark.parametrize(
    "change", [lambda t: t.replace("1,", "2,", 1), lambda t: t + "\n", lambda t: t[:-9]]
)
def test_other_content_is_refused_and_nothing_is_written(server, tmp_path, change):
    file = server / "loss_1B.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(CurveError, match=r"loss_1B\.csv is not the pinned table: SHA-256 \w{64}"):
        fetch_regmix(tmp_path / "swarms")
    assert not (tmp_path / "swarms").exists()


def test_a_file_that_cannot_be_had_is_an_error_that_names_it(server, tmp_path):
    (server / "loss_1M.csv").unlink()
    with pytest.raises(CurveError, match=r"loss_1M\.csv cannot be downloaded \(.*404"):
        fetch_regmix(tmp_path / "swarms")
    assert not (tmp_path / "swarms").exists()


def test_all_originals_are_pinned():
    for scale in regmix.SCALES:
        for pinned in (scale.mixtures, scale.losses):
            assert len(bytes.fromhex(pinned.sha256)) == 32
            assert pinned.size > 6000
