"""Fitted models as JSON: the runs they rest on and what was chosen; the rest is derived again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bimix_tune.laws.additive import Additive
from bimix_tune.laws.base import Law, Prior
from bimix_tune.laws.bimix import Bimix
from bimix_tune.laws.fitting import Estimate
from bimix_tune.laws.kernel import Kernel
from bimix_tune.laws.ladder import Ladder
from bimix_tune.laws.law_fit import Model
from bimix_tune.laws.linear import Linear
from bimix_tune.laws.observations import Checkpoints, Falls, Observations
from bimix_tune.laws.published import Published
from bimix_tune.laws.rung import Rung
from bimix_tune.laws.transfer import Transfer
from bimix_tune.laws.transported import Transported
from bimix_tune.space import SearchSpace

FORMS: Mapping[str, Law] = {f.name: f for f in (Bimix(), Additive(), Linear(), Transfer())}
"""Laws without a state, by name."""


def write(model: Model) -> dict[str, Any]:
    """A form for JSON that `read` reads back.

    Raises:
        TypeError: The model is a draw from a posterior, which is not kept.
    """
    if isinstance(model, Ladder):
        return _write_ladder(model)
    if isinstance(model, Published):
        return model.to_dict()
    raise TypeError(f"a {type(model).__name__} is not stored: keep the fit that it came from")


def _write_ladder(ladder: Ladder) -> dict[str, Any]:
    return {
        "kind": "ladder",
        "runs": _write_runs(ladder.rungs[0].seen),
        "rungs": [_write_rung(rung) for rung in ladder.rungs],
        "weights": ladder.weights.tolist(),
        "noise": ladder.noise.tolist(),
    }


def read(data: Mapping[str, Any], space: SearchSpace) -> Model:
    """Read the form of `write`."""
    if data["kind"] != "ladder":
        return Published.from_dict(data, space)
    return _read_ladder(data, space)


def _read_ladder(data: Mapping[str, Any], space: SearchSpace) -> Ladder:
    seen = _read_runs(data["runs"])
    rungs = tuple(_read_rung(rung, seen, space) for rung in data["rungs"])
    return Ladder(rungs, np.array(data["weights"]), np.array(data["noise"]))


def _plain(value: Any) -> Any:
    """Arrays as lists, NaN as null."""
    if not isinstance(value, np.ndarray):
        return value
    missing = value.dtype.kind == "f" and np.isnan(value).any()
    return [_plain(row) for row in value] if missing and value.ndim > 1 else _nulls(value.tolist())


def _nulls(values: list[Any]) -> list[Any]:
    return [None if v != v else v for v in values]


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}


def _arrays(data: Mapping[str, Any], kind: type = float) -> dict[str, Any]:
    return {k: np.array(v, dtype=kind) for k, v in data.items()}


def _write_runs(seen: Observations) -> dict[str, Any]:
    parts = {"falls": _fields(seen.falls), "checkpoints": _fields(seen.checkpoints)}
    return {**_fields(seen), **parts, "names": list(seen.names)}


def _read_runs(data: Mapping[str, Any]) -> Observations:
    arrays = _arrays({k: data[k] for k in ("r", "tokens", "decayed", "log_loss", "weight")})
    points = _arrays(data["checkpoints"])
    points["run"] = points["run"].astype(np.int64)
    return Observations(
        **arrays,
        falls=Falls(**_arrays(data["falls"])),
        checkpoints=Checkpoints(**points),
        complete=np.array(data["complete"], dtype=bool),
        group=np.array(data["group"], dtype=np.int64),
        names=tuple(data["names"]),
        unit=str(data["unit"]),
        reference=float(data["reference"]),
    )


def _write_rung(rung: Rung) -> dict[str, Any]:
    estimate, prior = rung.estimate, rung.estimate.prior
    kept = {"mean": prior.mean, "sd": prior.sd, "squares": prior.squares, "groups": prior.groups}
    return {
        "law": _write_law(rung.law),
        "theta": estimate.theta.tolist(),
        "noise": estimate.noise.tolist(),
        "weight": estimate.weight.tolist(),
        "converged": estimate.converged,
        "prior": {k: v.tolist() for k, v in kept.items()} | {"free_mean": list(prior.free_mean)},
        "kernel": None if rung.kernel is None else rung.kernel.to_dict(),
    }


def _read_rung(data: Mapping[str, Any], seen: Observations, space: SearchSpace) -> Rung:
    p = data["prior"]
    prior = Prior(
        np.array(p["mean"]),
        np.array(p["sd"]),
        np.array(p["groups"], dtype=np.int64),
        tuple(p["free_mean"]),
        np.array(p["squares"], dtype=bool),
    )
    theta, noise, weight = (np.array(data[k], dtype=float) for k in ("theta", "noise", "weight"))
    estimate = Estimate(theta, prior, noise, weight, bool(data["converged"]))
    kernel = None if data["kernel"] is None else Kernel.from_dict(data["kernel"])
    return Rung(_read_law(data["law"], space), space, seen, estimate, kernel)


def _write_law(law: Law) -> dict[str, Any]:
    if not isinstance(law, Transported):
        return {"name": law.name}
    return {"name": law.name, "source": _write_ladder(law.source), "centre": law.centre.tolist()}


def _read_law(data: Mapping[str, Any], space: SearchSpace) -> Law:
    if data["name"] in FORMS:
        return FORMS[data["name"]]
    return Transported(_read_ladder(data["source"], space), np.array(data["centre"]))
