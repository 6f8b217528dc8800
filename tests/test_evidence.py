"""Which runs of a large study a law is fitted to."""

import numpy as np
import pytest

from bimix_tune.curves import LossCurve
from bimix_tune.evidence import MOST_CURVES, Evidence, evenly
from bimix_tune.laws import fit, optimise
from bimix_tune.space import SearchSpace
from bimix_tune.training.synthetic import SyntheticTrainer

TRAINER = SyntheticTrainer(checkpoints=1)
SPACE = SearchSpace(TRAINER.domains)


def runs(count, seed=0, around=None):
    """Runs of random mixtures, or of some near a mixture."""
    rng = np.random.default_rng(seed)
    parameters = np.ones(len(SPACE.names)) if around is None else 60 * SPACE.array(around)
    found = []
    for number in range(count):
        mixture = SPACE.mixture(rng.dirichlet(parameters))
        end = list(TRAINER.run(mixture, number))[-1]
        losses = [[end.losses[t] for t in SPACE.target_names]]
        found.append(
            LossCurve(mixture, [end.tokens], losses, SPACE.target_names, [True], run=str(number))
        )
    return found


def evidence(curves):
    weights = SPACE.weights
    return Evidence(curves, SPACE, weights[None], np.full(len(weights), np.inf))


@pytest.mark.parametrize(("count", "taught"), [(1, 1), (31, 31), (33, 32), (271, MOST_CURVES)])
def test_a_law_learns_from_all_runs_while_they_are_few(count, taught):
    found = evidence(runs(count)).taught().curves
    assert len(found) == taught
    numbers = [int(c.run) for c in found]
    assert numbers == sorted(set(numbers))


def test_runs_are_chosen_evenly_from_the_first_to_the_last():
    curves = runs(1000)
    chosen = [int(c.run) for c in evenly(curves, 100)]
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 999, 100)
    assert set(np.diff(chosen)) <= {10, 11}
    assert evenly(curves, 1000) is curves


def test_the_law_of_a_large_study_is_right_about_its_optimum():
    """A choice of the runs with the least losses would be one of the luckiest."""
    best = optimise(fit(runs(60), SPACE, "transfer", judge=False), SPACE, TRAINER.tokens)
    taught = evidence([*runs(40, 1), *runs(960, 2, best)]).taught().curves
    law = fit(taught, SPACE, "transfer", judge=False)
    expected = np.mean(list(TRAINER.expected(best, TRAINER.tokens, True).values()))
    assert law.objective([best], TRAINER.tokens)[0][0] == pytest.approx(expected, abs=2e-3)
