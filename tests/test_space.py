"""Mixtures, domains, targets and search spaces refuse what contradicts itself."""

import copy
import math
import pickle

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bimix_tune.errors import MixtureError, SpaceError
from bimix_tune.mixture import Mixture
from bimix_tune.space import Domain, SearchSpace, Target, load_space

NAMES = st.lists(
    st.text("abno1e-.: _é漢", min_size=1, max_size=5), min_size=1, max_size=6, unique=True
)


@st.composite
def mixtures(draw):
    names = draw(NAMES)
    weights = [draw(st.floats(0.0, 1.0)) for _ in names]
    weights[0] += 0.1
    return Mixture.normalised(dict(zip(names, weights, strict=True)))


class TestMixture:
    def test_is_a_mapping(self):
        m = Mixture(["web", "code"], [0.75, 0.25])
        assert dict(m) == {"web": 0.75, "code": 0.25}
        assert (len(m), list(m), "code" in m, "x" in m) == (2, ["web", "code"], True, False)
        assert repr(m) == "Mixture(web: 0.7500, code: 0.2500)"
        with pytest.raises(KeyError):
            m["x"]

    @given(mixtures(), st.randoms(use_true_random=False))
    def test_the_order_of_names_does_not_matter(self, m, random):
        names = list(m.names)
        random.shuffle(names)
        other = Mixture(names, [m[n] for n in names])
        assert other == m
        assert hash(other) == hash(m)
        assert {m: 1}[other] == 1

    @given(mixtures())
    def test_copies_are_exact(self, m):
        for other in (pickle.loads(pickle.dumps(m)), copy.deepcopy(m)):
            assert other.names == m.names
            assert np.array_equal(other.proportions, m.proportions)

    @given(mixtures(), st.floats(2e-6, 10))
    def test_refuses_a_sum_that_is_not_one(self, m, excess):
        proportions = m.proportions.copy()
        proportions[0] += excess
        with pytest.raises(MixtureError, match="must sum to 1, but sum to"):
            Mixture(m.names, proportions)

    @pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, -math.inf])
    def test_refuses_shares_that_are_none(self, bad):
        with pytest.raises(MixtureError, match="proportion of 'code' must be a finite number >= 0"):
            Mixture(["web", "code"], [1.0, bad])

    @pytest.mark.parametrize(
        ("names", "shares", "message"),
        [
            (["a", "a"], [0.5, 0.5], "must differ"),
            (["a"], [0.5, 0.5], "1 domain names but 2 proportions"),
            ([], [], "sum to 0"),
        ],
    )
    def test_refuses_names_that_do_not_fit(self, names, shares, message):
        with pytest.raises(MixtureError, match=message):
            Mixture(names, shares)

    def test_is_immutable(self):
        source = np.array([0.5, 0.5])
        m = Mixture(["a", "b"], source)
        source[0] = 9.0
        assert m["a"] == 0.5
        with pytest.raises(AttributeError, match="immutable"):
            m.names = ("x", "y")
        with pytest.raises(ValueError, match="read-only"):
            m.proportions[0] = 1.0
        with pytest.raises(TypeError):
            m["a"] = 1.0

    @given(mixtures(), st.randoms(use_true_random=False), st.floats(0.0, 1.0))
    def test_distance_is_the_greatest_difference_in_any_order(self, m, random, step):
        names = list(m.names)
        random.shuffle(names)
        corner = np.eye(len(names))[0]
        other = Mixture(names, [(1 - step) * m[n] + step * c for n, c in zip(names, corner)])  # noqa: B905
        expected = max(abs(m[n] - other[n]) for n in names)
        assert m.distance(other) == other.distance(m) == expected
        assert m.distance(m) == 0.0

    def test_distance_needs_the_same_domains(self):
        m = Mixture(["a", "b"], [0.5, 0.5])
        with pytest.raises(MixtureError, match=r"same domains .* differ in \['b', 'c'\]"):
            m.distance(Mixture(["a", "c"], [0.5, 0.5]))
        with pytest.raises(MixtureError, match=r"differ in \['b'\]"):
            m.distance(Mixture(["a"], [1.0]))

    def test_normalised(self):
        assert dict(Mixture.normalised({"a": 3, "b": 1})) == {"a": 0.75, "b": 0.25}
        for weights in ({"a": 0.0}, {"a": math.nan}, {"a": math.inf}, {}):
            with pytest.raises(MixtureError, match="positive finite sum"):
                Mixture.normalised(weights)
        with pytest.raises(MixtureError, match="'b' must be a finite number >= 0"):
            Mixture.normalised({"a": 3.0, "b": -1.0})


