"""Your own trainer in a search: a frozen dataclass with three facts and a generator.

The model here is the smallest that learns anything: a table that counts which byte follows
which. It is trained on real text, that of the Python standard library, in a moment, so this is
a whole search on real losses with nothing but NumPy. Run it with
``python examples/05_own_trainer.py`` (about ten seconds).

A training program that is not Python, or that you would rather not import, needs no class: see
``own_program.yaml``.
"""

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from bimix_tune import Domain, LocalExecutor, Mixture, SearchSpace, Target, search
from bimix_tune.report import verdict
from bimix_tune.training import Checkpoint


def text_of(domain: str) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of a domain, the last 20,000 held out for validation."""
    library = Path(sysconfig.get_path("stdlib"))
    if domain == "prose":  # what help() shows of the language reference
        text = "".join(topics.values()).encode()
    else:  # modules, and the tables of old character encodings
        files = sorted(library.glob("*.py" if domain == "code" else "encodings/cp*.py"))
        text = b"".join(path.read_bytes() for path in files)
    data = np.frombuffer(text, np.uint8)
    return data[:-20_000], data[-20_000:]


# The whole contract: `tokens`, `targets`, `unit` and `run`. The value itself is small and frozen,
# so that it travels to other processes; what is large is loaded where the training happens.
@dataclass(frozen=True)
class ByteTrainer:
    """Counts pairs of bytes; a loss is the mean surprise at the next byte of held-out text."""

    tokens: int = 100_000
    targets: tuple[str, ...] = ("code", "prose")
    unit: str = "nats/token"  # a token is a byte
    window: int = 100

    def run(self, mixture: Mixture, seed: int) -> Iterator[Checkpoint]:
        train = {domain: text_of(domain)[0] for domain in mixture}
        held_out = {target: text_of(target)[1] for target in self.targets}
        rng = np.random.default_rng(seed)  # decides the order of the data, nothing else
        counts = np.full((256, 256), 0.02)
        steps = self.tokens // self.window
        evaluations = np.geomspace(0.1 * steps, steps, 6).round().tolist()
        for step, domain in enumerate(rng.choice(mixture.names, steps, p=mixture.proportions), 1):
            start = rng.integers(len(train[domain]) - self.window)
            piece = train[domain][start : start + self.window]
            np.add.at(counts, (piece[:-1], piece[1:]), 1)
            if step in evaluations:
                # A checkpoint has the loss of every target. In between, a slow trainer yields
                # Checkpoint(tokens) every few seconds, as a sign of life.
                surprise = np.log(counts.sum(axis=1, keepdims=True)) - np.log(counts)
                losses = {t: surprise[v[:-1], v[1:]].mean() for t, v in held_out.items()}
                yield Checkpoint(step * self.window, losses)


# The model is wanted for prose most of all, for code too, and not for tables; whether training on
# tables helps all the same is for the search to find out.
trainer = ByteTrainer()
domains = [Domain(name, tokens=len(text_of(name)[0])) for name in ("code", "prose", "tables")]
targets = [Target("prose", weight=0.75, domain="prose"), Target("code", 0.25, "code")]
space = SearchSpace(domains, targets)

# LocalExecutor trains in this process, where a breakpoint in `run` works. For a cluster replace
# it by RayExecutor(trainer); nothing else changes (see 06_on_a_ray_cluster.py).
with LocalExecutor(trainer) as executor:
    result = search(space, trainer, folder=Path("runs/own_trainer"), trials=12, executor=executor)

print("recommendation:", result.recommendation)
print("law:", result.fit.status)
print("objective of fresh runs, a column for each seed")
for label, values in result.confirmation.objective.items():
    print(f"  {label:15}", *(f"{value:.4f}" for value in values))
print(verdict(result).sentence)
