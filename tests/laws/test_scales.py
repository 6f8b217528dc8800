"""Curves of several model sizes: cheap runs help expensive ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tune.errors import FitError
from bimix_tune.laws import fit
from bimix_tune.laws.ladder import Ladder
from bimix_tune.laws.scales import FEWEST_MIXTURES, curves_at
from bimix_tune.laws.transported import Transported


class Sizes:
    """A small model and a large one whose log losses are an affine map of the small one's."""

    def __init__(self, synthetic, seed, small=20, large=3):
        rng = np.random.default_rng(seed)
        self.known = synthetic.truth(rng, 4, transfer=True)
        self.space, self.end = self.known.space, synthetic.END
        self.stretch = np.exp(0.15 * rng.standard_normal(4))
        self.shift = -0.3 + 0.1 * rng.standard_normal(4)
        self.small = [
            synthetic.changed(c, scale="10M", run=f"small {c.run}")
            for c in synthetic.runs(self.known, rng, small, 0.005, 3)
        ]
        self.large = [
            synthetic.changed(
                c, scale="1B", losses=self._map(c.losses), tokens=20 * c.tokens, run=f"big {c.run}"
            )
            for c in synthetic.runs(self.known, rng, large, 0.003, 1)
        ]
        self.r = rng.dirichlet(np.ones(4), 100)

    def _map(self, losses):
        return np.exp(self.stretch * np.log(losses) + self.shift)

    def error(self, found):
        """Mean relative error at the large size."""
        truth = self._map(self.known.losses(self.r, self.end, True))
        return np.abs(found.predict(self.r, 20 * self.end) / truth - 1).mean()


def test_small_runs_help_a_few_large_ones(our_law, synthetic):
    """A lot where the small size is followed well, in the mean over problems."""
    both, alone = [], []
    for seed in range(4):
        for large in (2, 3):
            sizes = Sizes(synthetic, seed, large=large)
            for store, curves in ((both, sizes.small + sizes.large), (alone, sizes.large)):
                store.append(sizes.error(fit(curves, sizes.space, our_law, judge=False)))
    factor = {"bimix": 0.95, "linear": 0.85}.get(our_law, 0.25)
    assert np.mean(both) < factor * np.mean(alone)


def test_auto_is_about_exact_from_two_large_runs(synthetic):
    errors = []
    for seed in range(4):
        sizes = Sizes(synthetic, seed, large=2)
        errors.append(sizes.error(fit(sizes.small + sizes.large, sizes.space, judge=False)))
    assert np.mean(errors) < 0.008


def test_a_law_keeps_its_shape_above_a_smaller_size(our_law, synthetic):
    """Alone or with a process; of `auto` both."""
    sizes = Sizes(synthetic, 0, large=3)
    rungs = fit(sizes.small + sizes.large, sizes.space, our_law, judge=False).rungs
    alone, process = ["transported"], ["transported + process"]
    assert list(rungs) == {"auto": alone + process, "process": process}.get(our_law, alone)


def test_many_large_runs_need_no_small_ones(synthetic):
    """And are not harmed by small ones of quite another law."""
    sizes, other = Sizes(synthetic, 0, large=40), Sizes(synthetic, 99)
    alone = sizes.error(fit(sizes.large, sizes.space, judge=False))
    both = sizes.error(fit(sizes.small + sizes.large, sizes.space, judge=False))
    misled = sizes.error(fit(other.small + sizes.large, sizes.space, judge=False))
    assert both < 1.1 * alone and misled < 1.3 * alone


def test_one_large_run_is_enough(synthetic):
    sizes = Sizes(synthetic, 1, large=1)
    found = fit(sizes.small + sizes.large, sizes.space)
    assert sizes.error(found) < 0.03
    assert found.held_out.runs == () and "held-out" not in found.status
    assert found.warnings == ("only 1 different mixtures: the fit leans on the smaller sizes",)
    loss, sd = found.objective(sizes.r, sizes.end)
    assert np.isfinite(loss).all() and (sd > 0).all()


