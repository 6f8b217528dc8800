"""A training program that knows nothing of this package; see own_program.yaml.

It reads the proportions, trains (here: evaluates an invented formula with some noise), and
prints its losses. Anything that can do this can be searched with.
"""

import argparse
import json
import random

parser = argparse.ArgumentParser()
parser.add_argument("mixture", help="JSON file: proportion by domain")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tokens", type=int, default=1_000_000)
options = parser.parse_args()
with open(options.mixture, encoding="utf-8") as file:
    share = json.load(file)  # {"web": 0.5, "code": 0.3, "books": 0.2}

random.seed(f"{options.seed} {share}")
luck = random.gauss(1.0, 0.003)
print("a training log may be printed too: lines that are no JSON are ignored")
for part in (0.1, 0.2, 0.4, 0.7, 1.0):
    tokens = round(part * options.tokens)
    level = 2.0 + 60 * tokens**-0.4
    losses = {
        "code": luck * level * (0.01 + share["code"]) ** -0.10,
        "essays": luck * level * (0.01 + share["books"] + 0.3 * share["web"]) ** -0.08,
    }
    print(json.dumps({"tokens": tokens, "losses": losses}), flush=True)
