"""Small data sets, and tables of them on disk."""

import csv
import json

import pytest

from bimix_tune.benchmark import synthetic_data, synthetic_swarm


@pytest.fixture
def swarm():
    return synthetic_swarm(runs=24, domains=3)


@pytest.fixture
def data():
    return synthetic_data(runs=24, domains=3)


@pytest.fixture
def write_swarm(swarm):
    """Write the swarm as runs.csv and losses.csv; runs get the label of a scale."""

    def write(folder, scales=("1M",), runs=24, own=None):
        folder.mkdir(parents=True)
        names = swarm.space.names
        with (
            (folder / "runs.csv").open("w", newline="") as first,
            (folder / "losses.csv").open("w", newline="") as second,
        ):
            tables = csv.writer(first), csv.writer(second)
            tables[0].writerow(["run_id", "model_label", *(f"r_{n}" for n in names)])
            tables[1].writerow(["run_id", "tokens", *(f"loss_{n}" for n in names)])
            for scale in scales:
                for curve in swarm.curves[:runs]:
                    label = f"{scale}-{curve.run}"
                    tables[0].writerow([label, scale, *curve.mixture.proportions])
                    for tokens, row in zip(curve.tokens, curve.losses, strict=True):
                        tables[1].writerow([label, tokens, *row])
        if own is not None:
            (folder / "meta.json").write_text(json.dumps({"own": own}))
        return folder

    return write
