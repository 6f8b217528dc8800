"""BiMixSampler inside Ray Tune: `OptunaSearch` asks it for mixtures, Tune trains and stops runs.

Tune takes a search space by a function that asks an Optuna trial, so `suggest_mixture` is all
there is to it. Two things to know:

- Tune knows no losses by target, only one metric. The law is then fitted to that metric at every
  `training_iteration`, which needs more runs than losses of all targets do.
- Runs that ASHA stops early are told to Optuna as COMPLETE, with the metric that they had then.
  `BiMixSampler` takes notice of the iteration that a value belongs to, and the metric must not be
  on another scale there; `study.best_trial`, other samplers and Optuna's plots do not. Judge by
  the runs that reached the end, as below.

Needs ``pip install "bimix-tune[ray]" "ray[tune]"``. Run it with ``python examples/07_ray_tune.py``
(about half a minute).
"""

import os
import tempfile
import warnings

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from bimix_tune import BiMixSampler, Mixture, SearchSpace, suggest_mixture

TRIALS, ITERATIONS, TOKENS = 10, 8, 1_000_000
space = SearchSpace(["web", "code", "books"])


def choose(trial) -> dict:
    """What to train on, in the words of Tune: a part of the run's configuration."""
    mixture = suggest_mixture(trial, space)
    trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)  # goes to the inner sampler
    return {"mixture": dict(mixture)}


def train(config: dict) -> None:
    """Stands for your training: a loss per domain, which falls with its share and with tokens."""
    mixture = Mixture.normalised(config["mixture"])
    rate = 0.02 * abs(config["learning_rate"] - 3e-3) / 3e-3
    for i in range(1, ITERATIONS + 1):
        tokens = i * TOKENS / ITERATIONS
        terms = zip(mixture.values(), (0.05, 0.3, 0.15), strict=True)
        losses = [(0.02 + r) ** -power * (2 + 300 * tokens**-0.5) for r, power in terms]
        tune.report({"loss": sum(losses) / 3 + rate, "tokens": tokens})


# One law alone is fitted in an instant, where the default blend of several takes a second or two;
# that is nothing beside a training, but Tune warns of it.
warnings.filterwarnings("ignore", message="Define-by-run function")
sampler = BiMixSampler(space, law="additive", n_startup_trials=4, seed=0)
search = OptunaSearch(space=choose, metric="loss", mode="min", sampler=sampler)
ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
tuner = tune.Tuner(
    train,
    tune_config=tune.TuneConfig(
        search_alg=ConcurrencyLimiter(search, max_concurrent=2),
        scheduler=ASHAScheduler(metric="loss", mode="min", max_t=ITERATIONS, grace_period=2),
        num_samples=TRIALS,
        reuse_actors=True,  # else every run starts a process
    ),
    run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
)
results = tuner.fit()
ray.shutdown()

finished = [r for r in results if r.metrics["training_iteration"] == ITERATIONS]
best = min(finished, key=lambda r: r.metrics["loss"])
print(f"{len(results)} runs, {len(finished)} of them to the end")
print("loss of the best:", round(best.metrics["loss"], 4))
print("mixture:", {name: round(r, 3) for name, r in best.config["mixture"].items()})
