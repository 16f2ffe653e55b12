"""Binary word vectors by competing units: the model that its paper likens to a fruit fly, and its relatives.

The library of the chapter *bioword*. A text is a flat array of word numbers with the places where its documents begin
(:func:`explainers.corpus.encode_corpus`); an n-gram is ``2 * half_window + 1`` neighbouring words, a *code* a row of
booleans, one per unit. Shapes: V words, K units, n n-grams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, stats

from .corpus import Vocabulary

__all__ = [
    "BinaryIndex",
    "BioWord",
    "Similarity",
    "assign",
    "code_entropy",
    "cooccurrences",
    "energy",
    "fly_hash",
    "ngram_matrix",
    "pack_codes",
    "sign_hash",
    "top_k_code",
    "update",
    "window_matrix",
    "word_similarity",
    "word_weights",
]

WINNERS = ("raw", "weighted")
KINDS = ("target", "occurrence")
BLOCK = 256  # windows whose rows of scores stay in the cache of a core


# ---------------------------------------------------------------- n-grams


def window_matrix(token_ids: ArrayLike, offsets: ArrayLike, half_window: int) -> NDArray[np.integer]:
    """Return every full window that lies inside one document, in the order of the text.

    Parameters
    ----------
    token_ids : int array, shape (N,)
    offsets : int array, shape (documents + 1,)
        Document d is ``token_ids[offsets[d]:offsets[d + 1]]``.
    half_window : int
        Words on each side of the centre.

    Returns
    -------
    int array, shape (n, 2 * half_window + 1)

    Raises
    ------
    TypeError, ValueError
        If the stream is malformed or ``half_window`` is below 1.

    Examples
    --------
    >>> window_matrix([5, 6, 7, 8, 9, 4], [0, 4, 6], half_window=1).tolist()
    [[5, 6, 7], [6, 7, 8]]
    """
    ids, bounds = _checked_stream(token_ids, offsets)
    centres = _centres(ids, bounds, _at_least(half_window, 1, "half_window"))
    if len(centres) == 0:
        return np.empty((0, 2 * half_window + 1), dtype=ids.dtype)
    return np.lib.stride_tricks.sliding_window_view(ids, 2 * half_window + 1)[centres - half_window]


def ngram_matrix(windows: ArrayLike, vocab_size: int) -> sparse.csr_matrix:
    """Return the n-gram vectors: context words counted in the first V columns, the centre marked in the last V.

    It is `eq-bioword-ngram` of the chapter; :class:`BioWord` never builds this matrix.

    Parameters
    ----------
    windows : int array, shape (n, 2 * half_window + 1)
        Word numbers; -1 where there is no word.
    vocab_size : int
        V.

    Returns
    -------
    scipy.sparse.csr_matrix, shape (n, 2 * V)

    Examples
    --------
    >>> ngram_matrix([[0, 1, 0]], vocab_size=2).toarray()
    array([[2., 0., 0., 1.]])
    """
    table = _checked_windows(windows, vocab_size)
    columns = table.copy()
    centre = table.shape[1] // 2
    columns[:, centre] += vocab_size
    present = table >= 0
    rows = np.repeat(np.arange(len(table)), present.sum(1))
    shape = (len(table), 2 * vocab_size)
    return sparse.coo_matrix((np.ones(len(rows)), (rows, columns[present])), shape=shape).tocsr()


def word_weights(counts: ArrayLike, power: float = 1.0) -> NDArray[np.float64]:
    """Return (1/p) ** power for each word, p its share of the text; 0 for words that do not occur.

    >>> word_weights([2, 2, 0, 4]).tolist()
    [4.0, 4.0, 0.0, 2.0]
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"counts must be a vector without negative entries or nan, got shape {counts.shape}")
    inverse = np.divide(counts.sum(), counts, out=np.ones(len(counts)), where=counts > 0)
    return np.where(counts > 0, inverse ** float(power), 0.0)


