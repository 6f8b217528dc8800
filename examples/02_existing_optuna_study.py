"""BiMixSampler and BiMixPruner in an ordinary Optuna study that also tunes a learning rate.

If you have an Optuna study already, nothing else of this package is needed: ask for the mixture
with `suggest_mixture`, record checkpoints with `report_losses`, and hand the study our sampler
and pruner. The same objective runs under any other sampler, so the comparison at the end costs
one loop. Run it with ``python examples/02_existing_optuna_study.py`` (about ten seconds).
"""

from pathlib import Path

import numpy as np
import optuna

from bimix_tune import BiMixPruner, BiMixSampler, SearchSpace, report_losses, suggest_mixture
from bimix_tune.training.synthetic import SyntheticTrainer
from bimix_tune.trials import mixture_of

TRIALS, SEEDS = 24, 3
space = SearchSpace(["web", "code", "books", "wiki", "forum"])
trainer = SyntheticTrainer(domains=space.names, problem=3)  # stands for your training loop


def learning_rate_factor(rate: float) -> float:
    """An invented cost of a learning rate that is not 0.003, the best one: 2 % for a factor 10."""
    return 1 + 0.02 * np.log10(rate / 3e-3) ** 2


def objective(trial: optuna.Trial) -> float:
    # Define by run: parameters appear where they are needed, the mixture among them. In the
    # study the proportions are the parameters r_web, r_code ..., as real shares.
    mixture = suggest_mixture(trial, space)
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    value = float("nan")
    for checkpoint in trainer.run(mixture, seed=trial.number):
        losses = {k: v * learning_rate_factor(rate) for k, v in checkpoint.losses.items()}
        value = report_losses(trial, checkpoint.tokens, losses, decayed=checkpoint.decayed)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def true_objective(trial: optuna.trial.FrozenTrial) -> float:
    """What a trial's parameters give without noise. Only an invented problem can tell."""
    losses = trainer.expected(mixture_of(trial, space), trainer.tokens, decayed=True)
    return np.mean(list(losses.values())) * learning_rate_factor(trial.params["learning_rate"])


# The mixture comes from the fitted law; every other parameter goes to an inner sampler, which is
# Optuna's TPE unless you name another. TPE alone knows nothing of the sum of proportions: there
# `suggest_mixture` takes the nearest mixture and notes it in the trial.
samplers = {
    "BiMixSampler": lambda seed: BiMixSampler(space, seed=seed),
    "TPESampler": lambda seed: optuna.samplers.TPESampler(seed=seed),
}
optuna.logging.set_verbosity(optuna.logging.WARNING)
studies: dict[str, list[optuna.Study]] = {name: [] for name in samplers}
for name, make in samplers.items():
    for seed in range(SEEDS):
        study = optuna.create_study(sampler=make(seed), pruner=BiMixPruner())
        study.optimize(objective, n_trials=TRIALS)
        studies[name].append(study)

# Each study is judged by the true objective of the trial that it calls the best. Mind what this
# can show: the invented losses follow a law of the very kind that BiMixSampler fits.
print(f"true objective of the best of {TRIALS} trials (lower is better), one column per seed")
for name, runs in studies.items():
    values = [true_objective(study.best_trial) for study in runs]
    columns = "  ".join(f"{value:.4f}" for value in values)
    print(f"{name:13} {columns}   mean {np.mean(values):.4f}")

# Optuna's own tools see an ordinary study.
ours = studies["BiMixSampler"][0]
print("best trial:", {name: round(value, 4) for name, value in ours.best_params.items()})
if optuna.visualization.is_available():
    page = Path("runs/optuna_study.html")
    page.parent.mkdir(exist_ok=True)
    optuna.visualization.plot_slice(ours).write_html(page)
    print("plot:", page)