class TestParts:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"name": ""}, "name of a domain must be text"),
            ({"name": False}, "is False .quote it in YAML"),
            ({"prior": 0.0}, "prior must be > 0, but got 0.0"),
            ({"prior": math.nan}, "prior must be > 0"),
            ({"tokens": -5}, "tokens must be > 0"),
            ({"low": -0.1}, "0 <= low <= high <= 1"),
            ({"high": 1.1}, "0 <= low <= high <= 1"),
            ({"low": 0.6, "high": 0.5}, "low=0.6, high=0.5"),
            ({"low": math.nan}, "low=nan"),
        ],
    )
    def test_domain(self, fields, message):
        with pytest.raises(SpaceError, match=message):
            Domain(**{"name": "web", **fields})

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"name": ""}, "name of a target must be text"),
            ({"weight": -1.0}, "weight must be >= 0, but got -1.0"),
            ({"weight": math.inf}, "weight must be >= 0"),
        ],
    )
    def test_target(self, fields, message):
        with pytest.raises(SpaceError, match=message):
            Target(**{"name": "web", **fields})


@st.composite
def spaces(draw):
    names = draw(NAMES)
    k = len(names)
    priors = draw(st.one_of(st.none(), st.lists(st.floats(0.01, 9), min_size=k, max_size=k)))
    domains = [
        Domain(
            name,
            prior=priors[i] if priors else None,
            tokens=draw(st.one_of(st.none(), st.integers(1, 10**12))),
            low=draw(st.floats(0, 1 / k - 1e-9)) if k > 1 else 0.0,
            high=draw(st.floats(1 / k, 1.0)) if k > 1 else 1.0,
        )
        for i, name in enumerate(names)
    ]
    targets = [Target(n, draw(st.floats(0.1, 5)), draw(st.sampled_from([n, None]))) for n in names]
    return SearchSpace(domains, draw(st.sampled_from([None, targets])), draw(st.text(max_size=5)))


class TestSearchSpace:
    @pytest.mark.parametrize(
        ("domains", "targets", "message"),
        [
            ([], None, "at least one domain"),
            (["a"], [], "at least one target"),
            (["a", "a"], None, r"domain names must differ, but \['a'\] repeat"),
            (["a"], [Target("t"), Target("t")], r"target names must differ, but \['t'\]"),
            (["web"], [Target("t", domain="wob")], "unknown domain 'wob'; did you mean 'web'"),
            (["a"], [Target("t", weight=0)], "at least one target must have a weight > 0"),
            ([Domain("a", prior=1), Domain("b")], None, r"all domains or none; missing: \['b'\]"),
            ([Domain("a", high=0.5)], None, "upper bounds sum to 0.5"),
            ([Domain("a", low=0.6), Domain("b", low=0.6)], None, "lower bounds sum to 1.2"),
        ],
    )
    def test_refuses_contradictions(self, domains, targets, message):
        with pytest.raises(SpaceError, match=message):
            SearchSpace(domains, targets)

    @given(spaces())
    def test_yaml_round_trip(self, space):
        text = yaml.safe_dump(space.to_dict())
        assert SearchSpace.from_dict(yaml.safe_load(text)) == space

    @given(spaces())
    def test_natural_and_uniform_lie_within_the_bounds(self, space):
        for mixture in (space.natural(), space.uniform()):
            assert space.violation(mixture) is None
            assert abs(sum(mixture.values()) - 1) < 1e-12
        np.testing.assert_allclose(space.uniform().proportions, 1 / len(space.names), atol=1e-8)

    @given(spaces())
    def test_arrays_follow_names(self, space):
        assert math.isclose(space.weights.sum(), 1.0)
        assert math.isclose(space.prior.sum(), 1.0)
        backwards = Mixture(space.names[::-1], space.prior[::-1])
        np.testing.assert_array_equal(space.array(backwards), space.prior)
        np.testing.assert_array_equal(space.matrix([backwards, backwards]), [space.prior] * 2)

    def test_prior_comes_from_priors_then_tokens_then_nothing(self):
        tokens = [Domain("a", tokens=3000), Domain("b", tokens=1000)]
        given_ = [Domain("a", prior=1.0, tokens=3000), Domain("b", prior=1.0, tokens=1000)]
        some = [Domain("a", tokens=3000), Domain("b")]
        np.testing.assert_allclose(SearchSpace(tokens).prior, [0.75, 0.25])
        np.testing.assert_allclose(SearchSpace(given_).prior, [0.5, 0.5])
        np.testing.assert_allclose(SearchSpace(some).prior, [0.5, 0.5])
        assert dict(SearchSpace(tokens).natural()) == pytest.approx({"a": 0.75, "b": 0.25})

    def test_targets_default_to_the_domains(self):
        space = SearchSpace(["a", "b"])
        assert space.target_names == ("a", "b")
        assert space.own == (0, 1)
        mixed = SearchSpace(["a", "b"], [Target("t", 3.0), Target("b", 1.0, "b")])
        assert mixed.own == (None, 1)
        np.testing.assert_allclose(mixed.weights, [0.75, 0.25])

    def test_array_wants_all_names_and_no_others(self):
        space = SearchSpace(["web", "code"])
        with pytest.raises(MixtureError, match="unknown domain 'wbe'; did you mean 'web'"):
            space.array({"wbe": 0.5, "code": 0.5})
        with pytest.raises(MixtureError, match=r"no proportion for \['code'\]"):
            space.array({"web": 1.0})
        assert space.matrix([]).shape == (0, 2)

    def test_violation_names_the_bound(self):
        space = SearchSpace([Domain("web", low=0.3, high=0.6), Domain("code")])
        message = "proportion 0.8 of 'web' is outside [0.3, 0.6]"
        assert space.violation({"web": 0.8, "code": 0.2}) == message
        assert space.violation({"web": 0.6, "code": 0.4}) is None

    def test_fit_in(self):
        space = SearchSpace([Domain("web", high=0.6), Domain("code"), Domain("math")])
        assert dict(space.fit_in([0.8, 0.1, 0.1])) == pytest.approx(
            {"web": 0.6, "code": 0.2, "math": 0.2}
        )