def cooccurrences(token_ids: ArrayLike, offsets: ArrayLike, vocab_size: int, half_window: int) -> sparse.csr_matrix:
    """Return how often each word stands in the window around each centre (full windows only).

    Returns
    -------
    scipy.sparse.csr_matrix, shape (V, V)
        Rows are centres, columns context words.

    Examples
    --------
    >>> cooccurrences([0, 1, 0, 2], [0, 4], vocab_size=3, half_window=1).toarray()
    array([[0., 1., 1.],
           [2., 0., 0.],
           [0., 0., 0.]])
    """
    ids, bounds = _checked_stream(token_ids, offsets, vocab_size)
    centres = _centres(ids, bounds, _at_least(half_window, 1, "half_window"))
    return _pairs_at(ids, centres, vocab_size, half_window)


def _pairs_at(ids: NDArray, centres: NDArray, vocab_size: int, half_window: int) -> sparse.csr_matrix:
    columns = np.concatenate([ids[centres + shift] for shift in _shifts(half_window)]).astype(np.int32)
    rows = np.tile(ids[centres].astype(np.int32), 2 * half_window)
    pairs = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(vocab_size, vocab_size))
    return pairs.tocsr()


# ---------------------------------------------------------------- reference: assignment, update, energy


def assign(weights: NDArray, ngrams: sparse.csr_matrix, *, column_weights: ArrayLike | None = None) -> NDArray[np.intp]:
    """Return the unit with the largest score for each n-gram, `eq-bioword-winner`; ties go to the lower unit.

    Parameters
    ----------
    weights : float array, shape (K, 2 * V)
    ngrams : sparse matrix, shape (n, 2 * V)
    column_weights : float array, shape (2 * V,), optional
        None scores the bare counts, as published; with 1/p the score is the one that the energy holds.

    Returns
    -------
    int array, shape (n,)
    """
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.shape[1] != ngrams.shape[1]:
        raise ValueError(f"weights must have shape (K, {ngrams.shape[1]}), got {weights.shape}")
    scored = weights if column_weights is None else weights * _columns(column_weights, ngrams)
    return np.asarray(ngrams @ scored.T).argmax(1)


def update(
    ngrams: sparse.csr_matrix, winners: ArrayLike, n_units: int, column_weights: ArrayLike
) -> NDArray[np.float64]:
    """Return the units of least energy for given winners, `eq-bioword-mstep`: sums of n-grams, scaled to length 1.

    Returns
    -------
    float array, shape (n_units, 2 * V)
        A unit that won nothing gets a row of zeros.
    """
    winners = np.asarray(winners)
    if winners.shape != (ngrams.shape[0],):
        raise ValueError(f"winners must have shape ({ngrams.shape[0]},), one per n-gram, got {winners.shape}")
    member = sparse.csr_matrix((np.ones(len(winners)), (winners, np.arange(len(winners)))), (n_units, len(winners)))
    sums = (member @ ngrams).toarray() * _columns(column_weights, ngrams)
    return _unit_rows(sums)[0]


def energy(weights: NDArray, ngrams: sparse.csr_matrix, winners: ArrayLike, column_weights: ArrayLike) -> float:
    """Return the energy `eq-bioword-energy`, summed over the n-grams one by one.

    Raises
    ------
    ValueError
        If a unit with weights 0 is some n-gram's winner.
    """
    winners = np.asarray(winners)
    lengths = np.linalg.norm(weights, axis=1)
    if (lengths[winners] == 0).any():
        raise ValueError(f"unit {winners[lengths[winners] == 0][0]} wins an n-gram, but its weights are all 0")
    entries = ngrams.tocoo()
    weighted = entries.data * _columns(column_weights, ngrams)[entries.col]
    scores = np.bincount(entries.row, weighted * weights[winners[entries.row], entries.col], minlength=len(winners))
    return float(-np.sum(scores / lengths[winners]))


def _columns(column_weights: ArrayLike, ngrams: sparse.csr_matrix) -> NDArray[np.float64]:
    values = np.asarray(column_weights, dtype=float)
    if values.shape != (ngrams.shape[1],):
        raise ValueError(f"column_weights must have shape ({ngrams.shape[1]},), got {values.shape}")
    return values


def _unit_rows(sums: NDArray) -> tuple[NDArray, NDArray]:
    """Return the rows scaled to length 1 (rows of zeros stay), and their lengths."""
    lengths = np.sqrt(np.square(sums).sum(1))
    return sums / np.where(lengths > 0, lengths, 1)[:, None], lengths


# ---------------------------------------------------------------- the model


