"""ROUGE, the longest common subsequence, and labels for an extractor; used through :mod:`explainers.summarization`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[Hashable]

WEIGHTS = (0.2, 0.4, 0.4)
"""What CAIL 2020 gives to ROUGE-1, ROUGE-2 and ROUGE-L (eq-summarization-score, chapter summarization)."""


def check_tokens(name: str, tokens: object) -> None:
    """Raise TypeError unless ``tokens`` is a sequence of tokens; a string is the classic mistake."""
    if isinstance(tokens, (str, bytes)):
        raise TypeError(
            f"{name} must be a sequence of tokens, got the {type(tokens).__name__} {tokens[:20]!r}: "
            "split it into words first, or pass list(text) if characters are meant"
        )
    if hasattr(tokens, "detach"):
        raise TypeError(f"{name} must be a sequence of tokens, got a tensor: pass tensor.tolist()")
    if not hasattr(tokens, "__len__") or not hasattr(tokens, "__getitem__"):
        raise TypeError(f"{name} must be a sequence of tokens, got {type(tokens).__name__}")


def check_at_least(name: str, value: object, low: int) -> None:
    """Raise unless ``value`` is an integer (no bool) that is not below ``low``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")


# --- The metric ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rouge:
    """The three F-measures of a candidate, each between 0 and 1."""

    rouge1: float
    rouge2: float
    rougeL: float

    @property
    def combined(self) -> float:
        """The competition's score, 0.2 R1 + 0.4 R2 + 0.4 RL (eq-summarization-score, chapter summarization)."""
        return WEIGHTS[0] * self.rouge1 + WEIGHTS[1] * self.rouge2 + WEIGHTS[2] * self.rougeL


def rouge(candidate: Tokens, reference: Tokens) -> Rouge:
    """Return ROUGE-1, ROUGE-2 and ROUGE-L as F-measures (eq-summarization-rouge, chapter summarization).

    Parameters
    ----------
    candidate, reference : sequence of hashable
        Tokens: words, or characters as ``list(text)``.

    Returns
    -------
    Rouge
        Twice the clipped overlap over the sum of the two counts; 0 where there is nothing to count.

    Raises
    ------
    TypeError
        If one of them is a string.

    Examples
    --------
    >>> score = rouge("a b c d".split(), "c d a b".split())
    >>> score.rouge1, round(score.rouge2, 3), score.rougeL, round(score.combined, 3)
    (1.0, 0.667, 0.5, 0.667)
    """
    check_tokens("candidate", candidate)
    check_tokens("reference", reference)
    sizes = len(candidate), len(reference)
    if not all(sizes):
        return Rouge(0.0, 0.0, 0.0)
    unigrams = _overlap(candidate, reference)
    bigrams = _overlap(list(pairwise(candidate)), list(pairwise(reference)))
    common = _lcs_length(candidate, reference) if unigrams else 0
    pairs = sum(sizes) - 2
    return Rouge(2 * unigrams / sum(sizes), 2 * bigrams / pairs if pairs else 0.0, 2 * common / sum(sizes))


def _overlap(left: Tokens, right: Tokens) -> int:
    """Count common items, each as often as it stands on both sides (clipped)."""
    if len(left) > len(right):
        left, right = right, left
    counts, total = Counter(left), 0
    for item in right:
        if counts.get(item):
            counts[item] -= 1
            total += 1
    return total


# --- The longest common subsequence, 64 cells of its table at a time ---------------------------------------


def _match_masks(source: Tokens) -> dict[Hashable, int]:
    """Return for each token the integer whose bit i is set where it stands at place i."""
    masks: dict[Hashable, int] = {}
    bit = 1
    for token in source:
        masks[token] = masks.get(token, 0) | bit
        bit <<= 1
    return masks


def _lcs_length(source: Tokens, target: Tokens) -> int:
    """Return the length of the longest common subsequence (eq-summarization-lcs-bits)."""
    masks = _match_masks(source)
    full = row = (1 << len(source)) - 1
    for token in target:
        if mask := masks.get(token):
            u = row & mask
            row = (row + u) | (row - u)
    return len(source) - (row & full).bit_count()


