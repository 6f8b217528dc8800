"""Entropy mixtures: what to train on before anything has been trained.

BiMix proposes to give each domain a share proportional to exp(entropy) of its text, the
effective number of outcomes: the richer the text, the more of it. That takes a tokenizer and
counting, no training at all. Such mixtures are good first runs and fair rivals of a search.

Run it with ``python examples/04_entropy_mixtures.py`` (a few seconds; needs the extra ``train``).
The text is that of the Python standard library, so nothing is fetched.
"""

import ast
import inspect
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics

from bimix_tune import SearchSpace, build_corpus, entropy_mixture
from bimix_tune.entropy import KINDS, domain_entropies
from bimix_tune.strategies import baseline_mixtures

# 1. Three folders of text: source code, the docstrings within it, and the language reference
#    that `help()` shows. Your own domains can be folders, globs of .jsonl or .parquet files
#    (also .gz and .zst), or data sets of Hugging Face.
text = Path("standard_library")
sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:80]


def write(domain: str, name: str, content: str) -> None:
    """Add one document to a domain."""
    (text / domain).mkdir(parents=True, exist_ok=True)
    (text / domain / f"{name}.txt").write_text(content, encoding="utf-8")


for path in sources:
    source = path.read_text(encoding="utf-8")
    write("code", path.stem, source)
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [ast.get_docstring(n) for n in ast.walk(ast.parse(source)) if isinstance(n, nodes)]
    write("docstrings", path.stem, "\n\n".join(filter(None, found)))
for name, content in topics.items():
    write("reference", name, inspect.cleandoc(content))

# 2. The corpus: the text as tokens on disk, split into training and validation documents. The
#    tokenizer is trained on a sample of all domains. Run the script again, and it is found again.
corpus = build_corpus(
    {domain: text / domain for domain in ("code", "docstrings", "reference")},
    cache="corpora",
    tokenizer=1024,
)
for domain in corpus.domains():
    print(f"{domain.name:11} {domain.tokens:9,} training tokens")

# 3. Entropies in nats, measured on equally many tokens of each domain, so that size does not
#    leak into them: SE of tokens, CE of a token given the one before, JE of both together, and
#    VNE of whole passages (how different they are from each other).
print(f"\n{'entropy':8}", *(f"{name:>11}" for name in corpus.names))
for kind in KINDS:
    print(f"{kind:8}", *(f"{value:11.3f}" for value in domain_entropies(corpus, kind).values()))

# 4. The mixtures, one for each kind, beside the natural and the uniform one. A budget of training
#    tokens adds UniMax, which is uniform as far as no domain has to be repeated.
space = SearchSpace(corpus.domains())
baselines = baseline_mixtures(space, corpus, budget=500_000)
print(f"\n{'mixture':8}", *(f"{name:>11}" for name in space.names))
for label, mixture in baselines.items():
    print(f"{label:8}", *(f"{share:11.3f}" for share in mixture.values()))

# 5. Without a search at hand, take CE, the kind that the paper prefers. With one, hand all of
#    them to it: search(space, trainer, folder=..., baselines=baselines).
print("\nconditional entropy alone:", entropy_mixture(corpus, "CE"))