class TestCapEpochs:
    SPACE = SearchSpace([Domain("web", tokens=900), Domain("code", tokens=100, high=0.5)])

    def test_caps_by_available_tokens(self):
        capped = self.SPACE.cap_epochs(budget=1000, max_epochs=2)
        np.testing.assert_allclose(capped.high, [1.0, 0.2])
        assert capped.targets == self.SPACE.targets

    def test_exactly_enough(self):
        thirds = SearchSpace([Domain(n, tokens=10**9 // 3) for n in "abc"])
        thirds.cap_epochs(budget=3 * (10**9 // 3), max_epochs=1)

    def test_too_little_text(self):
        with pytest.raises(SpaceError, match=r"give 33\.33% .* raise max_epochs to at least") as e:
            self.SPACE.cap_epochs(budget=3000, max_epochs=1)
        advised = float(str(e.value).rsplit(" ", 1)[1])
        self.SPACE.cap_epochs(budget=3000, max_epochs=advised)

    def test_errors(self):
        with pytest.raises(SpaceError, match=r"need `tokens` .* missing for \['b'\]"):
            SearchSpace([Domain("a", tokens=5), Domain("b")]).cap_epochs(10, 1)
        floor = SearchSpace([Domain("a", tokens=100, low=0.5), Domain("b", tokens=900)])
        with pytest.raises(SpaceError, match=r"'a': 2 epochs of 100 tokens .* below its lower"):
            floor.cap_epochs(budget=1000, max_epochs=2)
        with pytest.raises(SpaceError, match="budget must be > 0, but got 0"):
            self.SPACE.cap_epochs(0, 1)
        with pytest.raises(SpaceError, match="max_epochs must be > 0"):
            self.SPACE.cap_epochs(10, math.nan)


class TestFromDict:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (None, "needs a list `domains`"),
            ({}, "needs a list `domains`"),
            ({"domains": {"web": {"prior": 1}}}, "needs a list `domains`"),
            ({"domains": "web"}, "needs a list `domains`"),
            ({"domains": ["web"], "targets": "web"}, "needs a list `targets`"),
            ({"domains": ["web"], "target": []}, "unknown key 'target'; did you mean 'targets'"),
            ({"domains": [5]}, "a domain needs a `name`, but got 5"),
            ({"domains": [{"prior": 1}]}, "a domain needs a `name`"),
            (
                {"domains": [{"name": "web", "prio": 1}]},
                "domain 'web' has an unknown key 'prio'; did you mean 'prior'",
            ),
            ({"domains": ["a"], "targets": [{"name": "t", "wight": 1}]}, "mean 'weight'"),
            ({"domains": [{"name": "web", "prior": "much"}]}, "domain 'web': could not convert"),
            (
                {"domains": [{"name": "web", "tokens": "3Q"}]},
                "domain 'web': tokens must be a whole number .* but got '3Q'",
            ),
            ({"domains": [{"name": "web", "tokens": -5}]}, "domain 'web': tokens must be > 0"),
            ({"domains": [{"name": "web", "low": None}]}, "domain 'web': "),
            ({"domains": [{"name": "web", "low": 2}]}, "domain 'web': bounds must satisfy"),
        ],
    )
    def test_errors(self, data, message):
        with pytest.raises(SpaceError, match=message):
            SearchSpace.from_dict(data)

    def test_notes_bare_names_and_numbers_that_yaml_reads_as_text(self):
        text = (
            "{date: today, domains: [{name: web, tokens: 5e11, prior: 1e-1}, {name: b, prior: 1}]}"
        )
        space = SearchSpace.from_dict(yaml.safe_load(text))
        assert space.domains[0] == Domain("web", prior=0.1, tokens=500_000_000_000)
        assert isinstance(space.domains[0].tokens, int)
        assert SearchSpace.from_dict({"domains": ["a"], "targets": ["t"]}).own == (None,)

    @pytest.mark.parametrize("written", ["3T", "3 t", "3e12", "3000B", 3e12, 3_000_000_000_000])
    def test_tokens_as_people_write_them(self, written):
        (domain,) = SearchSpace.from_dict({"domains": [{"name": "a", "tokens": written}]}).domains
        assert domain.tokens == 3 * 10**12 and isinstance(domain.tokens, int)
        unknown = SearchSpace.from_dict({"domains": [{"name": "a", "tokens": None}]})
        assert unknown.domains[0].tokens is None


SHIPPED = {
    "starter": (7, 7),
    "slimpajama-7": (7, 7),
    "redpajama-7": (7, 7),
    "pile-17": (17, 13),
    "pile-22": (22, 22),
}


class TestLoadSpace:
    @pytest.mark.parametrize("name", SHIPPED)
    def test_shipped_spaces(self, name):
        space = load_space(name)
        assert (len(space.domains), len(space.target_names)) == SHIPPED[name]
        assert space.source
        assert None not in space.own
        priors = [d.prior for d in space.domains if d.prior is not None]
        assert not priors or abs(sum(priors) - 1) < 1.5e-4  # rounded to four decimals

    def test_values_of_the_sources(self):
        assert load_space("slimpajama-7").natural()["commoncrawl"] == pytest.approx(
            0.5203, abs=1e-4
        )
        assert load_space("pile-22").natural()["openwebtext2"] == pytest.approx(0.1242, abs=1e-6)
        assert load_space("pile-17").natural()["pile_cc"] == pytest.approx(0.236869207)
        assert load_space("redpajama-7").natural()["c4"] == pytest.approx(175 / 1210)
        redpajama = load_space("redpajama-7")
        assert sum(d.tokens or 0 for d in redpajama.domains) == 1_210_000_000_000
        np.testing.assert_allclose(load_space("starter").weights, 1 / 7)

    def test_every_shipped_file_is_tested(self):
        with pytest.raises(SpaceError) as error:
            load_space("no-such-space")
        known = str(error.value).rsplit("Known: ", 1)[1]
        assert set(known.split(", ")) == set(SHIPPED)

    def test_a_misspelt_name(self):
        with pytest.raises(SpaceError, match=r"'slimpajma-7'.*did you mean 'slimpajama-7'\?"):
            load_space("slimpajma-7")

    def test_own_files(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("domains: [a, b]\n")
        assert load_space(path).names == ("a", "b")
        path.write_text("domains: [a, {name: b, hihg: 1}]\n")
        with pytest.raises(SpaceError, match=r"mine.yaml: domain 'b' has an unknown key 'hihg'"):
            load_space(path)
        path.write_text("domains: [a, b\n")
        with pytest.raises(SpaceError, match=r"mine.yaml is not valid YAML"):
            load_space(path)
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(SpaceError, match=r"mine.yaml is not text"):
            load_space(path)
        with pytest.raises(SpaceError, match="no such file"):
            load_space(tmp_path / "other.yaml")
