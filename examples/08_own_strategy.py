"""A search strategy and a search problem of your own in the benchmark, in one file.

On the command line, beside all others, with a report:

    bimix-tune benchmark strategies --strategies examples/08_own_strategy.py:Neighbour,bimix-tune \\
        --problems examples/08_own_strategy.py:THREE_SOURCES,starter-mean --seeds 5

Run it with ``python examples/08_own_strategy.py`` to see them alone (about twenty seconds).
"""

import numpy as np
import optuna

from bimix_tune import SearchSpace
from bimix_tune.benchmark.contest import compare_strategies
from bimix_tune.benchmark.problems import Problem
from bimix_tune.laws.optimum.objectives import Mean
from bimix_tune.strategies import Strategy, strategy_class
from bimix_tune.training import Checkpoint


class Neighbour(Strategy):
    """Tries a mixture near the best one so far; each tenth run is a random one."""

    def propose(self):
        k = len(self.setting.space.names)
        if len(self.curves) % 10 == 0:
            return self.rng.dirichlet(np.ones(k))
        return self.rng.dirichlet(1 + 30 * self.recommend())


class ThreeSources(Problem):
    """A loss per domain that falls with its share, and one per cent of noise."""

    kind = "synthetic"
    name = "three-sources"
    space = SearchSpace(["web", "code", "books"])
    tokens, runs, unit, objective, known = 1_000_000, 20, "nats/token", Mean(), {}
    digest = "three-sources 1"  # change it whenever the numbers below change
    power = np.array([0.05, 0.3, 0.15])

    def losses(self, points):
        return 3 * (0.02 + points) ** -self.power

    def train(self, r, seed):
        noise = np.random.default_rng(seed).normal(1, 0.01)
        for tokens in (250_000, 1_000_000):
            values = self.losses(r) * noise * (1 + 100 * tokens**-0.5)
            losses = dict(zip(self.space.names, values.tolist(), strict=True))
            yield Checkpoint(tokens, losses, decayed=tokens == self.tokens)

    def truth(self, points):
        return self.losses(points).mean(axis=1) * (1 + 100 * self.tokens**-0.5)


THREE_SOURCES = ThreeSources()

if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    players = {"Neighbour": Neighbour, "bimix-tune": strategy_class("bimix-tune")}
    matches = compare_strategies(
        [THREE_SOURCES], "runs/own_strategy", strategies=players, seeds=3, workers=0
    )
    for name in players:
        ends = [m.own for m in matches if m.strategy == name]
        print(f"{name:12s} regret of the recommendation after 20 runs: {np.mean(ends):.4f}")