def lcs_alignment(source: Tokens, target: Tokens) -> list[tuple[int, int]]:
    """Return a longest common subsequence as pairs of places (eq-summarization-lcs-bits, chapter summarization).

    Parameters
    ----------
    source, target : sequence of hashable
        Tokens, of any length.

    Returns
    -------
    list of (int, int)
        Increasing in both places, with ``source[i] == target[j]``; as far left in the source as possible.

    Raises
    ------
    TypeError
        If one of them is a string.

    Examples
    --------
    >>> lcs_alignment("we really do love our land".split(), "we love our land".split())
    [(0, 0), (3, 1), (4, 2), (5, 3)]
    """
    check_tokens("source", source)
    check_tokens("target", target)
    masks = _match_masks(source)
    full = row = (1 << len(source)) - 1  # what stands above is masked again when the rows are read
    rows = [row]
    for token in target:
        u = row & masks.get(token, 0)
        row = ((row + u) | (row - u)) & full
        rows.append(row)
    return _walk_back(rows, len(source), len(target))


def _walk_back(rows: list[int], i: int, j: int) -> list[tuple[int, int]]:
    """Read an alignment off the rows: bit i - 1 of row j is clear where the LCS grows from i - 1 to i."""
    pairs = []
    while i and j:
        grows = ~rows[j] & ((1 << i) - 1)  # the places of the source at which row j grows
        if not grows:
            break
        i = grows.bit_length()
        if not rows[j - 1] >> (i - 1) & 1:  # it grew there without this target token
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


# --- Labels for an extractor --------------------------------------------------------------------------------


