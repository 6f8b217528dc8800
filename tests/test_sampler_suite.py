"""Optuna's own test suites for samplers, run on ours."""

import pytest
from optuna.samplers import TPESampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from bimix_tune import BiMixSampler, Domain, SearchSpace

SPACE = SearchSpace([Domain("web"), Domain("code"), Domain("books")])


class TestBiMixSampler(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self):
        return lambda: BiMixSampler(SPACE, independent_sampler=TPESampler(n_startup_trials=0))
