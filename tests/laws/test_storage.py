"""Every law comes back from JSON as it was."""

import json

import numpy as np
import pytest

from bimix_tune.laws import LawFit, fit
from bimix_tune.laws.ladder import Ladder
from bimix_tune.laws.storage import write
from bimix_tune.laws.transported import Transported

R = np.random.default_rng(0).dirichlet(np.ones(3), 6)


def stored(found):
    """Through text, as in a file: NaN and infinity are no JSON."""
    return LawFit.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))


def runs_of(synthetic, seed=1, ownless=1, count=9):
    """With a missing target, a missing checkpoint, a stopped run and a repeat."""
    rng = np.random.default_rng(seed)
    known = synthetic.truth(rng, 3, transfer=True, ownless=ownless)
    curves = synthetic.runs(known, rng, count, 0.01, 4)
    gaps = [np.array(c.losses) for c in curves[:2]]
    gaps[0][:, 1] = np.nan
    gaps[1][0, 0] = np.nan
    curves[:2] = [synthetic.changed(c, losses=y) for c, y in zip(curves[:2], gaps, strict=True)]
    curves[2] = synthetic.cut(curves[2], 2)
    return [*curves, synthetic.changed(curves[3], seed=1, run="twin")], known


def check_same(found, back, tokens=1e6):
    for t in (tokens, 0.3 * tokens):
        np.testing.assert_allclose(back.predict(R, t), found.predict(R, t), rtol=1e-12)
    for noise in (True, False):
        for a, b in zip(
            found.objective(R, tokens, noise), back.objective(R, tokens, noise), strict=True
        ):
            np.testing.assert_allclose(b, a, rtol=1e-12)
    a, b = (f.draw(np.random.default_rng(5)).predict(R, tokens) for f in (found, back))
    np.testing.assert_allclose(b, a, rtol=1e-12)
    slopes = [f.slopes(R, tokens) for f in (found, back)]
    if slopes[0] is not None:
        np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-10)


def test_round_trip(law, synthetic):
    curves, known = runs_of(synthetic)
    found = fit(curves, known.space, law)
    back = stored(found)
    check_same(found, back)
    assert back.to_dict() == found.to_dict()
    assert back.parameters() == found.parameters() and back.rungs == found.rungs
    np.testing.assert_array_equal(back.held_out.observed, found.held_out.observed)
    np.testing.assert_array_equal(back.held_out.predicted, found.held_out.predicted)
    for name in ("law", "space", "unit", "reference", "inflation", "status", "warnings"):
        assert getattr(back, name) == getattr(found, name), name


def test_a_fit_that_was_not_judged(law, synthetic):
    curves, known = runs_of(synthetic, ownless=0)
    found = fit(curves, known.space, law, judge=False)
    back = stored(found)
    check_same(found, back)
    assert back.held_out.runs == () and back.to_dict() == found.to_dict()


def test_the_runs_are_kept(synthetic):
    """All that a model was fitted to is there again, gaps too."""
    curves, known = runs_of(synthetic)
    found = fit(curves, known.space, "transfer", judge=False)
    seen, back = (f.model.rungs[0].seen for f in (found, stored(found)))
    for name in ("r", "tokens", "decayed", "log_loss", "weight", "complete", "group"):
        a, b = getattr(seen, name), getattr(back, name)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype, name
    for part in ("falls", "checkpoints"):
        for name, a in vars(getattr(seen, part)).items():
            b = getattr(getattr(back, part), name)
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype, name
    assert np.isnan(seen.checkpoints.log_loss).any()
    assert (seen.names, seen.unit, seen.reference) == (back.names, back.unit, back.reference)


def test_without_falls_or_gaps(law, synthetic):
    """Single checkpoints leave empty arrays, whose shape must survive."""
    rng = np.random.default_rng(0)
    known = synthetic.truth(rng, 3)
    found = fit(synthetic.runs(known, rng, 6, 0.01, 1), known.space, law, judge=False)
    check_same(found, stored(found))
    assert fit(
        synthetic.runs(known, rng, 6, 0.01, 1), known.space, law, before=stored(found), judge=False
    )


def test_several_sizes(synthetic):
    """The smaller sizes' fits travel inside, each in the next."""
    rng = np.random.default_rng(2)
    known = synthetic.truth(rng, 3, transfer=True)
    curves = [
        synthetic.changed(c, scale=scale, run=f"{scale} {c.run}")
        for scale, count in (("1M", 9), ("10M", 8), ("1B", 4))
        for c in synthetic.runs(known, rng, count, 0.01, 3)
    ]
    for law in ("auto", "process"):
        found = fit(curves, known.space, law)
        first = found.model.rungs[0].law
        assert isinstance(first, Transported)
        assert any(isinstance(r.law, Transported) for r in first.source.rungs)
        back = stored(found)
        check_same(found, back)
        assert back.to_dict() == found.to_dict()


def test_a_fit_from_a_file_is_a_start_for_the_next(our_law, synthetic):
    curves, known = runs_of(synthetic)
    found = fit(curves[:-2], known.space, our_law, judge=False)
    a, b = (
        fit(curves, known.space, our_law, before=f, judge=False).predict(R, 1e6)
        for f in (found, stored(found))
    )
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_a_draw_is_not_stored(law, synthetic):
    curves, known = runs_of(synthetic)
    drawn = fit(curves, known.space, law, judge=False).draw(np.random.default_rng(0))
    with pytest.raises(TypeError, match="a Certain is not stored: keep the fit"):
        drawn.to_dict()


def test_what_is_written_are_the_runs_once(synthetic):
    """However many rungs: a stored fit is about as large as its curves."""
    curves, known = runs_of(synthetic)
    model = fit(curves, known.space, "auto", judge=False).model
    assert isinstance(model, Ladder) and len(model.rungs) > 2
    data = write(model)
    assert data["kind"] == "ladder" and json.dumps(data).count('"checkpoints"') == 1
