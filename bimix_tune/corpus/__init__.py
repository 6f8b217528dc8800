"""Text of many domains as memory-mapped tokens: sources, tokenizer, splits, starter corpus."""

from bimix_tune.corpus.build import build_corpus
from bimix_tune.corpus.sources import Source, Spec
from bimix_tune.corpus.starter import PINS, STARTER_BYTES, starter_sources
from bimix_tune.corpus.store import Corpus

__all__ = ["PINS", "STARTER_BYTES", "Corpus", "Source", "Spec", "build_corpus", "starter_sources"]
