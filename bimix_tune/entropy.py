"""Training-free mixtures from the entropy of the text (BiMix, arXiv 2405.14908, section 4c).

Every domain gets a share proportional to exp(entropy), its effective number of outcomes:
richer text, more weight. Four entropies are defined in the paper's appendix A, in nats, with
x' the token after x:

====  ==============  ================================================================
SE    Shannon         ``-sum_x P(x) log P(x)``
JE    joint           ``-sum_{x,x'} P(x,x') log P(x,x')``
CE    conditional     ``-sum_{x,x'} P(x,x') log P(x'|x)``, the paper's preferred one
VNE   von Neumann     ``-tr(rho log rho)``, rho the kernel matrix of text vectors over N
====  ==============  ================================================================

Counted entropies are too small in small samples, and the more so the more outcomes there are;
the size of a domain would then leak into its weight. So all domains are measured on equally
many tokens, as many as the smallest one has, and counts go through Grassberger's estimator,
which for bigram tables of such size halves the error of the plain formula (the usual
Miller-Madow correction removes about a quarter).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bimix_tune.corpus import Corpus
from bimix_tune.errors import CorpusError, did_you_mean
from bimix_tune.mixture import Mixture
from bimix_tune.simplex import Array

Ints = NDArray[np.int64]

SAMPLE_TOKENS = 2_000_000
"""Greatest number of tokens looked at in each domain."""

WINDOW = 1024
"""Tokens of a text for VNE: the sequence length of the paper (section 4)."""

_VECTOR_SIZE = 300
"""Components of a word vector, as in the paper (FastText, 300-d)."""

_VOCABULARY = 2048
"""Most frequent tokens that get a word vector; keeps the matrix of co-occurrence at 32 MB."""

_REACH = 4
"""Neighbours on either side that count as co-occurring (Levy & Goldberg 2014 use 2 to 5)."""


def entropy_mixture(corpus: Corpus, kind: str) -> Mixture:
    """The mixture that one kind of entropy gives; see `mixture_of_entropies`.

    Args:
        corpus: Tokenised domains.
        kind: ``"SE"``, ``"CE"``, ``"JE"`` or ``"VNE"``, in any case.

    Raises:
        CorpusError: There is no such kind.
    """
    return mixture_of_entropies(domain_entropies(corpus, kind))


def mixture_of_entropies(entropies: Mapping[str, float]) -> Mixture:
    """The mixture ``r_i = exp(H_i) / sum_j exp(H_j)`` (paper, eq. 13) of entropies in nats."""
    values = np.array(list(entropies.values()))
    weights = np.exp(values - values.max())
    return Mixture(entropies, weights / weights.sum())


def domain_entropies(
    corpus: Corpus, kind: str, max_tokens: int = SAMPLE_TOKENS
) -> dict[str, float]:
    """Entropy of each domain in nats, from equally many training tokens of each.

    The tokens are the first ones of a domain; since a corpus orders its documents by a hash,
    they are a random sample of documents, always the same one.

    Args:
        corpus: Tokenised domains.
        kind: ``"SE"``, ``"CE"``, ``"JE"`` or ``"VNE"``, in any case.
        max_tokens: Look at no more tokens of a domain than this.

    Raises:
        CorpusError: There is no such kind.
    """
    measure = _MEASURES.get(kind.upper())
    if measure is None:
        raise CorpusError(f"unknown entropy {kind!r}" + did_you_mean(kind.upper(), KINDS))
    size = min([max_tokens, *(corpus.count(name) for name in corpus.names)])
    samples = [np.asarray(corpus.tokens(name)[:size], np.int64) for name in corpus.names]
    values = measure(samples, corpus.end_token, corpus.vocab_size)
    return dict(zip(corpus.names, values, strict=True))


def entropy_from_counts(counts: Sequence[int] | Ints, outcomes: int) -> float:
    """Entropy of a distribution from how often each outcome was seen, in nats.

    Grassberger (2003, arXiv physics/0307138): ``log N - 1/N sum_i n_i G(n_i)``,
    ``G(n) = psi(n) + (-1)^n / 2 (psi((n+1)/2) - psi(n/2))``; then clipped to what is possible.

    Args:
        counts: Sightings of each outcome; zeros do not matter.
        outcomes: How many outcomes there are, seen or not.

    >>> round(float(entropy_from_counts([5000, 5000], 2) / np.log(2)), 3)
    1.0
    """
    seen = np.asarray(counts)
    seen = seen[seen > 0]
    if not len(seen):
        return 0.0
    total = float(seen.sum())
    values, times = np.unique(seen, return_counts=True)
    entropy = np.log(total) - float((times * values * _digamma_like(values)).sum()) / total
    return float(np.clip(entropy, 0.0, np.log(outcomes)))


def _digamma_like(n: Ints) -> Array:
    """Grassberger's G(n) for n >= 1, by its recursion ``G(2k+2) = G(2k) + 2/(2k+1)``.

    ``G(1) = -gamma - log 2``, ``G(2k+1) = G(2k)``; written as a sum over k, with the asymptotic
    ``log 2k`` (off by less than 1e-8) above 10,000.
    """
    limit = 10_000
    table = np.concatenate([[0.0], np.cumsum(2.0 / (2 * np.arange(limit // 2) + 1))])
    small = table[np.minimum(n, limit) // 2] - np.euler_gamma - np.log(2.0)
    return np.asarray(np.where(n <= limit, small, np.log(np.maximum(n - n % 2, 1))))


def _pairs(tokens: Ints, end_token: int) -> tuple[Ints, Ints]:
    """Neighbouring tokens (x, x') of the same document, each (P,)."""
    inside = (tokens[:-1] != end_token) & (tokens[1:] != end_token)
    return tokens[:-1][inside], tokens[1:][inside]


def _shannon(tokens: Ints, end_token: int, vocab_size: int) -> float:
    return entropy_from_counts(np.bincount(tokens[tokens != end_token]), vocab_size)


def _joint(tokens: Ints, end_token: int, vocab_size: int) -> float:
    first, second = _pairs(tokens, end_token)
    counts = np.unique(first * vocab_size + second, return_counts=True)[1]
    return entropy_from_counts(counts, vocab_size**2)


def _conditional(tokens: Ints, end_token: int, vocab_size: int) -> float:
    """``H(x'|x) = H(x, x') - H(x)``, with x over the first tokens of the pairs."""
    first, _ = _pairs(tokens, end_token)
    before = entropy_from_counts(np.bincount(first), vocab_size)
    difference = _joint(tokens, end_token, vocab_size) - before
    return float(np.clip(difference, 0.0, np.log(vocab_size)))


def von_neumann_entropy(vectors: Array) -> float:
    """``-tr(rho log rho)`` of ``rho = K / N`` for the cosine kernel K, in nats.

    Its exponential is the Vendi score (Friedman & Dieng 2023). The eigenvalues of the (N, N)
    matrix rho are those of the (D, D) matrix ``X^T X / N`` of unit vectors X, and zeros.

    Args:
        vectors: One vector for each text, (N, D); a zero vector is left out.

    >>> round(float(von_neumann_entropy(np.eye(4)) / np.log(4)), 6)
    1.0
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.where(norms > 0, norms, 1.0))[norms[:, 0] > 0]
    if not len(unit):
        return 0.0
    small = unit.T @ unit if unit.shape[0] > unit.shape[1] else unit @ unit.T
    eigenvalues = np.linalg.eigvalsh(small / len(unit))
    positive = eigenvalues[eigenvalues > 1e-12]
    return max(0.0, float(-(positive * np.log(positive)).sum()))


def word_vectors(samples: Sequence[Ints], end_token: int, vocab_size: int) -> NDArray[np.float32]:
    """A vector for each token, learned from these samples alone; zero for the rare ones.

    The paper takes FastText vectors, which were learned elsewhere. Factorising the positive
    pointwise mutual information of neighbours, ``U sqrt(|S|)`` of its eigenvectors, gives
    vectors of the same kind (Levy & Goldberg 2014, section 4) without a download,
    without randomness, and in the language of any tokenizer.

    Args:
        samples: Tokens of each domain.
        end_token: Ends a document; it neither has a vector nor is looked across.
        vocab_size: Number of token ids V.

    Returns:
        Vectors, (V, D), D <= 300.
    """
    frequency = np.sum([np.bincount(t, minlength=vocab_size) for t in samples], axis=0)
    frequency[end_token] = 0
    words = np.argsort(-frequency, kind="stable")[:_VOCABULARY]
    words = words[frequency[words] > 0]
    size = len(words)
    place = np.full(vocab_size, -1, np.int64)
    place[words] = np.arange(size)
    near = np.zeros(size * size)
    for tokens in samples:
        row, document = place[tokens], np.cumsum(tokens == end_token)
        for gap in range(1, _REACH + 1):
            left, right = row[:-gap], row[gap:]
            good = (left >= 0) & (right >= 0) & (document[:-gap] == document[gap:])
            near += np.bincount(left[good] * size + right[good], minlength=size * size)
    vectors = np.zeros((vocab_size, min(_VECTOR_SIZE, size)), np.float32)
    vectors[words] = _factorise(near.reshape(size, size))
    return vectors


def _factorise(near: Array) -> NDArray[np.float32]:
    """Counts of neighbours, (M, M), to word vectors, (M, min(M, 300))."""
    near = near + near.T
    marginal = np.maximum(near.sum(axis=0), 1.0)
    ratio = near * near.sum() / np.outer(marginal, marginal)
    information = np.log(np.maximum(ratio, 1.0)).astype(np.float32)
    values, basis = np.linalg.eigh(information)
    strongest = np.argsort(-np.abs(values), kind="stable")[:_VECTOR_SIZE]
    return np.asarray(basis[:, strongest] * np.sqrt(np.abs(values[strongest])), np.float32)


def _von_neumann(samples: Sequence[Ints], end_token: int, vocab_size: int) -> list[float]:
    """VNE of each domain over equally many windows; a window's vector is the mean of its words'."""
    vectors = word_vectors(samples, end_token, vocab_size)
    norms = np.linalg.norm(vectors, axis=1)
    known = np.flatnonzero(norms > 0)
    unit = vectors[known] / norms[known, None]
    place = np.full(vocab_size, len(known), np.int64)  # the rest share a last column
    place[known] = np.arange(len(known))
    window = max(1, min(WINDOW, len(samples[0]) // 64))  # short samples keep 64 texts
    entropies = []
    for tokens in samples:
        counts = _window_counts(place[tokens], window, len(known) + 1)[:, :-1]
        # The cosine does not see the difference between a sum of vectors and their mean.
        entropies.append(von_neumann_entropy((counts @ unit).astype(float)))
    return entropies


def _window_counts(tokens: Ints, window: int, kinds: int) -> NDArray[np.float32]:
    """How often each kind of token occurs in each whole window, (N, kinds)."""
    number = len(tokens) // window
    keys = np.repeat(np.arange(number), window) * kinds + tokens[: number * window]
    return np.bincount(keys, minlength=number * kinds).reshape(number, kinds).astype(np.float32)


def _one_by_one(measure: Callable[[Ints, int, int], float]) -> Callable[..., list[float]]:
    return lambda samples, *facts: [measure(tokens, *facts) for tokens in samples]


_MEASURES: Mapping[str, Callable[[Sequence[Ints], int, int], Any]] = {
    "SE": _one_by_one(_shannon),
    "CE": _one_by_one(_conditional),
    "JE": _one_by_one(_joint),
    "VNE": _von_neumann,
}

KINDS = tuple(_MEASURES)
"""The entropies there are."""
