"""A problem with a known law that the tests of whole studies share."""

from collections.abc import Mapping

import numpy as np
import optuna
import pytest

from bimix_tune import BiMixSampler, Domain, SearchSpace, report_losses, suggest_mixture


class LawProblem:
    """Four domains, a target each; losses are a law of the proportions without noise."""

    names = ("web", "code", "books", "law")
    space = SearchSpace([Domain(n, prior=p) for n, p in zip(names, (6, 2, 1, 1), strict=True)])
    alpha = np.array([0.05, 0.3, 0.15, 0.1])
    level = np.array([2.0, 1.5, 3.0, 2.5])

    def losses(self, mixture: Mapping[str, float], tokens: float = 1000) -> dict[str, float]:
        r = np.array([mixture[n] for n in self.names])
        values = (0.02 + r) ** -self.alpha * (self.level + 20 * tokens**-0.5)
        return dict(zip(self.names, values.tolist(), strict=True))

    def table(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Flat random mixtures (M, 4) and their losses (M, 4)."""
        r = np.random.default_rng(0).dirichlet(np.ones(4), size)
        return r, np.array([list(self.losses(self.space.mixture(row)).values()) for row in r])

    def objective(self, trial: optuna.Trial) -> float:
        """The mean loss, with two checkpoints recorded."""
        mixture = suggest_mixture(trial, self.space)
        return [report_losses(trial, t, self.losses(mixture, t)) for t in (300, 1000)][-1]

    def value(self, trial: optuna.Trial) -> float:
        """The mean loss, with nothing recorded."""
        return float(np.mean(list(self.losses(suggest_mixture(trial, self.space)).values())))

    def best(self) -> float:
        return float(self.table(20_000)[1].mean(axis=1).min())

    def sampler(self, **options: object) -> BiMixSampler:
        return BiMixSampler(self.space, **{"seed": 0, **options})

    def study(self, sampler: optuna.samplers.BaseSampler | None = None, **options) -> optuna.Study:
        return optuna.create_study(sampler=sampler or self.sampler(), **options)


@pytest.fixture(scope="session")
def problem() -> LawProblem:
    return LawProblem()
