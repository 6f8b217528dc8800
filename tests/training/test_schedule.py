"""The learning rate in closed form, and where a run is cut and evaluated."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from bimix_tune.errors import ConfigError
from bimix_tune.training.schedule import Steps, learning_rate_factor

numbers = st.integers(1, 10**6)


@pytest.mark.parametrize(
    ("progress", "factor"),
    [(0, 0), (0.01, 0.25), (0.04, 1), (0.5, 1), (0.8, 1), (0.85, 0.75), (0.95, 0.25), (1, 0)],
)
def test_warm_up_constant_decay(progress: float, factor: float) -> None:
    assert learning_rate_factor(progress) == pytest.approx(factor)


@given(numbers, st.integers(1, 2048), st.integers(1, 64), st.integers(1, 12))
def test_steps_end_at_the_budget(tokens: int, length: int, batch: int, checkpoints: int) -> None:
    steps = Steps(tokens, length, batch)
    assert steps.seen(steps.count) == tokens
    assert steps.seen(steps.count - 1) < tokens
    assert 0 < steps.factor(0) <= 1
    assert 0 < steps.factor(steps.count - 1) <= 1
    at = steps.evaluations(checkpoints)
    assert at[-1] == steps.count
    assert 1 <= len(at) <= checkpoints
    assert list(at) == sorted(set(at))
    assert at[0] >= 1


def test_evaluations_are_geometric_in_the_constant_part() -> None:
    at = Steps(10**6, 10, 10).evaluations(5)
    assert at == (1000, 2000, 4000, 8000, 10000)
    assert Steps(10**6, 10, 10).evaluations(2) == (8000, 10000)
    assert Steps(10**6, 10, 10).evaluations(1) == (10000,)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="tokens must be at least 1, but got 0"):
        Steps(0, 10, 10)
    with pytest.raises(ConfigError, match="checkpoints must be at least 1"):
        Steps(100, 10, 10).evaluations(0)
