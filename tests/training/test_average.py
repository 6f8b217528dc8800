"""The average of the weights against its closed form, and that looking leaves no trace."""

import math

import pytest
import torch

from bimix_tune.training.average import SPAN, Average


def averaged(walk: torch.Tensor) -> torch.Tensor:
    """The average after weights that took these values, one a step, (T, n)."""
    parameter = torch.nn.Parameter(torch.zeros_like(walk[0]))
    average = Average([parameter])
    for step, weights in enumerate(walk, start=1):
        with torch.no_grad():
            parameter.copy_(weights)
        average.update(step)
    return average.values[0]


@pytest.mark.parametrize("steps", [SPAN, SPAN + 1, 200])
def test_it_weighs_steps_by_a_power(steps: int) -> None:
    """Step u of t weighs ``C(u - 1, SPAN - 1) / C(t, SPAN)``, a polynomial of degree SPAN - 1."""
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(steps, 3, dtype=torch.float64, generator=generator)
    shares = [math.comb(u - 1, SPAN - 1) / math.comb(steps, SPAN) for u in range(1, steps + 1)]
    assert sum(shares) == pytest.approx(1)
    expected = torch.tensor(shares, dtype=torch.float64) @ walk
    assert torch.allclose(averaged(walk), expected, atol=1e-12)
    assert torch.equal(averaged(walk[: SPAN - 1]), walk[SPAN - 2])


@pytest.mark.parametrize("steps", [100, 1000])
def test_it_lags_by_a_fixed_share(steps: int) -> None:
    walk = torch.arange(1, steps + 1, dtype=torch.float64)[:, None]
    lag = steps - averaged(walk).item()
    assert lag == pytest.approx((steps - SPAN) / (SPAN + 1))


def test_nothing_is_left_of_an_exchange() -> None:
    module = torch.nn.Linear(3, 2)
    average = Average(module.parameters())
    average.values[0].add_(1.0)
    before, kept = [p.clone() for p in module.parameters()], [v.clone() for v in average.values]
    memory = [p.data_ptr() for p in module.parameters()]
    with pytest.raises(ZeroDivisionError), average.applied():
        for parameter, value in zip(module.parameters(), kept, strict=True):
            assert torch.equal(parameter, value)
        raise ZeroDivisionError
    assert [p.data_ptr() for p in module.parameters()] == memory
    for now, then in zip([*module.parameters(), *average.values], [*before, *kept], strict=True):
        assert torch.equal(now, then)
