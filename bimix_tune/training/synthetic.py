"""A training that costs nothing and whose true losses are known, to try a search on.

Losses follow BiMix with transfer (see `SyntheticTrainer.expected`) for invented coefficients,
with the noise of a run on top. The formula is written out here, not taken from the laws, so
that a fitted law is judged by something other than itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bimix_tune.curves import NATS_PER_TOKEN
from bimix_tune.errors import ConfigError
from bimix_tune.mixture import Mixture
from bimix_tune.options import names
from bimix_tune.simplex import Array
from bimix_tune.training.base import Checkpoint
from bimix_tune.training.mixing import check_domains
from bimix_tune.training.schedule import Steps

DECAY_GAIN = 0.04
"""Share of the loss that the learning-rate decay takes off (0.27 to 0.34 of 4 to 6 nats were
measured on proxies, less on long runs)."""
PERSISTENCE = 0.9
"""Share of the noise variance that all checkpoints of a run have in common."""


@dataclass(frozen=True, kw_only=True)
class SyntheticTrainer:
    """Draws loss curves from a known law.

    Args:
        domains: Names of the domains, which are the targets too.
        tokens: Training tokens of a complete run.
        problem: Seed of the law's coefficients.
        noise: Relative standard deviation of a run's losses.
        checkpoints: Evaluations in a run.
        sleep: Seconds before each checkpoint, to look like a training.

    Raises:
        ConfigError: There is no domain, or a number is out of its range.
    """

    domains: tuple[str, ...] = ("web", "code", "books", "wiki")
    tokens: int = 1_000_000
    problem: int = 0
    noise: float = 0.005
    checkpoints: int = 6
    sleep: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "domains", names("domains", self.domains))
        if not self.domains or len(set(self.domains)) != len(self.domains):
            raise ConfigError(f"domains must be different names, but got {self.domains!r}")
        if self.noise < 0 or self.sleep < 0:
            raise ConfigError(
                f"noise and sleep must be >= 0, but got noise={self.noise!r}, sleep={self.sleep!r}"
            )
        Steps(self.tokens, 1, 1).evaluations(self.checkpoints)

    @property
    def targets(self) -> tuple[str, ...]:
        return self.domains

    @property
    def unit(self) -> str:
        return NATS_PER_TOKEN

    def expected(self, mixture: Mixture, tokens: float, decayed: bool = False) -> dict[str, float]:
        """Losses without noise.

        ``L_i = (B_i / s^beta_i + C_i) / (eps_i + r_i + sum_j T_ij r_j)^alpha_i``, times
        ``1 - DECAY_GAIN`` at the end of the decay; r proportions, s tokens.

        Args:
            mixture: Proportions; a domain that is not named has none.
            tokens: Training tokens s.
            decayed: Whether the learning rate had decayed.

        Raises:
            MixtureError: A domain is unknown.
        """
        check_domains(mixture, dict.fromkeys(self.domains))
        law = self._coefficients()
        r = np.array([mixture.get(name, 0.0) for name in self.domains])
        share = law["floor"] + r + law["transfer"] @ r
        level = law["b"] * (tokens / 1e6) ** -law["beta"] + law["c"]
        losses = level / share ** law["alpha"] * (1 - DECAY_GAIN * decayed)
        return dict(zip(self.domains, losses.tolist(), strict=True))

    def run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        """Yield the curve of one run; see `bimix_tune.training.base.Trainer.run`."""
        began = time.monotonic()
        check_domains(mixture, dict.fromkeys(self.domains))
        digest = hashlib.sha256(repr(sorted(mixture.items())).encode()).digest()
        rng = np.random.default_rng([self.problem, seed, *digest])
        common = rng.standard_normal(len(self.domains)) * PERSISTENCE**0.5
        for at in Steps(self.tokens, 1, 1).evaluations(self.checkpoints):
            time.sleep(self.sleep)
            own = rng.standard_normal(len(self.domains)) * (1 - PERSISTENCE) ** 0.5
            factor = dict(zip(self.domains, np.exp(self.noise * (common + own)), strict=True))
            decayed = at == self.tokens
            truth = self.expected(mixture, at, decayed)
            losses = {name: float(truth[name] * factor[name]) for name in self.domains}
            yield Checkpoint(at, losses, decayed, time.monotonic() - began)

    def _coefficients(self) -> dict[str, Array]:
        """Coefficients in the range that fits to small proxies gave; tokens in millions."""
        k = len(self.domains)
        rng = np.random.default_rng([self.problem, 1])
        transfer = rng.uniform(0, 0.3, (k, k)) * (rng.random((k, k)) < 0.4)
        np.fill_diagonal(transfer, 0.0)
        return {
            "alpha": rng.uniform(0.05, 0.20, k),
            "b": rng.uniform(0.8, 1.6, k),
            "beta": rng.uniform(0.3, 0.6, k),
            "c": rng.uniform(1.2, 2.4, k),
            "floor": rng.uniform(0.005, 0.02, k),
            "transfer": transfer,
        }
