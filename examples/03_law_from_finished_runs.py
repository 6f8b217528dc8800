"""A law from runs that are finished: what do these trainings say about other mixtures?

You trained a dozen models and have a table of losses. A law fitted to it predicts the loss of
each target for any mixture and any number of training tokens, says how far it can be trusted,
and names the best mixture under the limits of your data. Run it with
``python examples/03_law_from_finished_runs.py`` (a few seconds; nothing is trained).
"""

import csv
from pathlib import Path

import numpy as np

from bimix_tune import Domain, SearchSpace, fit, optimise, read_curves
from bimix_tune.laws import Group, explain, find_optimum
from bimix_tune.training.synthetic import SyntheticTrainer

# 1. The table. One row is one evaluation: run, proportions (r_...), tokens, losses (loss_...).
#    This one is invented: fourteen random mixtures. Its rows stop before the learning-rate decay,
#    because a table has no column that tells the lower losses after it from the others.
available = {"web": 4_000_000_000, "code": 300_000_000, "books": 90_000_000, "wiki": 40_000_000}
space = SearchSpace([Domain(name, tokens=count) for name, count in available.items()])
trainer = SyntheticTrainer(domains=space.names, tokens=10_000_000, problem=5)
table = Path("finished_runs.csv")
rng = np.random.default_rng(0)
columns = [f"r_{name}" for name in space.names], [f"loss_{name}" for name in space.target_names]
with table.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["run_id", "tokens", *columns[0], *columns[1]])
    for run, shares in enumerate(rng.dirichlet([1.5] * 4, size=14)):
        mixture = space.mixture(shares)
        for point in trainer.run(mixture, seed=run):
            if not point.decayed:
                writer.writerow([run, point.tokens, *mixture.values(), *point.losses.values()])

# 2. Read it. Also read: JSON lines that a search left, and olmix's ratios.csv + metrics.csv.
curves = read_curves(table)
tokens = curves[0].tokens[-1]
print(f"{len(curves)} runs of {tokens:,.0f} tokens")

# 3. Fit. The space gives the domains and the targets (here the same, weighed alike).
law = fit(curves, space)
print(law.status)

# 4. Trust. Each run was also predicted by a law that had not seen it.
for target, error in zip(space.target_names, law.held_out.relative_error, strict=True):
    print(f"  {target:5} held-out error {error:.2%}")

# 5. Predict. Twice the tokens of any run is an extrapolation; since the losses are invented, the
#    truth is known.
uniform, later = space.uniform(), 2 * tokens
predicted, truth = law.predict(uniform, later)[0], trainer.expected(uniform, later)
print(f"uniform mixture at {later:,.0f} tokens")
for target, loss in zip(space.target_names, predicted, strict=True):
    print(f"  {target:5} predicted {loss:.3f}, true {truth[target]:.3f}")

# 6. Optimise, first freely, then for a run of a billion tokens that may repeat no domain more
#    than four times. The deviation is the law's own doubt, without the noise of one run.
budget = 1_000_000_000
capped = space.cap_epochs(budget, max_epochs=4)
candidates = {
    "natural": space.natural(),
    "best": optimise(law, space, budget),
    "best in 4 epochs": optimise(law, capped, budget),
}
print(f"mixtures for {budget:,} tokens")
for label, mixture in candidates.items():
    mean, sd = law.objective(mixture, budget, noise=False)
    shares = "  ".join(f"{name} {share:.3f}" for name, share in mixture.items())
    print(f"  {label:17} {shares}   objective {mean[0]:.3f} ± {sd[0]:.3f}")

# 7. Why this one? What one more percent of the tokens from a domain does, all others giving way
#    in proportion: to the objective, and to the target that it helps most. A domain at its cap
#    would help further.
print("one more percent of a domain, from the best mixture in 4 epochs")
found = explain(law, candidates["best in 4 epochs"], budget)
for j, name in enumerate(space.names):
    most = int(found.effects[:, j].argmin())
    print(
        f"  {name:5} objective {found.objective[j]:+.4f} ± {found.deviation[j]:.4f}, "
        f"{space.target_names[most]} {found.effects[most, j]:+.4f}"
    )
for sentence in found.outside:
    print(f"  {sentence}")

# 8. Other aims. The least loss of the worst target, with a bound on the sum of two domains.
fair = find_optimum(
    law, capped, budget, objective="worst", groups=[Group(["books", "wiki"], high=0.3)]
)
shares = "  ".join(f"{n} {r:.3f}" for n, r in zip(space.names, fair.proportions, strict=True))
print(f"least worst loss {fair.value:.3f}: {shares} ({fair.status})")

# 9. Doubt. A fit is a distribution of laws; the best mixture of each is one plausible answer.
print("share in the best mixture, 90 % of plausible laws")
draws = space.matrix(optimise(law.draw(rng), capped, budget) for _ in range(50))
for name, low, high in zip(space.names, *np.quantile(draws, [0.05, 0.95], axis=0), strict=True):
    print(f"  {name:5} {low:.3f} to {high:.3f}")