def test_one_large_run_is_not_enough_for_published_laws(published_law, synthetic):
    sizes = Sizes(synthetic, 1, large=1)
    with pytest.raises(FitError, match="all 1 curves have the same mixture"):
        fit(sizes.small + sizes.large, sizes.space, published_law)


def test_the_scale_may_be_chosen(law, synthetic):
    """The fit of the smallest is the fit of its runs alone."""
    sizes = Sizes(synthetic, 2)
    chosen = fit(sizes.small + sizes.large, sizes.space, law, scale="10M", judge=False)
    alone = fit(sizes.small, sizes.space, law, judge=False)
    assert chosen.to_dict() == alone.to_dict()
    largest = fit(sizes.large + sizes.small, sizes.space, law, scale="1B", judge=False)
    default = fit(sizes.large + sizes.small, sizes.space, law, judge=False)
    assert largest.to_dict() == default.to_dict() and default.reference == 20 * sizes.end


def test_published_laws_take_no_notice_of_smaller_sizes(published_law, synthetic):
    sizes = Sizes(synthetic, 0, large=6)
    a, b = (
        fit(curves, sizes.space, published_law, judge=False)
        for curves in (sizes.small + sizes.large, sizes.large)
    )
    assert a.to_dict() == b.to_dict()


def test_three_sizes_are_climbed(synthetic):
    """Each from the one below; its runs are predicted by the blend of the largest."""
    sizes, middle = Sizes(synthetic, 3), Sizes(synthetic, 3, large=8)
    middling = [synthetic.changed(c, scale="300M") for c in middle.large]
    found = fit(sizes.small + middling + sizes.large, sizes.space, judge=False)
    first = found.model.rungs[0].law
    assert isinstance(first, Transported) and isinstance(first.source, Ladder)
    names = {rung.name for rung in first.source.rungs}
    assert {"transported", "transported + process", "transfer"} <= names
    assert sizes.error(found) < 0.01
    assert set(found.parameters()) == set(sizes.space.target_names)


def test_a_size_with_too_few_mixtures_is_passed_over(synthetic):
    sizes = Sizes(synthetic, 4, large=5)
    few = sizes.small[: FEWEST_MIXTURES - 1] * 3
    a, b = (
        fit(curves, sizes.space, "transfer", judge=False).predict(sizes.r, sizes.end)
        for curves in (few + sizes.large, sizes.large)
    )
    np.testing.assert_array_equal(a, b)


@settings(max_examples=30)
@given(labels=st.permutations(["70M", "410m", "1B", "1.2B", "1e3"]), chosen=st.booleans())
def test_sizes_are_ordered_by_number(labels, chosen, synthetic):
    template = synthetic.runs(
        synthetic.truth(np.random.default_rng(0), 3), np.random.default_rng(0), 1
    )
    curves = [synthetic.changed(template[0], scale=label) for label in labels]
    at, below = curves_at(curves, "1B" if chosen else None)
    assert [c.scale for c in at] == ["1B" if chosen else "1.2B"]
    expected = ["1e3", "70M", "410m"] if chosen else ["1e3", "70M", "410m", "1B"]
    assert [c.scale for group in below for c in group] == expected


def test_a_single_scale_may_have_any_label(synthetic):
    sizes = Sizes(synthetic, 0)
    named = [synthetic.changed(c, scale="my little model") for c in sizes.small]
    found = fit(named, sizes.space, "bimix", scale="my little model", judge=False)
    assert found.predict(sizes.r, sizes.end).shape == (100, 4)


def test_refuses_labels_that_are_no_sizes(synthetic):
    sizes = Sizes(synthetic, 0)
    named = [synthetic.changed(c, scale="tiny") for c in sizes.small]
    with pytest.raises(FitError, match=r"every scale must be a size such as 70M.*'tiny'"):
        fit(named + sizes.large, sizes.space)


def test_refuses_a_scale_that_no_curve_has(synthetic):
    sizes = Sizes(synthetic, 0)
    with pytest.raises(FitError, match=r"no curve has the scale '1T', they have \['10M', '1B'\]"):
        fit(sizes.small + sizes.large, sizes.space, scale="1T")
    with pytest.raises(FitError, match="did you mean '10M'"):
        fit(sizes.small, sizes.space, scale="10MB")
