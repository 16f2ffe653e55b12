"""Constrained text, exactly: automata, dynamic programming, twisted SMC. Part of :mod:`explainers.sampling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from ._sampling_ngram import NgramLM

CHUNK = 256  # rows of V numbers at a time


class Automaton:
    """A finite automaton that reads tokens and says whether a constraint holds.

    Parameters
    ----------
    next_state
        Shape ``(K, V)``: the state after reading a token; -1 is a dead end.
    accept
        Shape ``(K,)``, whether a sentence may end there.
    start
        The first state.

    Examples
    --------
    >>> Automaton.keywords([2, 0], n_symbols=3).run([0, 1, 2, 2])
    True
    """

    def __init__(self, next_state: ArrayLike, accept: ArrayLike, start: int = 0):
        table, ends = np.asarray(next_state), np.asarray(accept, dtype=bool)
        if table.ndim != 2 or table.dtype.kind not in "iu":
            raise ValueError(f"next_state must be integers of shape (K, V), got {table.dtype} {table.shape}")
        if ends.shape != (len(table),) or not 0 <= start < len(table):
            raise ValueError(f"need accept of shape {(len(table),)} and a start state below it, got {ends.shape}")
        if table.min() < -1 or table.max() >= len(table):
            raise ValueError(f"next_state must lie in -1..{len(table) - 1}")
        self.next_state, self.accept, self.start = table.astype(np.int64), ends, int(start)

    @classmethod
    def keywords(cls, keywords: Sequence[int], n_symbols: int, exactly_once: bool = False) -> Automaton:
        """Return the automaton of sentences that hold every keyword, ``2^k`` states, one bit for each.

        Raises
        ------
        ValueError
            For a keyword outside the vocabulary, or given twice.
        """
        words = _check_keywords(keywords, n_symbols)
        states = np.arange(2 ** len(words))
        table = np.repeat(states[:, None], n_symbols, axis=1)
        for bit, word in enumerate(words):
            seen = states >> bit & 1
            table[:, word] = np.where(seen & exactly_once, -1, states | 1 << bit)
        return cls(table, states == states[-1])

    def run(self, tokens: ArrayLike) -> bool:
        """Return whether a sentence fulfils the constraint."""
        sentence = np.asarray(tokens, dtype=np.int64).ravel()
        _check_range(sentence, self.next_state.shape[1])
        state = self.start
        for token in sentence:
            state = self.next_state[state, token]
            if state < 0:
                return False
        return bool(self.accept[state])


def _check_keywords(keywords: Sequence[int], n_symbols: int) -> list[int]:
    words = [int(word) for word in keywords]
    for word in words:
        if not 0 <= word < n_symbols:
            raise ValueError(f"keyword {word} is outside the vocabulary 0..{n_symbols - 1}")
        if words.count(word) > 1:
            raise ValueError(f"keyword {word} is given twice")
    return words


def _check_range(tokens: NDArray[np.int64], size: int) -> None:
    if len(tokens) and (tokens.min() < 0 or tokens.max() >= size):
        raise ValueError(f"tokens must be in 0..{size - 1}, got {tokens[(tokens < 0) | (tokens >= size)][0]}")


def check_transfer(T: ArrayLike) -> NDArray[np.float64]:
    """Return T as floats, or raise ``ValueError`` unless it is square, finite and not negative."""
    matrix = np.asarray(T, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(f"T must be square with at least one token and the boundary, got shape {matrix.shape}")
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise ValueError("T must be finite and not negative")
    return matrix


def check_lengths(lengths: int | tuple[int, int]) -> tuple[int, int]:
    """Return the bounds ``(lo, hi)``, or raise ``ValueError`` unless 1 <= lo <= hi."""
    low, high = (lengths, lengths) if isinstance(lengths, (int, np.integer)) else lengths
    if not 1 <= low <= high:
        raise ValueError(f"lengths must satisfy 1 <= lo <= hi, got {lengths}")
    return int(low), int(high)


class ExactSampler:
    """The law proportional to a product of bigram weights, restricted by an automaton, ``eq-sampling-dp``.

    Parameters
    ----------
    T
        Any non-negative matrix ``(V+1, V+1)``: ``T[a, b]`` for b after a, row V the start, column V the end.
    lengths
        One length, or bounds ``(lo, hi)``, at least 1.
    automaton
        The constraint; None allows everything.
    allowed
        Booleans ``(hi, V)``: which token may stand where.

    Attributes
    ----------
    log_z : float
        Natural logarithm of the total weight.

    Raises
    ------
    ValueError
        For malformed arguments, or constraints that nothing fulfils.

    Examples
    --------
    >>> T = np.array([[0.5, 0.0, 0.5], [0.2, 0.3, 0.5], [0.5, 0.5, 0.0]])
    >>> law = ExactSampler(T, (1, 2), Automaton.keywords([1], 2))
    >>> round(float(np.exp(law.log_z)), 3)  # 1: .25; 1 0: .05; 1 1: .075; 0 1: 0
    0.375
    """

    def __init__(
        self, T: ArrayLike, lengths: int | tuple[int, int], automaton: Automaton | None = None,
        allowed: ArrayLike | None = None,
    ):  # fmt: skip
        self.T, (self.low, self.high) = check_transfer(T), check_lengths(lengths)
        self.n_symbols = V = len(self.T) - 1
        self.automaton = automaton or Automaton(np.zeros((1, V), dtype=np.int64), [True])
        if self.automaton.next_state.shape[1] != V:
            raise ValueError(f"the automaton reads {self.automaton.next_state.shape[1]} tokens, T has {V}")
        self.allowed = None if allowed is None else np.asarray(allowed, dtype=bool)
        if self.allowed is not None and self.allowed.shape != (self.high, V):
            raise ValueError(f"allowed must have shape {(self.high, V)}, got {self.allowed.shape}")
        self._W = np.ascontiguousarray(self.T[:V, :V])
        self._where = self.automaton.next_state.T  # (V, K); -1 finds the column of zeros put last
        self._backward()

    def _backward(self) -> None:
        """Compute beta from the last token to the first, each step with its own scale."""
        V, K = self._where.shape
        self._ahead: list[NDArray[np.float64]] = [np.zeros((V, K))] * (self.high + 1)  # weight of each next token
        self._ending = np.zeros(self.high + 1)  # factor of "stop here", in the step's scale
        beta, scale = np.zeros((V, K)), -np.inf
        for t in range(self.high, -1, -1):
            ahead = self._shift(beta, t) if t < self.high else beta
            stop = 0.0 if t >= self.low else -np.inf
            unit = max(scale, stop)
            self._ahead[t] = ahead * np.exp(scale - unit)
            self._ending[t] = np.exp(stop - unit)
            if t == 0:
                break  # what comes first has its weight in T
            beta = self._W @ self._ahead[t] + self._ending[t] * self.T[:V, V:] * self.automaton.accept
            largest = beta.max()
            if largest == 0:
                raise ValueError("total weight is zero: nothing fulfils the constraints")
            beta, scale = beta / largest, unit + np.log(largest)
        total = self.T[V, :V] @ self._ahead[0][:, self.automaton.start]
        if total == 0:
            raise ValueError("total weight is zero: nothing fulfils the constraints")
        self.log_z = float(np.log(total) + scale)

    def _shift(self, beta: NDArray[np.float64], t: int) -> NDArray[np.float64]:
        """Return beta at the state reached by each token b from each state s, zero where b may not stand."""
        padded = np.column_stack([beta, np.zeros(len(beta))])
        ahead = np.take_along_axis(padded, self._where, axis=1)
        return ahead if self.allowed is None else ahead * self.allowed[t][:, None]

    def _choices(self, t: int, token: NDArray[np.int64], state: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weights of each next token and, last, of stopping, shape ``(n, V+1)``."""
        ahead = self.T[token, :-1] * self._ahead[t].T[state]
        stop = self.T[token, -1] * self.automaton.accept[state] * self._ending[t]
        return np.column_stack([ahead, stop])

    def sample(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return n independent sentences, tokens ``(n, hi)`` padded with -1, and lengths ``(n,)``."""
        tokens = np.full((n, self.high), -1, dtype=np.int64)
        lengths = np.full(n, self.high)
        last, state = np.full(n, self.n_symbols), np.full(n, self.automaton.start)
        alive = np.arange(n)
        for t in range(self.high):
            drawn = self._draw(t, last[alive], state[alive], rng)
            stopped = drawn == self.n_symbols
            lengths[alive[stopped]] = t
            alive, drawn = alive[~stopped], drawn[~stopped]
            tokens[alive, t] = last[alive] = drawn
            state[alive] = self.automaton.next_state[state[alive], drawn]
        return tokens, lengths

    def _draw(self, t: int, last: NDArray, state: NDArray, rng: np.random.Generator) -> NDArray[np.int64]:
        pairs, which = np.unique(last * len(self.automaton.accept) + state, return_inverse=True)
        order = np.argsort(which, kind="stable")
        which, drawn = which[order], np.empty(len(last), dtype=np.int64)
        for low in range(0, len(pairs), CHUNK):
            here = slice(*np.searchsorted(which, [low, low + CHUNK]))
            token, at = np.divmod(pairs[low : low + CHUNK], len(self.automaton.accept))
            drawn[order[here]] = draw_rows(self._choices(t, token, at), which[here] - low, rng)
        return drawn

    def length_law(self) -> NDArray[np.float64]:
        """Return the probability of each length from lo to hi, by a forward pass."""
        V, K = self._where.shape
        scale, logs = 0.0, []
        step = np.outer(self.T[V, :V], np.arange(K) == self.automaton.start)
        for t in range(1, self.high + 1):
            if self.allowed is not None:
                step = step * self.allowed[t - 1][:, None]
            alpha = np.zeros((V, K + 1))
            for s in range(K):
                alpha[np.arange(V), self._where[:, s]] += step[:, s]
            alpha = alpha[:, :K]
            ending = self.T[:V, V] @ alpha @ self.automaton.accept
            with np.errstate(divide="ignore"):
                logs.append(np.log(ending) + scale)
            largest = alpha.max()
            if largest == 0:
                logs += [-np.inf] * (self.high - t)
                break
            step, scale = self._W.T @ (alpha / largest), scale + np.log(largest)
        return np.exp(np.array(logs[self.low - 1 :]) - self.log_z)

    def best(self) -> tuple[NDArray[np.int64], float]:
        """Return the sentence of largest weight (Viterbi), and the logarithm of that weight."""
        V, _ = self._where.shape
        with np.errstate(divide="ignore"):
            logs = np.log(self.T)
            ends = np.log(self.automaton.accept.astype(float))
        ahead: list[NDArray[np.float64]] = []
        value = np.full(self._where.shape, -np.inf)
        for t in range(self.high, 0, -1):
            ahead.append(self._shift_logs(value, t) if t < self.high else value)
            value = np.column_stack([_best_of(logs[:V, :V], column) for column in ahead[-1].T])
            if t >= self.low:
                value = np.maximum(value, logs[:V, V:] + ends)
        ahead = [*ahead, self._shift_logs(value, 0)][::-1]
        return self._follow(logs, ends, ahead)

    def _shift_logs(self, value: NDArray[np.float64], t: int) -> NDArray[np.float64]:
        padded = np.column_stack([value, np.full(len(value), -np.inf)])
        ahead = np.take_along_axis(padded, self._where, axis=1)
        return ahead if self.allowed is None else np.where(self.allowed[t][:, None], ahead, -np.inf)

    def _follow(self, logs: NDArray, ends: NDArray, ahead: list[NDArray]) -> tuple[NDArray[np.int64], float]:
        sentence: list[int] = []
        last, state, total = self.n_symbols, self.automaton.start, 0.0
        for t in range(self.high + 1):
            on = logs[last, :-1] + ahead[t][:, state]
            token = int(np.argmax(on))
            stop = logs[last, -1] + ends[state] if t >= self.low else -np.inf
            if stop >= on[token]:
                return np.array(sentence), float(total + stop)
            sentence.append(token)
            total += logs[last, token]
            last, state = token, self.automaton.next_state[state, token]
        raise AssertionError("a path of finite weight ends")


def _best_of(logs: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return max over b of ``logs[a, b] + value[b]``, in chunks that stay in the cache."""
    keep = np.flatnonzero(value > -np.inf)
    if not len(keep):
        return np.full(len(logs), -np.inf)
    part, value = (logs, value) if len(keep) == len(value) else (logs[:, keep], value[keep])
    return np.concatenate([(part[i : i + 64] + value).max(1) for i in range(0, len(part), 64)])


def draw_rows(weights: NDArray[Any], rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return one column for each entry of ``rows``, drawn with the weights of that row, which need not sum to one."""
    running = np.cumsum(weights, axis=1, dtype=np.float64)
    running /= running[:, -1:]
    running[:, -1] = 1
    flat = (running + np.arange(len(running))[:, None]).ravel()
    drawn = np.searchsorted(flat, rows + rng.random(len(rows)), side="right") - rows * weights.shape[1]
    drawn = np.clip(drawn, 0, weights.shape[1] - 1)
    while (wrong := np.flatnonzero(weights[rows, drawn] == 0)).size:  # a rounding at the edge of an empty cell
        drawn[wrong] = (drawn[wrong] - 1) % weights.shape[1]
    return drawn


def twisted_smc(
    lm: NgramLM, guide: ExactSampler, n: int, rng: np.random.Generator, resample: float = 0.5, twist: bool = True
) -> tuple[float, NDArray[np.int64], NDArray[np.float64]]:
    """Sample constrained text from an n-gram model, guided by an exact bigram solution, ``eq-sampling-smc``.

    Parameters
    ----------
    lm
        The target's model, of any order, with boundaries.
    guide
        An :class:`ExactSampler` of one fixed length; its automaton and ``allowed`` are the constraint.
    n
        Number of particles.
    resample
        Resample when the effective sample size falls below this share of n.
    twist
        False: propose from the model alone and meet the constraint at the end.

    Returns
    -------
    log_z, tokens ``(n, length)``, log_weights ``(n,)``
        The weights' mean is the estimate of Z, ``log_z`` its logarithm; -inf when all particles die.

    Raises
    ------
    ValueError
        If the guide has a range of lengths or another vocabulary, or resample is not in [0, 1].
    """
    if guide.low != guide.high:
        raise ValueError(f"the guide must have one fixed length, got {(guide.low, guide.high)}")
    if lm.n_symbols != guide.n_symbols or not lm.boundary:
        raise ValueError(f"the model has {lm.n_symbols} tokens, the guide {guide.n_symbols}; both need boundaries")
    if n < 1 or not 0 <= resample <= 1:
        raise ValueError(f"need n >= 1 and resample in [0, 1], got {n} and {resample}")
    width, end = lm.order - 1, guide.n_symbols
    tokens = np.full((n, width + guide.high), end, dtype=np.int64)
    state, logs, promised = np.full(n, guide.automaton.start), np.zeros(n), np.zeros(n)
    for t in range(guide.high):
        p = lm.rows(tokens[:, t : t + width])[:, :end]
        ahead = _twist(guide, t, state, twist)
        with np.errstate(divide="ignore"):
            logs = logs + np.log((p * ahead).sum(1)) - promised
        alive = np.flatnonzero(np.isfinite(logs))
        if not len(alive):
            return -np.inf, tokens[:, width:], logs
        drawn = np.zeros(n, dtype=np.int64)
        drawn[alive] = draw_rows(p[alive] * ahead[alive], np.arange(len(alive)), rng)
        tokens[:, width + t] = drawn
        promised[alive] = np.log(ahead[alive, drawn[alive]])
        state = np.where(np.isfinite(logs), guide.automaton.next_state[state, drawn], state)
        share = np.exp(logs - logsumexp(logs))
        if t < guide.high - 1 and 1 / np.sum(share**2) < resample * n:
            kept = _systematic(share, rng)
            tokens, state, promised = tokens[kept], state[kept], promised[kept]
            logs = np.full(n, logsumexp(logs) - np.log(n))
    final = lm.rows(tokens[:, guide.high :])[:, end] * guide.automaton.accept[state]
    with np.errstate(divide="ignore"):
        logs = logs + np.log(final) - promised
    return float(logsumexp(logs) - np.log(n)), tokens[:, width:], logs


def _twist(guide: ExactSampler, t: int, state: NDArray[np.int64], twist: bool) -> NDArray[np.float64]:
    """Return the weight that a proposal gives each next token: the guide's, or whether it is allowed at all.

    The guide's has the scale of its step, which the weight promised a step later takes away again.
    """
    if twist:
        return guide._ahead[t].T[state]
    alive = guide.automaton.next_state[state] >= 0
    return (alive if guide.allowed is None else alive & guide.allowed[t]).astype(np.float64)


def _systematic(weights: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    points = (np.arange(len(weights)) + rng.random()) / len(weights)
    return np.minimum(np.searchsorted(np.cumsum(weights), points), len(weights) - 1)