class BioWord:
    """Units that compete for n-grams, and the codes of words that they give.

    Training alternates assignment and the exact update, as K-means does, on the flat text; the matrix of n-grams is
    never built.

    Parameters
    ----------
    n_units : int
        K, the length of a code.
    half_window : int
        Words on each side of the centre.
    n_iter : int
        Rounds of assignment and update.
    winner : 'raw' or 'weighted'
        The published rule scores bare counts; ``'weighted'`` scores what the energy scores, counts over p.
    power : float
        Words weigh (1/p) ** power; published is 1.
    seed : int
        For the n-grams that the units start from.

    Attributes
    ----------
    weights_ : float32 array, shape (K, 2 * V)
        Rows of length 1; the exact update of ``winners_``.
    winners_ : int array, shape (n,)
        The unit that won each window in the last assignment.
    energy_ : float array, shape (n_iter, 2)
        After each assignment and after the update that follows.
    word_weights_ : float array, shape (V,)

    Examples
    --------
    >>> text = np.tile([0, 1, 2, 3, 0, 1, 4, 5], 30)
    >>> model = BioWord(n_units=4, half_window=1, n_iter=5).fit(text, [0, len(text)], vocab_size=6)
    >>> model.weights_.shape, bool(model.energy_[-1, 1] <= model.energy_[0, 1])
    ((4, 12), True)
    """

    def __init__(
        self, n_units: int = 400, half_window: int = 5, n_iter: int = 10, *, winner: str = "raw", power: float = 1.0,
        seed: int = 0,
    ):  # fmt: skip
        self.n_units = _at_least(n_units, 2, "n_units")
        self.half_window = _at_least(half_window, 1, "half_window")
        self.n_iter = _at_least(n_iter, 1, "n_iter")
        if winner not in WINNERS:
            raise ValueError(f"winner must be one of {WINNERS}, got {winner!r}")
        self.winner = winner
        self.power = float(power)
        self.seed = seed

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("n_units", "half_window", "n_iter", "winner"))
        return f"<BioWord {shown}{'' if hasattr(self, 'weights_') else ', not fitted'}>"

    def fit(self, token_ids: ArrayLike, offsets: ArrayLike, vocab_size: int) -> BioWord:
        """Train on a text; return the model.

        Raises
        ------
        TypeError, ValueError
            If the stream is malformed, or it has fewer full windows than there are units.
        """
        ids, bounds = _checked_stream(token_ids, offsets, vocab_size)
        centres = _centres(ids, bounds, self.half_window)
        if len(centres) < self.n_units:
            raise ValueError(f"{self.n_units} units need as many full windows, got {len(centres)}")
        self.vocab_size, self._ids, self._centres = vocab_size, ids.astype(np.intp), centres
        self.word_weights_ = word_weights(np.bincount(ids, minlength=vocab_size), self.power)
        columns = np.tile(self.word_weights_, 2)
        rng = np.random.default_rng(self.seed)
        weights = self._ngrams_as_units(rng.choice(centres, self.n_units, replace=False), columns)
        energies = []
        for _ in range(self.n_iter):
            winners = self._winners(weights, columns)
            sums = self._counts(winners)
            sums *= columns
            before = -float(np.sum(weights * sums))
            weights, lengths = _unit_rows(sums)
            energies.append((before, -float(lengths.sum())))
            fitted = weights.astype(np.float32)
            if (empty := np.flatnonzero(lengths == 0)).size:
                weights[empty] = self._ngrams_as_units(rng.choice(centres, empty.size, replace=False), columns)
        self.weights_, self.winners_, self.energy_ = fitted, winners, np.array(energies)
        self.__dict__.pop("_occurrence", None)
        return self

    def static_scores(self, word_ids: ArrayLike | None = None, *, kind: str = "target") -> NDArray[np.float32]:
        """Return the scores of words without a context.

        Parameters
        ----------
        word_ids : int array, shape (m,), optional
            All words by default.
        kind : 'target' or 'occurrence'
            ``'target'`` is the published vector, the word's column in the target half, `eq-bioword-static`.
            ``'occurrence'`` is the mean of the dynamic scores over all windows around the word, standardised over
            the words, `eq-bioword-occurrence`.

        Returns
        -------
        float32 array, shape (m, K)

        Raises
        ------
        IndexError
            If there is no such word.
        """
        self._check_fitted()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
        scores = self.weights_[:, self.vocab_size :].T if kind == "target" else self._occurrence
        if word_ids is None:
            return np.ascontiguousarray(scores)
        wanted = np.atleast_1d(_integers(word_ids, "word_ids"))
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.vocab_size:
            raise IndexError(f"word_ids must lie in 0..{self.vocab_size - 1}, got {wanted.min()}..{wanted.max()}")
        return scores[wanted]

    def dynamic_scores(self, windows: ArrayLike) -> NDArray[np.float32]:
        """Return the scores of words in context, `eq-bioword-dynamic`.

        Parameters
        ----------
        windows : int array, shape (n, w)
            Words around (and at) the centre, the middle column; any odd w. -1 where there is no word.

        Returns
        -------
        float32 array, shape (n, K)
        """
        self._check_fitted()
        table = _checked_windows(windows, self.vocab_size)
        context, target = self._tables(self.weights_)
        centre = table.shape[1] // 2
        scores = target[table[:, centre]]
        for column in range(table.shape[1]):
            if column != centre:
                scores += context[table[:, column]]
        return scores

    # ------------------------------------------------------------ inner workings

    def _check_fitted(self) -> None:
        if not hasattr(self, "weights_"):
            raise AttributeError("this BioWord is not fitted: call fit(token_ids, offsets, vocab_size) first")

    def _tables(self, weights: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the rows of scores by context word and by centre, each (V + 1, K); row -1 is zero."""
        halves = np.zeros((2, self.vocab_size + 1, len(weights)), dtype=np.float32)
        halves[:, :-1] = weights.T.reshape(2, self.vocab_size, -1)
        return halves[0], halves[1]

    def _ngrams_as_units(self, centres: NDArray, columns: NDArray) -> NDArray[np.float64]:
        windows = self._ids[centres[:, None] + np.arange(-self.half_window, self.half_window + 1)]
        return _unit_rows(ngram_matrix(windows, self.vocab_size).toarray() * columns)[0]

    def _winners(self, weights: NDArray, columns: NDArray) -> NDArray[np.intp]:
        tables = self._tables(weights if self.winner == "raw" else weights * columns)
        everywhere = np.empty(len(self._ids) - 2 * self.half_window, dtype=np.intp)
        scores = WindowScores(*tables, self.half_window)
        for start in range(0, len(everywhere), BLOCK):
            words = self._ids[start : start + BLOCK + 2 * self.half_window]
            everywhere[start : start + BLOCK] = scores(words).argmax(1)
        return everywhere[self._centres - self.half_window]

    def _counts(self, winners: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return how often each unit won each context word and each centre, (K, 2 * V)."""
        order = np.argsort(winners.astype(np.uint32), kind="stable")  # unit after unit: the counters stay in the cache
        rows, places = winners[order] * self.vocab_size, self._centres[order]
        size = self.n_units * self.vocab_size
        context = np.zeros(size, dtype=np.int64)
        for shift in _shifts(self.half_window):
            context += np.bincount(rows + self._ids[places + shift], minlength=size)
        counts = np.empty((self.n_units, 2 * self.vocab_size))
        counts[:, : self.vocab_size] = context.reshape(self.n_units, -1)
        counts[:, self.vocab_size :] = np.bincount(rows + self._ids[places], minlength=size).reshape(self.n_units, -1)
        return counts

    @cached_property
    def _occurrence(self) -> NDArray[np.float32]:
        """By linearity the mean score is (row-normalised co-occurrences) @ context rows + target row."""
        around = _pairs_at(self._ids, self._centres, self.vocab_size, self.half_window)
        seen = np.bincount(self._ids[self._centres], minlength=self.vocab_size)
        context, target = (table[:-1] for table in self._tables(self.weights_))
        means = (around.astype(np.float32) @ context).astype(np.float64) / np.maximum(seen, 1)[:, None] + target
        spread = means[seen > 0].std(0)
        standard = (means - means[seen > 0].mean(0)) / np.where(spread > 0, spread, 1)
        return np.where(seen[:, None] > 0, standard, 0).astype(np.float32)


class WindowScores:
    """The dynamic scores of every window in a run of words, by sums that double.

    The sum over ``half_window`` neighbours is put together from sums over 1, 2, 4, ... neighbours, so a window costs a
    number of additions that grows with the logarithm of its width. The space for them is allocated once.

    Parameters
    ----------
    context, target : float32 arrays, shape (V, K)
        Rows of scores, by word.
    half_window : int

    Examples
    --------
    >>> rows = np.arange(4, dtype=np.float32)[:, None]
    >>> WindowScores(rows, 10 * rows, half_window=1)(np.array([0, 1, 2, 3])).tolist()
    [[12.0], [24.0]]
    """

    def __init__(self, context: NDArray[np.float32], target: NDArray[np.float32], half_window: int):
        self.context, self.target, self.half_window = context, target, half_window
        self._levels = np.empty((half_window.bit_length(), BLOCK + 2 * half_window, context.shape[1]), dtype=np.float32)
        self._scores = np.empty((BLOCK, context.shape[1]), dtype=np.float32)

    def __call__(self, words: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the scores, (L, K), of ``L + 2 * half_window`` words; L <= ``BLOCK``, and the next call overwrites."""
        length = len(words) - 2 * self.half_window
        levels = self._sums_of_neighbours(words)
        centres = words[self.half_window : self.half_window + length]
        scores = np.take(self.target, centres, axis=0, out=self._scores[:length], mode="clip")
        for at in (0, self.half_window + 1):  # the words before the centre, the words behind it
            for number, sums in enumerate(levels):
                if self.half_window & 1 << number:
                    scores += sums[at : at + length]
                    at += 1 << number
        return scores

    def _sums_of_neighbours(self, words: NDArray[np.intp]) -> list[NDArray[np.float32]]:
        """Return the sums over 1, 2, 4, ... neighbours that begin at each word."""
        found = [np.take(self.context, words, axis=0, out=self._levels[0, : len(words)], mode="clip")]
        for number, level in enumerate(self._levels[1:]):
            half, last = 1 << number, found[-1]
            found.append(np.add(last[:-half], last[half:], out=level[: len(last) - half]))
        return found


# ---------------------------------------------------------------- codes


def top_k_code(scores: ArrayLike, k: int) -> NDArray[np.bool_]:
    """Mark the k largest positive scores of each row, `eq-bioword-hash`; ties go to the lower unit.

    A row with fewer than k positive scores gets fewer ones: to choose among zeros would be to invent bits.

    Examples
    --------
    >>> top_k_code([[0.5, 0.0, 0.5, 0.2], [0.0, 0.0, 0.0, 0.1]], k=2).astype(int).tolist()
    [[1, 0, 1, 0], [0, 0, 0, 1]]
    """
    values = _checked_scores(scores, k)
    return _largest(values, k) & (values > 0)


def _largest(values: NDArray, k: int) -> NDArray[np.bool_]:
    """Mark the k largest entries of each row, ties to the lower column."""
    columns = values.shape[1]
    threshold = np.partition(values, columns - k, axis=1)[:, columns - k, None]
    code = values > threshold
    ties = values == threshold
    wanted = k - code.sum(1, keepdims=True)
    return code | (ties & (np.cumsum(ties, axis=1, dtype=np.int32) <= wanted))


def pack_codes(codes: ArrayLike) -> NDArray[np.uint64]:
    """Return the codes with 64 units in one integer, unit 0 in the lowest bit.

    Returns
    -------
    uint64 array, shape (n, ceil(K / 64))

    Examples
    --------
    >>> pack_codes(np.array([[True, False, True]])).tolist()
    [[5]]
    """
    codes = _checked_codes(codes)
    padded = np.zeros((len(codes), -(-codes.shape[1] // 64) * 64), dtype=bool)
    padded[:, : codes.shape[1]] = codes
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


class BinaryIndex:
    """Codes packed for search by overlap, the number of ones in common.

    The packed words are stored column by column: a query then runs along memory, several times faster than row by
    row.

    Examples
    --------
    >>> codes = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1]], dtype=bool)
    >>> [found.tolist() for found in BinaryIndex(codes).search(codes[:1], n_neighbors=2)]
    [[[2, 2]], [[0, 2]]]
    """

    def __init__(self, codes: ArrayLike):
        codes = _checked_codes(codes)
        self.n_units = codes.shape[1]
        self._columns = np.ascontiguousarray(pack_codes(codes).T)

    def __len__(self) -> int:
        return self._columns.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that the packed codes take."""
        return self._columns.nbytes

    def overlaps(self, codes: ArrayLike) -> NDArray[np.int32]:
        """Return the overlap of each given code with each stored one, shape (q, n)."""
        codes = _checked_codes(codes)
        if codes.shape[1] != self.n_units:
            raise ValueError(f"the index holds codes of {self.n_units} units, got codes of {codes.shape[1]}")
        found = np.zeros((len(codes), len(self)), dtype=np.int32)
        for row, query in zip(found, pack_codes(codes)):
            for column, word in zip(self._columns, query):
                if word:
                    row += np.bitwise_count(column & word)
        return found

    def search(self, codes: ArrayLike, n_neighbors: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the largest overlaps and whose they are, each (q, n_neighbors); ties to the lower number."""
        if not 1 <= n_neighbors <= len(self):
            raise ValueError(f"n_neighbors must lie in 1..{len(self)}, got {n_neighbors}")
        found = self.overlaps(codes)
        rank = found.astype(np.int64) * len(self) - np.arange(len(self))
        best = np.argpartition(-rank, n_neighbors - 1, axis=1)[:, :n_neighbors]
        order = np.argsort(-np.take_along_axis(rank, best, 1), axis=1)
        ids = np.take_along_axis(best, order, 1)
        return np.take_along_axis(found, ids, 1), ids


def sign_hash(x: ArrayLike, n_bits: int, seed: int = 0) -> NDArray[np.bool_]:
    """Return the signs of random Gaussian projections, `eq-bioword-simhash`: True where positive.

    >>> sign_hash(np.eye(3), n_bits=8).shape
    (3, 8)
    """
    points = _checked_points(x)
    directions = np.random.default_rng(seed).standard_normal((points.shape[1], _at_least(n_bits, 1, "n_bits")))
    return points @ directions > 0


def fly_hash(
    x: ArrayLike, n_units: int, k: int, *, connections: float = 0.1, seed: int = 0, centre: bool = True,
    fan_in: str = "fixed",
) -> NDArray[np.bool_]:  # fmt: skip
    """Return the k most excited of many units that read a few inputs each, `eq-bioword-flyhash`.

    Parameters
    ----------
    x : float array, shape (n, D)
    n_units, k : int
    connections : float
        Share of the inputs that a unit reads.
    seed : int
        Of the random connections.
    centre : bool
        Subtract from each point the mean of its inputs first.
    fan_in : 'fixed' or 'random'
        Every unit reads the same number of inputs, or each connection is drawn on its own.

    Returns
    -------
    bool array, shape (n, n_units)
        Exactly k ones a row.
    """
    points = _checked_points(x)
    if not 0 < connections <= 1:
        raise ValueError(f"connections must lie in (0, 1], got {connections}")
    if fan_in not in ("fixed", "random"):
        raise ValueError(f"fan_in must be 'fixed' or 'random', got {fan_in!r}")
    inputs = points.shape[1]
    chance = np.random.default_rng(seed).random((n_units, inputs))
    if fan_in == "fixed":
        reads = chance.argsort(1).argsort(1) < max(1, round(connections * inputs))
    else:
        reads = chance < connections
    excited = (points - points.mean(1, keepdims=True) if centre else points) @ reads.T.astype(float)
    return _largest(_checked_scores(excited, k), k)


def code_entropy(n_units: int, k: int) -> float:
    """Return the information of a code with k ones among n_units, in bits: log2 of the number of such codes.

    >>> round(code_entropy(400, 51), 1), round(code_entropy(400, 16), 1)
    (216.2, 93.6)
    """
    if not 0 <= k <= n_units:
        raise ValueError(f"k must lie in 0..{n_units}, got {k}")
    return math.log2(math.comb(n_units, k))


# ---------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class Similarity:
    """A rank correlation with human judgements, and on how many pairs it rests."""

    rho: float
    used: int
    skipped: int


def word_similarity(
    similarity: Callable[[NDArray, NDArray], ArrayLike],
    pairs: Iterable[tuple[str, str, float]],
    vocab: Vocabulary | Mapping[str, int],
) -> Similarity:
    """Return Spearman's rank correlation between a similarity and human scores.

    Parameters
    ----------
    similarity : callable
        Takes two arrays of word numbers and returns one value for each pair.
    pairs : iterable of (word1, word2, score)
        Words are lower-cased; pairs with an unknown word are skipped and counted.
    vocab : Vocabulary, or dict from words to numbers

    Raises
    ------
    ValueError
        If fewer than 3 pairs are left.
    """
    index = getattr(vocab, "index", vocab)
    pairs = [(one.lower(), two.lower(), score) for one, two, score in pairs]
    known = [(index[one], index[two], score) for one, two, score in pairs if one in index and two in index]
    skipped = len(pairs) - len(known)
    if len(known) < 3:
        raise ValueError(f"a rank correlation needs at least 3 pairs, got {len(known)}; {skipped} have an unknown word")
    one, two, score = (np.array(values) for values in zip(*known))
    rho = stats.spearmanr(np.asarray(similarity(one, two), dtype=float), score).statistic
    return Similarity(float(rho), len(known), skipped)


# ---------------------------------------------------------------- checks


def _integers(values: ArrayLike, name: str) -> NDArray[np.integer]:
    array = np.asarray(values)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    return array


def _at_least(value: int, least: int, name: str) -> int:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def _checked_stream(
    token_ids: ArrayLike, offsets: ArrayLike, vocab_size: int | None = None
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    ids, bounds = _integers(token_ids, "token_ids"), _integers(offsets, "offsets")
    if ids.ndim != 1 or bounds.ndim != 1:
        raise ValueError(f"token_ids and offsets must be vectors, got shapes {ids.shape} and {bounds.shape}")
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != len(ids) or (np.diff(bounds) < 0).any():
        raise ValueError(f"offsets must rise from 0 to the number of tokens, {len(ids)}, got {bounds}")
    if ids.size and ids.min() < 0:
        raise ValueError(f"token_ids must not be negative, got {ids.min()}")
    if vocab_size is not None and ids.size and ids.max() >= vocab_size:
        raise ValueError(f"token_ids must be below vocab_size={vocab_size}, got {ids.max()}")
    return ids, bounds


def _checked_windows(windows: ArrayLike, vocab_size: int) -> NDArray[np.integer]:
    table = _integers(windows, "windows")
    if table.ndim != 2 or table.shape[1] % 2 == 0:
        raise ValueError(f"windows must have shape (n, odd width), got {table.shape}")
    if table.size and not -1 <= table.min() <= table.max() < vocab_size:
        raise ValueError(f"windows must lie in -1..{vocab_size - 1}, got {table.min()}..{table.max()}")
    return table


def _centres(ids: NDArray, bounds: NDArray, half_window: int) -> NDArray[np.int64]:
    """Return the places of all words with ``half_window`` neighbours on both sides in their document."""
    place = np.arange(len(ids))
    starts, ends = (np.repeat(part, np.diff(bounds)) for part in (bounds[:-1], bounds[1:]))
    return np.flatnonzero((place - starts >= half_window) & (ends - place > half_window))


def _shifts(half_window: int) -> list[int]:
    return [shift for shift in range(-half_window, half_window + 1) if shift]


def _checked_scores(scores: ArrayLike, k: int) -> NDArray:
    values = np.asarray(scores)
    if values.ndim != 2:
        raise ValueError(f"scores must have shape (n, K), got {values.shape}")
    if not 1 <= k <= values.shape[1]:
        raise ValueError(f"k must lie in 1..{values.shape[1]}, got {k}")
    if np.isnan(values).any():
        raise ValueError(f"scores hold nan, in row {int(np.flatnonzero(np.isnan(values).any(1))[0])} first")
    return values


def _checked_codes(codes: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(codes)
    if array.dtype != bool:
        raise TypeError(f"codes must be booleans, got {array.dtype}; top_k_code makes them from scores")
    if array.ndim != 2:
        raise ValueError(f"codes must have shape (n, K), got {array.shape}")
    return array


def _checked_points(x: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(x, dtype=float)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"x must be finite with shape (n, D), got shape {points.shape}")
    return points
