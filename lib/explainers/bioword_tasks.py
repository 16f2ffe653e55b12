"""What the chapter *bioword* measures its vectors with: texts, baselines, and tasks that need no download.

Used by the chapter's notebook and by ``python -m explainers.bioword_recorded``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from .bioword import cooccurrences
from .corpus import PACKAGES, Corpus, Vocabulary, encode_corpus, subsample, tokenize

# Words that mean different things in different packages.
_POLYSEMOUS = """
kernel order norm class tree axis figure field degree transform model frame basis state graph window root domain
loss distribution filter scale grid rank mode step
"""
POLYSEMOUS = tuple(_POLYSEMOUS.split())


@dataclass(frozen=True)
class Stream:
    """A text as numbers: the vocabulary, the flat words, where documents begin, and the package of each document."""

    vocab: Vocabulary
    token_ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def documents(self) -> NDArray[np.int64]:
        """The document of each word, shape (N,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def thinned(self, threshold: float = 1e-4, seed: int = 0) -> Stream:
        """Return the stream with frequent words thinned out, as word2vec does."""
        ids, offsets = subsample(self.token_ids, self.offsets, self.vocab.counts, threshold, seed)
        return Stream(self.vocab, ids, offsets, self.labels)


def text_stream(token_docs: Iterable[Sequence[str]], labels: ArrayLike, min_count: int) -> Stream:
    """Return the words that occur at least ``min_count`` times, as numbers."""
    docs = list(token_docs)
    vocab = Vocabulary.build(docs, min_count=min_count, specials=())
    return Stream(vocab, *encode_corpus(docs, vocab), np.asarray(labels))


def docstring_stream(docs: Corpus, min_count: int = 10) -> Stream:
    """Return the prose of the docstring corpus; a document's label is the place of its package in PACKAGES."""
    labels = [PACKAGES.index(doc.package) for doc in docs]
    return text_stream(map(tokenize, docs.prose()), labels, min_count)


# ---------------------------------------------------------------- dense baselines


def ppmi(stream: Stream, half_window: int = 5) -> sparse.csr_matrix:
    """Return positive pointwise mutual information of words and their neighbours, (V, V)."""
    counts = cooccurrences(stream.token_ids, stream.offsets, len(stream.vocab), half_window).tocoo()
    rows, columns = (np.asarray(counts.sum(axis)).ravel() for axis in (1, 0))
    information = np.log(counts.data * counts.sum() / (rows[counts.row] * columns[counts.col]))
    kept = information > 0
    entries = (information[kept], (counts.row[kept], counts.col[kept]))
    return sparse.csr_matrix(entries, shape=counts.shape)


def svd_vectors(matrix: sparse.csr_matrix, dimensions: int, seed: int = 0) -> NDArray[np.float64]:
    """Return word vectors from a truncated singular value decomposition, columns scaled by the root of the value."""
    from sklearn.utils.extmath import randomized_svd

    left, values, _ = randomized_svd(matrix, dimensions, n_iter=4, random_state=seed)
    return left * np.sqrt(values)


def int8(x: NDArray) -> NDArray[np.int8]:
    """Return vectors rounded to 8 bits a dimension, one scale for each dimension.

    >>> int8(np.array([[1.0, -0.5], [0.5, 0.25]])).tolist()
    [[127, -127], [64, 64]]
    """
    return np.round(127 * x / np.abs(x).max(0)).astype(np.int8)


def arbitrary_ties(scores: NDArray, k: int) -> NDArray[np.bool_]:
    """Return the k places that argpartition names: it fills up with zeros, in no meaningful order."""
    code = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(code, np.argpartition(-scores, k - 1, axis=1)[:, :k], True, axis=1)
    return code


# ---------------------------------------------------------------- tasks


def unit_vectors(x: ArrayLike) -> NDArray[np.float32]:
    """Return the rows of ``x``, numbers or booleans, scaled to length 1; rows of zeros stay."""
    values = np.asarray(x, dtype=np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def plural_pairs(vocab: Vocabulary, min_count: int = 20) -> NDArray[np.int64]:
    """Return the pairs (word, word + "s") that are both frequent enough, (m, 2)."""
    known = {word for word, count in zip(vocab.words, vocab.counts) if count >= min_count}
    pairs = [(vocab.index[w], vocab.index[w + "s"]) for w in vocab.words if w in known and w + "s" in known]
    return np.array(pairs)


def reciprocal_rank(vectors: ArrayLike, pairs: NDArray) -> float:
    """Return the mean of 1 / (rank of the partner) among all words, by cosine; ties share their mean rank."""
    units = unit_vectors(vectors)
    found = units[pairs[:, 0]] @ units.T
    rows = np.arange(len(pairs))
    found[rows, pairs[:, 0]] = -np.inf
    wanted = found[rows, pairs[:, 1]][:, None]
    ranks = 1 + (found > wanted).sum(1) + ((found == wanted).sum(1) - 1) / 2
    return float(np.mean(1 / ranks))


def package_words(stream: Stream, min_count: int = 50, share: float = 0.6) -> tuple[NDArray, NDArray]:
    """Return the words of which one package holds most documents, and that package."""
    shape = (len(stream.vocab), len(stream.labels))
    member = sparse.coo_matrix((np.ones(len(stream.token_ids)), (stream.token_ids, stream.documents)), shape).tocsr()
    member.data[:] = 1
    by_package = member @ np.eye(len(PACKAGES))[stream.labels]
    at_home = by_package.max(1) >= share * by_package.sum(1)
    words = np.flatnonzero((stream.vocab.counts >= min_count) & at_home)
    return words, by_package[words].argmax(1)


def neighbour_accuracy(vectors: ArrayLike, labels: NDArray, n_neighbors: int = 5, groups: ArrayLike | None = None):
    """Return how often the nearest rows (cosine), voting, name a row's label; a row's own group does not vote."""
    units = unit_vectors(vectors)
    found = units @ units.T
    groups = np.arange(len(units)) if groups is None else np.asarray(groups)
    found[groups[:, None] == groups] = -np.inf
    nearest = np.argsort(-found, axis=1, kind="stable")[:, :n_neighbors]
    votes = np.eye(labels.max() + 1)[labels[nearest]].sum(1)
    return float((votes.argmax(1) == labels).mean())


def occurrences(
    stream: Stream, word: str, half_window: int = 5, most: int = 400, seed: int = 0
) -> tuple[NDArray, NDArray, NDArray]:
    """Return windows around a word, their documents, and the documents' packages; a sample of ``most`` of them."""
    places = np.flatnonzero(stream.token_ids == stream.vocab.index[word])
    bounds = stream.offsets[stream.documents[places] + np.array([[0], [1]])]
    places = places[(places - bounds[0] >= half_window) & (bounds[1] - places > half_window)]
    if len(places) > most:
        places = np.sort(np.random.default_rng(seed).choice(places, most, replace=False))
    documents = stream.documents[places]
    windows = stream.token_ids[places[:, None] + np.arange(-half_window, half_window + 1)]
    return windows, documents, stream.labels[documents]
