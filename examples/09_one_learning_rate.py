r"""One learning rate for proxies of every size: the sweep behind the default.

Trains proxies of several sizes on an even mixture at learning rates a factor 2 apart, and prints
the mean validation loss of each, by how much each rate misses the best of its size, and where a
parabola through the best three puts the optimum. The rate is that of the recipe, from which the
parametrisation makes one for every kind of weight: see ``bimix_tune.training.parametrisation``.

Run it with ``python examples/09_one_learning_rate.py`` for a miniature on the text of the Python
standard library (about ten seconds; needs the extra ``train``), so small that it only shows how.
The measurement itself takes the starter corpus and a core for seven minutes:

    bimix-tune corpus starter
    python examples/09_one_learning_rate.py --corpus CORPUS --tokens 300k \
        --sizes 0.1M 0.4M 1M 3M --rates 0.002 0.004 0.008
"""

import argparse
import sysconfig
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from bimix_tune import Mixture, build_corpus
from bimix_tune.quantities import parse_count
from bimix_tune.training.llama import LlamaTrainer

arguments = argparse.ArgumentParser()
arguments.add_argument("--corpus", help="folder of a corpus")
arguments.add_argument("--tokens", default="6k", help="training tokens of a run")
arguments.add_argument("--sizes", nargs="+", default=["0.1M", "0.2M"])
arguments.add_argument("--rates", nargs="+", type=float, default=[0.001, 0.002, 0.004])
arguments.add_argument("--seeds", type=int, default=1, help="runs to average")
chosen = arguments.parse_args()


def miniature() -> Path:
    """A corpus of source code and of the language reference that `help()` shows."""
    text = Path("standard_library_sample")
    text.mkdir(exist_ok=True)
    for name, content in topics.items():
        (text / f"{name}.txt").write_text(content, encoding="utf-8")
    code = Path(sysconfig.get_path("stdlib")) / "[a-f]*.py"
    sources = {"code": code, "reference": text}
    return build_corpus(
        sources, cache="corpora", tokenizer=512, max_bytes_per_domain=300_000
    ).folder


def mean_loss(trainer: LlamaTrainer) -> float:
    """Mean validation loss at the end of training on an even mixture."""
    mixture = Mixture(trainer.targets, np.full(len(trainer.targets), 1 / len(trainer.targets)))
    ends = [list(trainer.run(mixture, seed))[-1] for seed in range(chosen.seeds)]
    return float(np.mean([list(end.losses.values()) for end in ends]))


def best_rate(losses: np.ndarray) -> float:
    """Minimum of the parabola through the best rate and its neighbours."""
    at = int(np.clip(losses.argmin(), 1, len(losses) - 2))
    a, b, _ = np.polyfit(np.log(chosen.rates[at - 1 : at + 2]), losses[at - 1 : at + 2], 2)
    inside = np.log(chosen.rates[at - 1]), np.log(chosen.rates[at + 1])
    return float(np.exp(np.clip(-b / (2 * a), *inside))) if a > 0 else chosen.rates[losses.argmin()]


if len(chosen.rates) < 3:
    arguments.error("a parabola needs at least three --rates")
folder, tokens = chosen.corpus or miniature(), parse_count(chosen.tokens, "tokens")
print(f"mean bits/byte after {chosen.tokens} tokens, and how much above the best of the size")
print("size  ", *(f"{rate:>16g}" for rate in chosen.rates), "  optimum  default")
for size in chosen.sizes:
    trainer = LlamaTrainer(corpus=folder, size=size, tokens=tokens, checkpoints=1)
    row = np.array([mean_loss(replace(trainer, learning_rate=rate)) for rate in chosen.rates])
    cells = (f"{x:8.4f} {x / row.min() - 1:+7.1%}" for x in row)
    default = trainer.defaults().learning_rate
    print(f"{size:6}", *cells, f"{best_rate(row):9.2g} {default:8.2g}", flush=True)
