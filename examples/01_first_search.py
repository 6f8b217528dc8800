"""A first search: which mixture of four domains trains the best model?

A search is a closed loop. It trains small proxy models on different mixtures, fits a law to
their loss curves, asks the law which mixture to try next, and in the end trains its
recommendation against the mixtures that one would have used without any search.

Run it with ``python examples/01_first_search.py`` (needs the extra ``report`` for its last step).
It takes a few seconds, because the proxies are make-believe: the trainer "synthetic" draws loss
curves from an invented law and adds the noise of a training run. Everything else is what a search
on real text does.
"""

from pathlib import Path

from bimix_tune import Domain, SearchSpace, load_trainer, search
from bimix_tune.report import verdict, write_report

# 1. The search space: the domains to mix, here with their natural proportions (the `prior`).
#    Bounds and the tokens available can be said too. By default each domain has one validation
#    set, a *target*, and all targets weigh the same; `Target` changes that.
space = SearchSpace(
    [
        Domain("web", prior=0.70),
        Domain("code", prior=0.15),
        Domain("books", prior=0.10),
        Domain("wiki", prior=0.05),
    ]
)

# 2. The trainer: the recipe of one proxy run. Other names are "llama" (a small, fast model),
#    "transformers" (any causal language model) and "command" (your own program).
trainer = load_trainer("synthetic", domains=space.names, tokens=2_000_000, problem=7)

# 3. The loop. The first runs are the training-free baselines, then some that spread over the
#    space, then proposals of the law. Runs that cannot win are stopped early. Everything is kept
#    in the folder: interrupt the script, start it again, and the search goes on where it was.
result = search(space, trainer, folder=Path("runs/first_search"), trials=16, confirm_seeds=3)

print("run  role      state        tokens  objective")
for record in result.records:
    if record.role != "confirmation" and record.curve is not None:
        # A run that was stopped (PRUNED) has fewer tokens, and the objective is that of its end.
        print(
            f"{record.number:3d}  {record.role:8}  {record.state:8} "
            f"{record.curve.tokens[-1]:10,.0f}  {record.objective:.4f}"
        )

# 4. The answer: the optimum of the law that was fitted to all of these runs ...
print("\nrecommendation:", result.recommendation)
print("law:", result.fit.status)

# 5. ... and the evidence. The recommendation and every baseline were trained again under three
#    seeds that the search had not seen, and are compared seed by seed.
for rival in result.confirmation.comparisons:
    print(
        f"gain over {rival.label}: {rival.mean:.4f} {result.unit}, "
        f"95 % interval {rival.low:.4f} to {rival.high:.4f}"
    )
print(verdict(result).sentence)

# 6. The same as a page with plots, for the people who were not here.
print("report:", write_report(result, result.folder / "report.html"))
