"""What all tests share: hypothesis settings and one small Ray cluster."""

import logging
import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

pytest.register_assert_rewrite("optuna.testing.pytest_samplers")

# No deadline: timings on a shared machine are noise. Derandomised: a red run repeats itself.
hypothesis.settings.register_profile("bimix", deadline=None, derandomize=True)
hypothesis.settings.load_profile("bimix")

# A shell starts its background jobs with SIGINT ignored, which searches under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Ray starts its workers at niceness 15, where they starve beside other tests and miss their limits.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray with two cores and no GPU, started once; `RayExecutor` joins it."""
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",  # not one that somebody else has started here
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100_000_000,
    )
    yield
    ray.shutdown()
