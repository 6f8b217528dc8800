"""The swarm that the package has with it, recorded by `bimix-tune benchmark record`.

`examples/swarm.yaml` says how. The recorded folder comes in as two files beside this one:

    gzip -9nc FOLDER/curves.jsonl > bimix_tune/benchmark/problems/starter.jsonl.gz
    cp FOLDER/meta.json bimix_tune/benchmark/problems/starter.json
"""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

from bimix_tune.benchmark.folders import read_meta
from bimix_tune.benchmark.swarms import Swarm, data_set
from bimix_tune.curves import LossCurve
from bimix_tune.errors import CurveError

FOLDER = Path(__file__).parent


@functools.cache
def starter_swarm() -> Swarm:
    """The recorded runs of small proxies on six domains of the starter corpus.

    Raises:
        CurveError: The files of the package are damaged.
    """
    path = FOLDER / "starter.jsonl.gz"
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, ValueError) as error:
        raise CurveError(f"{path} cannot be read ({error}): install the package again") from error
    curves = [LossCurve.from_json(line) for line in text.splitlines()]
    (swarm,) = data_set("starter", curves, **read_meta(FOLDER / "starter.json")).swarms
    return swarm
