"""Small worlds in which every sampler can be written down as a matrix. Part of :mod:`explainers.sampling`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MISTAKES = ("no q", "off by one", "no moves", "skip rejected", "locked")
THIRDS = (Fraction(1, 3),) * 3


def strings(n_symbols: int, lengths: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return all strings whose length lies within the bounds, shorter ones first.

    >>> strings(2, (1, 2))
    [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]
    """
    return [s for size in range(lengths[0], lengths[1] + 1) for s in itertools.product(range(n_symbols), repeat=size)]


def path_weight(T: NDArray[Any], string: Sequence[int]) -> Any:
    """Return the product of bigram weights from the start through a string to the end."""
    path = [len(T) - 1, *string, len(T) - 1]
    weight = T[path[0], path[1]]
    for a, b in itertools.pairwise(path[1:]):
        weight = weight * T[a, b]
    return weight


@dataclass(frozen=True)
class EditChain:
    """A chain of insertions, deletions and replacements as a matrix."""

    states: list[tuple[tuple[int, ...], tuple[int, ...]]]  # sentence, and places of its locked keywords (if any)
    kernel: NDArray[Any]

    def sentence_law(self, law: NDArray[Any]) -> dict[tuple[int, ...], Any]:
        """Return a law over states as a law over sentences."""
        total: dict[tuple[int, ...], Any] = {}
        for (sentence, _), p in zip(self.states, law):
            total[sentence] = total.get(sentence, 0) + p
        return total


def edit_chain(
    T: ArrayLike, lengths: tuple[int, int], keywords: Sequence[int] = (), moves: Sequence[Any] = THIRDS,
    mistake: str | None = None,
) -> EditChain:  # fmt: skip
    """Return the matrix of the edit sampler, right or with one of the classical mistakes.

    Parameters
    ----------
    T
        Bigram weights ``(V+1, V+1)``, positive but for the last, of no word at all; Fractions give an exact matrix.
    lengths
        Bounds on the length.
    keywords
        Every sentence holds them all; with ``"locked"`` in this order.
    moves
        Probabilities of replace, insert, delete.
    mistake
        None, or ``"no q"``: the proposal is missing from the ratio; ``"off by one"``: an insertion is thought to have
        as many slots as there are words; ``"no moves"``: the moves' probabilities are missing; ``"skip rejected"``:
        a rejected step is not counted; ``"locked"``: keywords are locked in place, and the number of places where one
        may insert or delete is missing, as in the published demo.

    Raises
    ------
    ValueError
        For an unknown mistake, or a weight that is not positive.
    """
    if mistake is not None and mistake not in MISTAKES:
        raise ValueError(f"mistake must be None or one of {MISTAKES}, got {mistake!r}")
    table = np.asarray(T)
    if not (table.ravel()[:-1] > 0).all():
        raise ValueError("every weight but the last, from the start to the end, must be positive")
    world = _World(table, lengths, tuple(keywords), tuple(moves), mistake)
    states = world.states()
    place = {state: at for at, state in enumerate(states)}
    zero = Fraction(0) if table.dtype == object else 0.0
    kernel = np.full((len(states), len(states)), zero, dtype=table.dtype)
    for at, state in enumerate(states):
        for other, probability in world.edits(state):
            if other in place:
                kernel[at, place[other]] += probability
    if mistake == "skip rejected":
        return EditChain(states, kernel / kernel.sum(1)[:, None])
    kernel[np.diag_indices(len(states))] += 1 - kernel.sum(1)
    return EditChain(states, kernel)


