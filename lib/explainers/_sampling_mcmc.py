"""Samplers that move by small edits, many chains at once. Part of :mod:`explainers.sampling`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._sampling_exact import _check_keywords, _check_range, check_lengths, check_transfer

MOVES = ("replace", "insert", "delete")
BLOCK = 64  # a token is drawn in two steps, by block and within it
AHEAD = 512  # steps of a cipher search whose random numbers are drawn at once


# ---------------------------------------------------------------------- any space


@dataclass(frozen=True)
class Chains:
    """What :func:`metropolis` returns; the first axis of every array counts the chains, but for ``states``."""

    x: NDArray  # the last states
    log_weight: NDArray[np.float64]  # of the last states, not divided by a temperature
    states: NDArray | None  # (kept, chains, ...), with keep_every
    acceptance: float  # accepted / proposed
    best: NDArray  # the best state that each chain has seen
    best_log_weight: NDArray[np.float64]


def metropolis(
    log_weight: Callable[[NDArray], NDArray[np.float64]],
    propose: Callable[[NDArray, np.random.Generator], tuple[NDArray, NDArray[np.float64]]],
    x0: ArrayLike,
    steps: int,
    rng: np.random.Generator,
    temperature: float | Callable[[int], float] = 1.0,
    keep_every: int | None = None,
) -> Chains:
    """Run Metropolis-Hastings chains side by side, ``eq-sampling-mh``.

    Parameters
    ----------
    log_weight
        Maps states ``(chains, ...)`` to log-weights ``(chains,)``; -inf forbids.
    propose
        Maps states and the generator to new states and ``log q(x <- y) - log q(y <- x)``, shape ``(chains,)``.
    x0
        First states, shape ``(chains, ...)``; not changed.
    temperature
        A number, or a function of the step; divides the log-weights only.
    keep_every
        Keep the states after every so many steps.

    Raises
    ------
    ValueError
        If a start has weight zero, a log-weight is nan, or a temperature is not positive.

    Examples
    --------
    >>> flip = lambda x, rng: (1 - x, np.zeros(len(x)))
    >>> run = metropolis(lambda x: np.log([1.0, 3.0])[x], flip, np.zeros(4, int), 3, np.random.default_rng(0))
    >>> run.best
    array([1, 1, 1, 1])
    """
    x = np.array(x0)
    score = _scores(log_weight, x)
    if np.isneginf(score).any():
        raise ValueError(f"chain {np.flatnonzero(np.isneginf(score))[0]} starts in a state of weight zero")
    heat = temperature if callable(temperature) else lambda step: temperature
    best, best_score, kept, accepted = x.copy(), score.copy(), [], 0
    for step in range(steps):
        if not (tau := heat(step)) > 0:
            raise ValueError(f"the temperature must be positive, got {tau} at step {step}")
        y, log_ratio = propose(x, rng)
        new = _scores(log_weight, y)
        with np.errstate(invalid="ignore"):
            take = np.log(rng.random(len(x))) <= (new - score) / tau + log_ratio
        accepted += int(take.sum())
        x = np.where(take.reshape(-1, *[1] * (x.ndim - 1)), y, x)
        score = np.where(take, new, score)
        if (better := score > best_score).any():
            best[better], best_score[better] = x[better], score[better]
        if keep_every and (step + 1) % keep_every == 0:
            kept.append(x)
    states = np.array(kept) if keep_every else None
    return Chains(x, score, states, accepted / max(1, steps * len(x)), best, best_score)


def _scores(log_weight: Callable[[NDArray], NDArray[np.float64]], x: NDArray) -> NDArray[np.float64]:
    score = np.asarray(log_weight(x), dtype=np.float64)
    if score.shape != (len(x),):
        raise ValueError(f"log_weight must return shape {(len(x),)}, got {score.shape}")
    if np.isnan(score).any():
        raise ValueError(f"log_weight returned nan for chain {np.flatnonzero(np.isnan(score))[0]}")
    return score


# ---------------------------------------------------------------------- sentences


class SentenceSampler:
    """Sentences by inserting, deleting and replacing words, ``eq-sampling-cgmh-bigram``.

    The target is the product of bigram weights over the sentences of allowed length that hold all keywords. Nothing
    is locked: an edit that loses a keyword is rejected.

    Parameters
    ----------
    T
        Non-negative, shape ``(V+1, V+1)``, as for :class:`ExactSampler`.
    lengths
        One length, or bounds ``(lo, hi)``.
    keywords
        Tokens, each once.
    moves
        Probabilities of replacing, inserting and deleting.

    Attributes
    ----------
    acceptance : dict
        Accepted over proposed, by move; an edit that the bounds forbid counts as proposed.
    length_trace : int array ``(kept, chains)``
        Lengths, if ``run`` was asked to record them.

    Raises
    ------
    ValueError
        For malformed arguments, or inserting without deleting: each is the other's reverse.
    """

    def __init__(
        self, T: ArrayLike, lengths: int | tuple[int, int], keywords: Sequence[int] = (),
        moves: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
    ):  # fmt: skip
        self.T, (self.low, self.high) = check_transfer(T), check_lengths(lengths)
        self.n_symbols = V = len(self.T) - 1
        self.keywords = _check_keywords(keywords, V)
        if len(self.keywords) > self.high:
            raise ValueError(f"{len(self.keywords)} keywords do not fit into {self.high} places")
        self.moves = np.asarray(moves, dtype=np.float64)
        if self.moves.shape != (3,) or (self.moves < 0).any() or abs(self.moves.sum() - 1) > 1e-9:
            raise ValueError(f"moves must be three probabilities that sum to one, got {tuple(moves)}")
        if (self.moves[1] == 0) != (self.moves[2] == 0):
            raise ValueError("inserting needs deleting: each is the other's reverse")
        self._is_keyword = np.isin(np.arange(V), self.keywords)
        pad = np.zeros((V + 1, -V % BLOCK), dtype=np.float32)
        self._out = np.hstack([_single(self.T[:, :V]), pad])  # into each token from l
        self._in = np.hstack([_single(self.T[:V].T), pad])  # from each token to r
        if self.moves[1]:
            two, log_moves = self.T[:, :V] @ self.T[:V], np.log(self.moves[1:])
            with np.errstate(divide="ignore", invalid="ignore"):  # where T_lr is 0 no sentence ever stands
                self._detour = np.log(two) - np.log(self.T) + log_moves[1] - log_moves[0]
        self.acceptance = dict.fromkeys(MOVES, np.nan)

    def log_weight(self, tokens: ArrayLike, lengths: ArrayLike) -> NDArray[np.float64]:
        """Return the log-weight of sentences ``(n, width)`` padded at will; -inf where one is not allowed."""
        x, size = np.asarray(tokens, dtype=np.int64), np.asarray(lengths)
        inside = np.arange(x.shape[1]) < size[:, None]
        x = np.where(inside, x, self.n_symbols)
        _check_range(x[inside], self.n_symbols)
        edge = np.full((len(x), 1), self.n_symbols)
        left, right = np.hstack([edge, x]), np.hstack([x, edge])
        with np.errstate(divide="ignore"):
            logs = np.where(np.arange(left.shape[1]) <= size[:, None], np.log(self.T[left, right]), 0).sum(1)
        complete = np.all([(x == word).any(1) for word in self.keywords], axis=0)
        return np.where((size >= self.low) & (size <= self.high) & complete, logs, -np.inf)

    def run(
        self, chains: int, steps: int, rng: np.random.Generator, init: Sequence | None = None, record: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Run chains side by side; return tokens ``(chains, hi)`` padded with -1, and lengths ``(chains,)``.

        Parameters
        ----------
        init
            One sentence, or one per chain; by default the keywords alone, filled up greedily to the least length.
        record
            Keep the lengths after every so many steps in ``length_trace``.

        Raises
        ------
        ValueError
            If a starting sentence violates the constraints or has weight zero.
        """
        self._start(chains, init)
        tried, taken, trace = np.zeros(3), np.zeros(3), []
        for step in range(steps):
            which = np.searchsorted(np.cumsum(self.moves)[:2], rng.random(chains), side="right")
            for move, edit in enumerate((self._replace, self._insert, self._delete)):
                at = np.flatnonzero(which == move)
                tried[move] += len(at)
                taken[move] += edit(at, rng) if len(at) else 0
            if record and (step + 1) % record == 0:
                trace.append(self._size.copy())
        with np.errstate(invalid="ignore"):
            self.acceptance = dict(zip(MOVES, (taken / tried).tolist()))
        self.length_trace = np.array(trace)
        inside = np.arange(self.high) < self._size[:, None]
        return np.where(inside, self._x[:, 1:-1], -1), self._size.copy()

    def _start(self, chains: int, init: Sequence | None) -> None:
        if init is None:
            init = self._default()
        one = np.ndim(init[0]) == 0
        sentences = [np.asarray(s, dtype=np.int64) for s in ([init] * chains if one else init)]
        if len(sentences) != chains:
            raise ValueError(f"got {len(sentences)} starting sentences for {chains} chains")
        self._size = np.array([len(s) for s in sentences])
        if (self._size > self.high).any():
            raise ValueError(f"a starting sentence has {self._size.max()} tokens, at most {self.high} are allowed")
        self._x = np.full((chains, self.high + 2), self.n_symbols)  # the boundary on both sides, and as padding
        for row, sentence in zip(self._x, sentences):
            row[1 : len(sentence) + 1] = sentence
        if np.isneginf(self.log_weight(self._x[:, 1:-1], self._size)).any():
            raise ValueError("a starting sentence violates the constraints or has weight zero")

    def _default(self) -> list[int]:
        sentence = list(self.keywords)
        while len(sentence) < self.low:
            last = sentence[-1] if sentence else self.n_symbols
            sentence.append(int(np.argmax(self.T[last, :-1] * (self.T[:-1, -1] > 0))))
        return sentence

    def _between(self, left: NDArray, right: NDArray, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw a token for each gap, with probability proportional to T[l, w] T[w, r]."""
        weights = (self._out[left] * self._in[right]).reshape(len(left), -1, BLOCK)
        rows = np.arange(len(left))
        block = _pick(weights.sum(2, dtype=np.float64), rng)  # first a block of tokens, then one of its tokens
        return block * BLOCK + _pick(weights[rows, block], rng)

    def _keeps(self, rows: NDArray[np.intp], old: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether the constraint survives without one copy of the tokens ``old``."""
        if not self.keywords:
            return np.ones(len(rows), dtype=bool)
        needed = self._is_keyword[old]
        needed[needed] = (self._x[rows[needed]] == old[needed, None]).sum(1) == 1
        return ~needed

    def _replace(self, rows: NDArray[np.intp], rng: np.random.Generator) -> int:
        at = 1 + rng.integers(self._size[rows])
        old = self._x[rows, at]
        new = self._between(self._x[rows, at - 1], self._x[rows, at + 1], rng)
        take = (new == old) | self._keeps(rows, old)
        self._x[rows[take], at[take]] = new[take]
        return int(take.sum())

    def _insert(self, rows: NDArray[np.intp], rng: np.random.Generator) -> int:
        at = 1 + rng.integers(self._size[rows] + 1)
        left, right = self._x[rows, at - 1], self._x[rows, at]
        take = (np.log(rng.random(len(rows))) <= self._detour[left, right]) & (self._size[rows] < self.high)
        rows, at = rows[take], at[take]
        if len(rows):
            place = np.arange(self.high + 2)
            shifted = np.take_along_axis(self._x[rows], place - (place > at[:, None]), axis=1)
            shifted[np.arange(len(rows)), at] = self._between(left[take], right[take], rng)
            self._x[rows] = shifted
            self._size[rows] += 1
        return len(rows)

    def _delete(self, rows: NDArray[np.intp], rng: np.random.Generator) -> int:
        at = 1 + rng.integers(self._size[rows])
        old = self._x[rows, at]
        detour = self._detour[self._x[rows, at - 1], self._x[rows, at + 1]]
        take = (np.log(rng.random(len(rows))) <= -detour) & (self._size[rows] > self.low) & self._keeps(rows, old)
        rows, at = rows[take], at[take]
        place = np.arange(self.high + 2)
        later = np.minimum(place + (place >= at[:, None]), self.high + 1)
        self._x[rows] = np.take_along_axis(self._x[rows], later, axis=1)
        self._size[rows] -= 1
        return len(rows)


def _single(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return rows of weights in single precision, each with a power of two of its own, so that tiny ones survive."""
    _, exponent = np.frexp(rows.max(1, keepdims=True))
    return np.ldexp(rows, -exponent).astype(np.float32)


def _pick(weights: NDArray, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return one column of each row, drawn in proportion to the weights."""
    running = np.cumsum(weights, axis=1, dtype=np.float64)
    goal = rng.random(len(weights)) * running[:, -1]
    return (running <= goal[:, None]).sum(1)  # the goal, however rounded, is below the last sum


# ---------------------------------------------------------------------- ciphers


def crack_substitution(
    cipher: ArrayLike,
    log_table: ArrayLike,
    rng: np.random.Generator,
    chains: int = 24,
    steps: int = 3000,
    temperature: tuple[float, float] = (1.0, 1.0),
    start: ArrayLike | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Search the key of a substitution cipher by swapping two of its letters, ``eq-sampling-cipher``.

    Parameters
    ----------
    cipher
        Symbols 0..S-1.
    log_table
        Log-probabilities of bigrams ``(S, S)`` or trigrams ``(S, S, S)``, last axis predicted, all finite.
    temperature
        At the first and the last step, with geometric cooling in between.
    start
        One key or one per chain; by default random ones.

    Returns
    -------
    keys ``(chains, S)``, scores ``(chains,)``
        The best key that each chain has seen, best chain first; ``key[c]`` is the plain symbol of c.

    Raises
    ------
    ValueError
        For symbols out of range, infinite log-probabilities, a temperature that is not positive, or a start that
        is no permutation.
    """
    table = np.asarray(log_table, dtype=np.float64)
    if table.ndim not in (2, 3) or len(set(table.shape)) != 1:
        raise ValueError(f"log_table must have shape (S, S) or (S, S, S), got {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("log_table holds infinite or undefined entries: smooth the model first")
    if min(temperature) <= 0:
        raise ValueError(f"temperatures must be positive, got {temperature}")
    size = len(table)
    text = np.asarray(cipher, dtype=np.int64)
    _check_range(text, size)
    if len(text) < table.ndim:
        raise ValueError(f"the cipher needs at least {table.ndim} symbols, got {len(text)}")
    score = _cipher_score(text, table)
    keys = _first_keys(start, chains, size, rng)
    heat = np.geomspace(*temperature, steps)
    now, line = score(keys), np.arange(chains)
    best, best_now = keys.copy(), now.copy()
    for i, j, threshold in _swaps(heat, chains, size, rng):
        other = keys.copy()
        other[line, i], other[line, j] = keys[line, j], keys[line, i]
        new = score(other)
        take = threshold <= new - now
        keys[take], now[take] = other[take], new[take]
        if (better := now > best_now).any():
            best[better], best_now[better] = keys[better], now[better]
    order = np.argsort(-best_now, kind="stable")
    return best[order], best_now[order]


def _swaps(
    heat: NDArray[np.float64], chains: int, size: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Yield for each step the two symbols to swap in each chain, and the least rise of the score to be accepted."""
    for low in range(0, len(heat), AHEAD):
        tau = heat[low : low + AHEAD, None]
        i, j = rng.integers(size, size=(len(tau), chains)), rng.integers(size - 1, size=(len(tau), chains))
        yield from zip(i, j + (j >= i), np.log(rng.random((len(tau), chains))) * tau)


def _cipher_score(text: NDArray[np.int64], table: NDArray) -> Callable[[NDArray], NDArray[np.float64]]:
    """Return the function that scores keys ``(chains, S)`` on the distinct n-grams of the text."""
    n = table.ndim
    grams = np.stack([text[k : len(text) - n + 1 + k] for k in range(n)])
    grams, counts = np.unique(grams, axis=1, return_counts=True)
    flat, weights = table.ravel(), counts.astype(np.float64)

    def score(keys: NDArray[np.int64]) -> NDArray[np.float64]:
        place = keys.take(grams[0], axis=1)
        for symbols in grams[1:]:
            place = place * len(table) + keys.take(symbols, axis=1)
        return flat.take(place) @ weights

    return score


def _first_keys(start: ArrayLike | None, chains: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if start is None:
        return np.argsort(rng.random((chains, size)), axis=1)
    keys = np.array(np.broadcast_to(np.asarray(start, dtype=np.int64), (chains, size)))
    if (np.sort(keys, axis=1) != np.arange(size)).any():
        raise ValueError(f"every starting key must be a permutation of 0..{size - 1}")
    return keys
