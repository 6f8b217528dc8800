"""The dial: shapes near the size asked for, and the table in the documentation is the rule."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from bimix_tune.errors import ConfigError
from bimix_tune.training import sizes
from bimix_tune.training.sizes import default_recipe, parse_size, shape_of


@given(st.floats(0.1, 1000))
def test_every_size_has_a_shape_near_it(millions: float) -> None:
    shape = shape_of(f"{millions:.6f}M")
    assert shape.parameters == pytest.approx(millions * 1e6, rel=0.13)
    assert shape.width == 64 * shape.heads
    assert shape.ffn >= shape.width


def test_the_documented_table_is_the_rule() -> None:
    assert sizes.__doc__ is not None
    rows = [line.split() for line in sizes.__doc__.splitlines() if line[:7].strip()[:1].isdigit()]
    assert len(rows) == 9
    for size, *numbers, weights, length in rows:
        shape = shape_of(size)
        assert [int(n) for n in numbers] == [shape.layers, shape.width, shape.heads, shape.ffn]
        assert weights == f"{shape.parameters / 1e6:.4g}M"
        assert int(length) == default_recipe(shape.parameters, 10**6).sequence_length


def test_parameters_are_those_of_the_model() -> None:
    from bimix_tune.training.model import Llama

    shape = shape_of("0.1M")
    counts = {n: p.numel() for n, p in Llama(shape, 100).named_parameters() if p.dim() > 1}
    assert shape.parameters == sum(v for n, v in counts.items() if ".layers." in n)


def test_batch_and_rate_follow_the_budget_and_not_the_size() -> None:
    small, large = (default_recipe(n, 600_000) for n in (10**5, 10**9))
    assert small.learning_rate == large.learning_rate == pytest.approx(3e-3 * 2**0.307)
    assert small.batch_tokens == round(0.58 * 6e5**0.571)
    assert default_recipe(10**9, 20 * 10**9).batch_tokens == round(0.58 * 2e10**0.571)
    assert default_recipe(10**5, 10**9).learning_rate == sizes.HIGHEST_RATE
    assert default_recipe(10**5, 1).batch_tokens == 128


@pytest.mark.parametrize("size", ["", "1", "1T", "-1M", "0.05M", "2B", "M", "many"])
def test_nonsense_is_refused(size: str) -> None:
    with pytest.raises(ConfigError, match="size must"):
        parse_size(size)


@pytest.mark.parametrize(
    ("size", "n"), [("300k", 3e5), ("1M", 1e6), (" 0.5 b", 5e8), ("1.5m", 1.5e6)]
)
def test_sizes_are_read(size: str, n: float) -> None:
    assert parse_size(size) == n