@dataclass(frozen=True)
class _World:
    T: NDArray[Any]
    lengths: tuple[int, int]
    keywords: tuple[int, ...]
    moves: tuple[Any, ...]
    mistake: str | None

    def states(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        every = strings(len(self.T) - 1, self.lengths)
        if self.mistake != "locked":
            return [(s, ()) for s in every if set(self.keywords) <= set(s)]
        return [
            (s, marks)
            for s in every
            for marks in itertools.combinations(range(len(s)), len(self.keywords))
            if tuple(s[m] for m in marks) == self.keywords
        ]

    def edits(self, state):
        """Yield each accepted edit: the new state and its probability."""
        s, marks = state
        free = [i for i in range(len(s)) if i not in marks]
        replace, insert, delete = self.moves
        for i in free:
            left, right = self._around(s, i, i + 1)
            for word, q in self._between(left, right):
                yield (s[:i] + (word,) + s[i + 1 :], marks), replace * q / len(free)
        for i in range(len(s) + 1):
            left, right = self._around(s, i, i)
            for word, q in self._between(left, right):
                new = s[:i] + (word,) + s[i:], tuple(m + (m >= i) for m in marks)
                yield new, insert * q / (len(s) + 1) * min(1, self._ratio(s, i, word, q))
        for i in free:
            left, right = self._around(s, i, i + 1)
            short = s[:i] + s[i + 1 :]
            q = dict(self._between(left, right))[s[i]]
            accept = min(1, 1 / self._ratio(short, i, s[i], q)) if short else 0
            yield (short, tuple(m - (m > i) for m in marks)), delete / len(free) * accept

    def _around(self, s, i, j):
        edge = len(self.T) - 1
        return s[i - 1] if i else edge, s[j] if j < len(s) else edge

    def _between(self, left, right):
        weights = [self.T[left, w] * self.T[w, right] for w in range(len(self.T) - 1)]
        return [(w, weight / sum(weights)) for w, weight in enumerate(weights)]

    def _ratio(self, s, i, word, q):
        """Return the ratio that decides on inserting a word into s at slot i; the deletion has its inverse."""
        left, right = self._around(s, i, i)
        ratio = self.T[left, word] * self.T[word, right] / self.T[left, right]  # rho(y) / rho(x)
        if self.mistake != "no q":
            ratio = ratio / q
        if self.mistake != "no moves":
            ratio = ratio * self.moves[2] / self.moves[1]
        if self.mistake == "off by one":
            ratio = ratio * Fraction(len(s), len(s) + 1)
        return ratio


def embeddings(keywords: Sequence[int], string: Sequence[int]) -> int:
    """Return in how many ways keywords stand in a string in this order.

    >>> embeddings([0, 1], [0, 0, 1])
    2
    """
    ways = [1] + [0] * len(keywords)
    for token in string:
        for k in range(len(keywords), 0, -1):
            ways[k] += ways[k - 1] * (keywords[k - 1] == token)
    return ways[-1]


def string_neighbours(n_symbols: int, length: int) -> NDArray[np.int64]:
    """Return for each string of one length those that differ in one place, shape ``(n, length (V-1))``."""
    every = np.array(list(itertools.product(range(n_symbols), repeat=length)))
    place = n_symbols ** np.arange(length - 1, -1, -1)
    moved = (every[:, :, None] + np.arange(1, n_symbols)) % n_symbols  # the other symbols, for each place
    change = (moved - every[:, :, None]) * place[None, :, None]
    return ((every @ place)[:, None, None] + change).reshape(len(every), -1)


def order_weights(p: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the total and the largest weight over all orders of n different words (Held and Karp).

    A set of used words and its last two words are all that the past matters: ``2^n n^2`` states for ``n!`` orders.

    Parameters
    ----------
    p
        Not negative, shape ``(..., n+1, n+1, n+1)``: ``p[..., u, v, w]`` weighs w after u and v; the index n is the
        boundary, twice in front and once behind. Leading axes are problems of their own. n is at most 12.

    Returns
    -------
    total, best ``(...)``

    Raises
    ------
    ValueError
        For another shape, more than 12 words, or weights that are negative or not finite.

    Examples
    --------
    >>> total, best = order_weights(np.full((4, 4, 4), 0.5))
    >>> float(total / best)  # 3! orders of equal weight
    6.0
    """
    weights = np.asarray(p, dtype=np.float64)
    if weights.ndim < 3 or len(set(weights.shape[-3:])) != 1 or not 2 <= weights.shape[-1] <= 13:
        raise ValueError(f"p must have shape (..., n+1, n+1, n+1) with n from 1 to 12, got {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("p must be finite and not negative")
    return _over_orders(weights, np.sum), _over_orders(weights, np.max)


def _over_orders(p: NDArray[np.float64], combine: Callable[..., Any]) -> NDArray[np.float64]:
    n = p.shape[-1] - 1
    ways = np.zeros((2**n, *p.shape[:-1]))  # by the set of used words, (..., last but one, last)
    ways[0, ..., n, n] = 1
    for used in range(2**n - 1):
        after = combine(ways[used][..., None] * p, axis=-3)
        for word in range(n):
            if not used >> word & 1:
                ways[used | 1 << word, ..., word] = after[..., word]
    return combine(ways[-1] * p[..., n], axis=(-2, -1))


def anneal_exactly(
    f: NDArray[np.float64], neighbours: NDArray[np.int64], temperatures: Sequence[float], law: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the law of simulated annealing after all steps, without a random number, ``eq-sampling-anneal``.

    Parameters
    ----------
    f
        The function to be maximised, shape ``(n,)``.
    neighbours
        Equally many candidates for each state, shape ``(n, d)``, proposed uniformly; 0 is allowed as a temperature:
        hill climbing.
    law
        Law of the start, by default uniform.
    """
    n, d = neighbours.shape
    p = np.full(n, 1 / n) if law is None else np.asarray(law, dtype=np.float64)
    rise = np.minimum(f[neighbours] - f[:, None], 0)
    for tau in temperatures:
        flow = p[:, None] * (np.exp(rise / tau) if tau > 0 else rise == 0) / d
        p = p - flow.sum(1) + np.bincount(neighbours.ravel(), flow.ravel(), minlength=n)
    return p
