"""Interpolated Kneser-Ney n-gram models. Part of :mod:`explainers.sampling`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_TABLE = 60_000_000  # entries of a dense table, half a gigabyte


@dataclass(frozen=True)
class _Level:
    """One order of the model: n-grams as sorted integer keys, and the contexts that they share."""

    keys: NDArray[np.int64]  # the n-grams, context times S plus last symbol
    mass: NDArray[np.float64]  # (count - discount)+ / total of its context
    running: NDArray[np.float64]  # cumulated mass, with a zero in front
    contexts: NDArray[np.int64]  # the contexts, sorted
    first: NDArray[np.int64]  # where each context's n-grams begin, and the end of the last
    back_off: NDArray[np.float64]  # mass left to the order below
    owner: NDArray[np.int64]  # the context of each n-gram, and -1 behind the last
    left: NDArray[np.float64]  # the back_off of each n-gram's context, and 1 behind the last


class NgramLM:
    """A language model with interpolated Kneser-Ney smoothing, ``eq-sampling-kneser-ney``.

    Parameters
    ----------
    order
        Length of the n-grams, at least 1.
    discount
        In (0, 1), for all orders; None estimates n1 / (n1 + 2 n2) for each (0.5 where n1 or n2 is zero).

    Examples
    --------
    >>> lm = NgramLM(order=2).fit([[0, 1], [0, 1, 1], [0, 0]], n_symbols=2)
    >>> bool(np.isclose(lm.prob([[0]] * 3, [0, 1, 2]).sum(), 1))
    True
    """

    def __init__(self, order: int = 3, discount: float | None = None):
        if not isinstance(order, (int, np.integer)) or order < 1:
            raise ValueError(f"order must be an integer of at least 1, got {order!r}")
        if discount is not None and not 0 < discount < 1:
            raise ValueError(f"discount must be in (0, 1), got {discount}")
        self.order, self.discount = int(order), discount

    # ------------------------------------------------------------------ fitting

    def fit(self, sequences: Iterable[ArrayLike], n_symbols: int, boundary: bool = True) -> NgramLM:
        """Count the n-grams of sequences of tokens in 0..n_symbols-1.

        With ``boundary`` each sequence starts and ends with the symbol ``n_symbols``; the end is predicted, the start
        is not. Without, they are pieces of one stream.

        Raises
        ------
        ValueError
            For tokens out of range, no n-gram at all, or ``S**order`` beyond int64.
        """
        size = n_symbols + 1 if boundary else n_symbols
        if n_symbols < 1 or size**self.order >= 2**63:
            raise ValueError(f"{size}**{self.order} n-grams do not fit 64-bit keys")
        self.n_symbols, self.boundary, self.size = int(n_symbols), boundary, int(size)
        flat, predicted, _ = self._flatten(sequences)
        keys = self._keys(flat, self.order)[predicted[self.order - 1 :]]
        if not len(keys):
            raise ValueError("the sequences hold no n-gram of this order")
        self.levels: list[_Level] = []
        grams, counts = np.unique(keys, return_counts=True)
        for order in range(self.order, 1, -1):
            self.levels.insert(0, self._level(grams, counts))
            grams, counts = np.unique(grams % self.size ** (order - 1), return_counts=True)  # continuation types
        self.base = np.bincount(grams, weights=counts, minlength=self.size) / counts.sum()
        return self

    def _flatten(self, sequences: Iterable[ArrayLike]) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray]:
        """Return the padded symbols in one row, which of them are predicted, and the length of each sequence."""
        parts = [np.asarray(sequence, dtype=np.int64).ravel() for sequence in sequences]
        if not parts:
            raise ValueError("no sequence given")
        lengths = np.array([len(part) for part in parts])
        tokens = np.concatenate(parts)
        self._check_tokens(tokens, self.n_symbols)
        if not self.boundary:
            predicted = np.ones(len(tokens), dtype=bool)
            starts = np.cumsum(lengths) - lengths
            for offset in range(self.order - 1):
                predicted[starts[lengths > offset] + offset] = False
            return tokens, predicted, lengths
        pad = self.order - 1
        total = lengths + pad + 1
        starts = np.cumsum(total) - total
        flat = np.full(total.sum(), self.n_symbols, dtype=np.int64)
        place = np.arange(len(tokens)) + np.repeat(starts + pad - (np.cumsum(lengths) - lengths), lengths)
        flat[place] = tokens
        predicted = np.ones(len(flat), dtype=bool)
        for offset in range(pad):
            predicted[starts + offset] = False
        return flat, predicted, lengths

    @staticmethod
    def _check_tokens(tokens: NDArray[np.int64], size: int) -> None:
        if len(tokens) and (tokens.min() < 0 or tokens.max() >= size):
            bad = tokens[(tokens < 0) | (tokens >= size)][0]
            raise ValueError(f"tokens must be in 0..{size - 1}, got {bad}")

    def _keys(self, flat: NDArray[np.int64], order: int) -> NDArray[np.int64]:
        """Return the key of each window of ``order`` symbols."""
        keys = np.zeros(max(0, len(flat) - order + 1), dtype=np.int64)
        for offset in range(order):
            keys = keys * self.size + flat[offset : len(keys) + offset]
        return keys

    def _level(self, grams: NDArray[np.int64], counts: NDArray[np.int64]) -> _Level:
        discount = self.discount or _discount(counts)
        contexts, first = np.unique(grams // self.size, return_index=True)
        totals = np.add.reduceat(counts, first)
        first = np.append(first, len(grams))
        kept = np.maximum(counts - discount, 0)
        back_off, each = discount * np.diff(first) / totals, np.diff(first)
        mass = kept / np.repeat(totals, each)
        owner, left = np.append(np.repeat(contexts, each), -1), np.append(np.repeat(back_off, each), 1.0)
        return _Level(grams, mass, np.append(0.0, np.cumsum(mass)), contexts, first, back_off, owner, left)

    # ------------------------------------------------------------------ probabilities

    def prob(self, contexts: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
        """Return p(token | context).

        Parameters
        ----------
        contexts
            Shape ``(N, order-1)``, oldest first, padded in front with ``n_symbols``.
        tokens
            Shape ``(N,)``; the token ``n_symbols`` is the end.

        Raises
        ------
        ValueError
            If the model is not fitted, the shapes do not match or a symbol is out of range.
        """
        h, w = self._check_contexts(contexts), np.asarray(tokens, dtype=np.int64)
        if w.shape != (len(h),):
            raise ValueError(f"tokens must have shape {(len(h),)}, got {w.shape}")
        self._check_tokens(w, self.size)
        p = self.base[w]
        key, scale = np.zeros_like(w), 1
        for m, level in enumerate(self.levels, 1):
            key = key + h[:, -m] * scale
            scale *= self.size
            p = self._interpolate(level, key, w, p)
        return p

    def _interpolate(self, level: _Level, context: NDArray, w: NDArray, lower: NDArray) -> NDArray[np.float64]:
        """Return ``mass(context, w) + back_off(context) lower`` with one search.

        The n-grams of a context stand together, so that if it was seen, the one found or the one before is its own.
        """
        key = context * self.size + w
        at = np.searchsorted(level.keys, key)
        near = at - (level.owner[at] != context)  # -1 finds the entry behind the last
        left = np.where(level.owner[near] == context, level.left[near], 1.0)
        known = level.keys.take(at, mode="clip") == key
        return left * lower + np.where(known, level.mass.take(at, mode="clip"), 0.0)

    def _check_contexts(self, contexts: ArrayLike) -> NDArray[np.int64]:
        if not hasattr(self, "base"):
            raise ValueError("the model is not fitted: call fit first")
        h = np.asarray(contexts, dtype=np.int64)
        if h.ndim != 2 or h.shape[1] != self.order - 1:
            raise ValueError(f"contexts must have shape (N, {self.order - 1}), got {h.shape}")
        self._check_tokens(h.ravel(), self.size)
        return h

    def rows(self, contexts: ArrayLike) -> NDArray[np.float64]:
        """Return p(. | context) over all symbols, shape ``(N, S)``, for contexts of shape ``(N, order-1)``."""
        h = self._check_contexts(contexts)
        p = np.tile(self.base, (len(h), 1))
        key, scale = np.zeros(len(h), dtype=np.int64), 1
        for m, level in enumerate(self.levels, 1):
            key = key + h[:, -m] * scale
            scale *= self.size
            at, seen = _find(level.contexts, key)
            p *= np.where(seen, level.back_off[at], 1.0)[:, None]
            row = np.flatnonzero(seen)
            begin, width = level.first[at[seen]], (level.first[at[seen] + 1] - level.first[at[seen]])
            place = np.arange(width.sum()) + np.repeat(begin - (np.cumsum(width) - width), width)
            p[np.repeat(row, width), level.keys[place] % self.size] += level.mass[place]
        return p

    def score(self, sequences: Iterable[ArrayLike]) -> NDArray[np.float64]:
        """Return the natural log-probability of each sequence, end included, shape ``(N,)``."""
        logs, lengths = self._logs(sequences)
        counts = lengths + 1 if self.boundary else np.maximum(lengths - self.order + 1, 0)
        total, some = np.zeros(len(counts)), counts > 0
        total[some] = np.add.reduceat(logs, (np.cumsum(counts) - counts)[some])
        return total

    def _logs(self, sequences: Iterable[ArrayLike]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        if not hasattr(self, "base"):
            raise ValueError("the model is not fitted: call fit first")
        flat, predicted, lengths = self._flatten(sequences)
        at = np.flatnonzero(predicted)
        contexts = flat[at[:, None] + np.arange(1 - self.order, 0)]
        with np.errstate(divide="ignore"):
            return np.log(self.prob(contexts, flat[at])), lengths

    def perplexity(self, sequences: Iterable[ArrayLike]) -> float:
        """Return exp of the mean negative log-probability per predicted symbol; inf if one is impossible."""
        return float(np.exp(-self._logs(sequences)[0].mean()))

    def table(self) -> NDArray[np.float64]:
        """Return all conditional probabilities, shape ``(S,) * order``, last axis predicted.

        Raises
        ------
        ValueError
            If it would hold more than 60 million entries.
        """
        if self.size**self.order > MAX_TABLE:
            raise ValueError(f"a dense table of {self.size}**{self.order} entries is too large")
        p = self.base
        for level in self.levels:
            left = np.ones(p.size)  # one factor per context, of which there are S times as many as below
            left[level.contexts] = level.back_off
            p = left.reshape(self.size, -1)[:, :, None] * p.reshape(1, -1, self.size)
            p.reshape(-1)[level.keys] += level.mass
            p = p.reshape(-1)
        return p.reshape((self.size,) * self.order)

    # ------------------------------------------------------------------ sampling

    def sample(self, n: int, rng: np.random.Generator, max_len: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return n sentences, tokens ``(n, max_len)`` padded with -1, and lengths ``(n,)``, -1 where cut off.

        Interpolation is a mixture: either a seen continuation of the context, or the order below.
        """
        if not hasattr(self, "base") or not self.boundary:
            raise ValueError("sampling needs a fitted model with boundaries")
        tokens = np.full((n, max_len + 1), -1, dtype=np.int64)
        lengths = np.full(n, -1, dtype=np.int64)
        context = np.full((n, max(self.order - 1, 1)), self.n_symbols, dtype=np.int64)
        alive = np.arange(n)
        for t in range(max_len + 1):
            drawn = self._draw(context[alive], rng)
            over = drawn == self.n_symbols
            lengths[alive[over]] = t
            alive, drawn = alive[~over], drawn[~over]
            if not len(alive):
                break
            tokens[alive, t] = drawn
            context[alive] = np.column_stack([context[alive][:, 1:], drawn])
        return tokens[:, :max_len], lengths

    def _draw(self, context: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        drawn = np.full(len(context), -1, dtype=np.int64)
        for m in range(self.order - 1, 0, -1):
            level, todo = self.levels[m - 1], np.flatnonzero(drawn < 0)
            key = self._keys_of(context[todo], m)
            at, seen = _find(level.contexts, key)
            stay = seen & (rng.random(len(todo)) >= level.back_off[at])
            begin, end = level.first[at[stay]], level.first[at[stay] + 1]
            low, high = level.running[begin], level.running[end]
            pick = np.searchsorted(level.running, low + rng.random(len(low)) * (high - low), side="right") - 1
            drawn[todo[stay]] = level.keys[np.clip(pick, begin, end - 1)] % self.size
        todo = np.flatnonzero(drawn < 0)
        running = np.cumsum(self.base)
        drawn[todo] = np.searchsorted(running, rng.random(len(todo)) * running[-1], side="right")
        return drawn

    def _keys_of(self, context: NDArray[np.int64], m: int) -> NDArray[np.int64]:
        key = np.zeros(len(context), dtype=np.int64)
        for column in context[:, -m:].T:
            key = key * self.size + column
        return key


def _discount(counts: NDArray[np.int64]) -> float:
    once, twice = np.sum(counts == 1), np.sum(counts == 2)
    return float(once / (once + 2 * twice)) if once and twice else 0.5


def _find(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return a valid place for each wanted key, and whether the key stands there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def transfer_matrix(lm: NgramLM, power: float = 1.0) -> NDArray[np.float64]:
    """Return the bigram probabilities to an elementwise power, shape ``(V+1, V+1)``, ``eq-sampling-power``.

    Row V is the start, column V the end.

    Raises
    ------
    ValueError
        If the model is not of order 2 with boundaries.
    """
    if lm.order != 2 or not getattr(lm, "boundary", False):
        raise ValueError("a transfer matrix needs a fitted model of order 2 with boundaries")
    return lm.table() ** power


def encode(sentences: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return sentences as arrays of places in the vocabulary.

    Raises
    ------
    ValueError
        If a word is not in the vocabulary.
    """
    place = {word: at for at, word in enumerate(vocabulary)}
    try:
        return [np.array([place[word] for word in sentence], dtype=np.int64) for sentence in sentences]
    except KeyError as missing:
        raise ValueError(f"the word {missing} is not in the vocabulary") from None