def split_sentences(text: str, stops: str = "\n。；：，") -> list[str]:
    """Cut a text into clauses without losing a character.

    Parameters
    ----------
    text : str
    stops : str
        Characters that end a clause; a run of them ends it once. Leading ones belong to the first clause.

    Returns
    -------
    list of str
        ``"".join`` of it is the text.

    Raises
    ------
    TypeError, ValueError
        If the text is no string, or there is no stop.

    Examples
    --------
    >>> split_sentences("one. two, three", stops=".,")
    ['one.', ' two,', ' three']
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}")
    if not stops:
        raise ValueError("stops must hold at least one character")
    stop = f"[{re.escape(stops)}]"
    inside = f"[^{re.escape(stops)}]"
    return re.findall(rf"\A{stop}+{inside}*{stop}*|{inside}+{stop}*", text)


def match_labels(sentences: Sequence[Tokens], summary_sentences: Sequence[Tokens]) -> list[tuple[int, int]]:
    """Return which sentence each summary sentence was made from (eq-summarization-match, chapter summarization).

    The longest summary sentence takes its most similar sentence; those left of it are matched up to that place,
    those right of it from that place on. A sentence may serve several times; first maxima win ties.

    Parameters
    ----------
    sentences, summary_sentences : sequence of token sequences

    Returns
    -------
    list of (int, int)
        Pairs (summary index, sentence index), increasing in the first, never decreasing in the second; empty
        if there are no sentences.

    Raises
    ------
    TypeError
        If a sentence is a string.

    Examples
    --------
    >>> text = ["the court finds".split(), "he owes 5 yuan".split(), "costs are shared".split()]
    >>> match_labels(text, ["court finds".split(), "owes 5 yuan".split()])
    [(0, 0), (1, 1)]
    """
    check_sentences("sentences", sentences)
    check_sentences("summary_sentences", summary_sentences)
    if not sentences:
        return []
    pairs: list[tuple[int, int]] = []
    todo = [(0, len(sentences), 0, len(summary_sentences))]  # half-open ranges of the text and of the summary
    while todo:
        low, high, first, last = todo.pop()
        if first == last:
            continue
        i = max(range(first, last), key=lambda at: len(summary_sentences[at]))
        j = max(range(low, high), key=lambda at: rouge(sentences[at], summary_sentences[i]).combined)
        pairs.append((i, j))
        todo += [(low, j + 1, first, i), (j, high, i + 1, last)]
    return sorted(pairs)


def greedy_labels(sentences: Sequence[Tokens], reference: Tokens, limit: int | None = None) -> list[int]:
    """Return sentences that together resemble the reference (eq-summarization-greedy, chapter summarization).

    Adds the sentence that raises the combined score of the selection, read in document order, most; stops when
    none does. That is a local optimum.

    Parameters
    ----------
    sentences : sequence of token sequences
    reference : sequence of hashable
    limit : int, optional
        Take at most so many, at least 1.

    Returns
    -------
    list of int
        Places in document order; ties go to the earlier sentence.

    Raises
    ------
    TypeError, ValueError
        If a sentence or the reference is a string, or `limit` is below 1.

    Examples
    --------
    >>> greedy_labels(["c d".split(), "x y".split(), "a b".split()], "c d a b".split())
    [0, 2]
    """
    check_sentences("sentences", sentences)
    check_tokens("reference", reference)
    if limit is not None:
        check_at_least("limit", limit, 1)
    chosen: list[int] = []
    best = 0.0
    while limit is None or len(chosen) < limit:
        trials = {at: _score(sentences, sorted([*chosen, at]), reference) for at in _others(sentences, chosen)}
        at = max(trials, key=trials.__getitem__, default=None)
        if at is None or trials[at] <= best:
            break
        chosen, best = sorted([*chosen, at]), trials[at]
    return chosen


def _others(sentences: Sequence[Tokens], chosen: list[int]) -> Iterable[int]:
    return (at for at in range(len(sentences)) if at not in chosen)


def _score(sentences: Sequence[Tokens], places: list[int], reference: Tokens) -> float:
    return rouge([token for at in places for token in sentences[at]], reference).combined


def check_sentences(name: str, sentences: Sequence[Tokens]) -> None:
    """Raise TypeError unless ``sentences`` is a sequence of token sequences."""
    check_tokens(name, sentences)
    for at, sentence in enumerate(sentences):
        check_tokens(f"{name}[{at}]", sentence)


def textrank(sentences: Sequence[Tokens], damping: float = 0.85, tol: float = 1e-6) -> NDArray[np.float64]:
    """Return how central each sentence is, by Mihalcea and Tarau's random walk (chapter summarization).

    Two sentences are as similar as ``sum_w c_a(w) c_b(w) / (log |a| + log |b|)``, a sentence with itself included.

    Parameters
    ----------
    sentences : sequence of token sequences
    damping : float
        Probability of following a similarity, in (0, 1).
    tol : float
        Stop when the ranks move by less (Euclidean norm).

    Returns
    -------
    float array, shape (sentences,)
        Positive, with sum 1.

    Raises
    ------
    TypeError, ValueError
        If a sentence is a string, or `damping` or `tol` is out of range.

    Examples
    --------
    >>> textrank(["a b".split(), "a b c d".split(), "c e".split()]).round(2)
    array([0.33, 0.39, 0.29])
    """
    check_sentences("sentences", sentences)
    if not 0 < damping < 1:
        raise ValueError(f"damping must lie in (0, 1), got {damping}")
    if not tol > 0:
        raise ValueError(f"tol must be positive, got {tol}")
    n = len(sentences)
    if n == 0:
        return np.zeros(0)
    weights = _similarities(sentences)
    weights[weights.sum(1) == 0] = 1.0  # an empty sentence leads anywhere
    walk = (1 - damping) / n + damping * weights / weights.sum(1, keepdims=True)
    rank, moved = np.full(n, 1 / n), np.inf
    while moved > tol:
        new = rank @ walk
        rank, moved = new, float(np.linalg.norm(new - rank))
    return rank


def _similarities(sentences: Sequence[Tokens]) -> NDArray[np.float64]:
    index: dict[Hashable, int] = {}
    counts = np.zeros((len(sentences), sum(len(s) for s in sentences) or 1))
    for row, sentence in enumerate(sentences):
        for token in sentence:
            counts[row, index.setdefault(token, len(index))] += 1
    lengths = np.array([log(len(s)) if len(s) else 0.0 for s in sentences])
    norm = lengths[:, None] + lengths
    return counts @ counts.T / np.where(norm > 0, norm, 1.0)  # two single words: their count itself
