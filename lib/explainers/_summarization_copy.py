"""Copying: tags, the index of what may follow, the mixture, and a beam search whose states travel along.

Used through :mod:`explainers.summarization`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ._summarization_metric import Tokens, check_at_least, check_tokens, lcs_alignment

NOT_COPIED, BEGINS, CONTINUES = O, B, I = 0, 1, 2  # noqa: E741 - the field's own names

_METHODS = ("lcs", "fragments")
_COPY = ("none", "argmax", "mixture")

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps prefixes (rows, t) and parents (rows,) to logits (rows, vocabulary) and tag logits (rows, 3)."""


# --- Tags ---------------------------------------------------------------------------------------------------


def copy_tags(
    source: Tokens, target: Tokens, *, method: str = "lcs", min_length: int = 2
) -> tuple[list[int], list[int]]:
    """Return which tokens are copied: O = 0, B = 1, I = 2 (eq-summarization-bio, chapter summarization).

    Parameters
    ----------
    source, target : sequence of hashable
    method : "lcs" or "fragments"
        A longest common subsequence, as in the article; or, left to right in the target, the longest match with
        the source (its first place).
    min_length : int
        Shortest match of ``"fragments"``, at least 1.

    Returns
    -------
    (list of int, list of int)
        Tags of the source and of the target. I where both the token and its match directly follow those before.

    Raises
    ------
    TypeError, ValueError
        If one of them is a string, the method is unknown, or `min_length` is no integer or below 1.

    Examples
    --------
    >>> copy_tags("we really do love our dear land".split(), "we love our land".split())
    ([1, 0, 0, 1, 2, 0, 1], [1, 1, 2, 1])
    """
    check_tokens("source", source)
    check_tokens("target", target)
    if method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, _METHODS))}, got {method!r}")
    check_at_least("min_length", min_length, 1)
    pairs = lcs_alignment(source, target) if method == "lcs" else _fragments(source, target, min_length)
    source_tags, target_tags = [O] * len(source), [O] * len(target)
    before = None
    for i, j in pairs:
        tag = I if before == (i - 1, j - 1) else B
        source_tags[i] = source_tags[i] or tag  # a fragment may be copied twice; its first tag stays
        target_tags[j] = tag
        before = (i, j)
    return source_tags, target_tags


def _fragments(source: Tokens, target: Tokens, min_length: int) -> list[tuple[int, int]]:
    pairs, j = [], 0
    while j < len(target):
        start, length = _longest_match(source, target, j)
        if length >= min_length:
            pairs += [(start + n, j + n) for n in range(length)]
            j += length
        else:
            j += 1
    return pairs


def _longest_match(source: Tokens, target: Tokens, j: int) -> tuple[int, int]:
    """Return the first place in the source of the longest match of ``target[j:]``, and its length."""
    best = (0, 0)
    for i in range(len(source)):
        length = 0
        while i + length < len(source) and j + length < len(target) and source[i + length] == target[j + length]:
            length += 1
        if length > best[1]:
            best = (i, length)
    return best


# --- What may follow ----------------------------------------------------------------------------------------


class CopyIndex:
    """Answers what follows a span of the source, in time that does not depend on the source's length.

    A suffix automaton: a state stands for all spans that end at the same places (eq-summarization-copy-span of
    chapter summarization). Building it takes time proportional to the source, one step a dictionary look-up.

    Parameters
    ----------
    source : sequence of hashable

    Attributes
    ----------
    start : int
        The state of the empty span, which every token of the source continues.

    Raises
    ------
    TypeError
        If the source is a string.

    Examples
    --------
    >>> index = CopyIndex("a b c b d".split())
    >>> state = index.extend(index.start, "b")
    >>> sorted(index.continuations(state)), index.extend(state, "a")
    (['c', 'd'], None)
    """

    start = 0

    def __init__(self, source: Tokens):
        check_tokens("source", source)
        self._next: list[dict[Hashable, int]] = [{}]
        self._link, self._length = [-1], [0]  # of the longest suffix in another state; of the longest span
        last = self.start
        for token in source:
            last = self._append(last, token)

    def __len__(self) -> int:
        return len(self._next)

    def __repr__(self) -> str:
        return f"<CopyIndex of {max(self._length)} tokens: {len(self)} states>"

    def _new(self, length: int, link: int, transitions: dict[Hashable, int]) -> int:
        self._length.append(length)
        self._link.append(link)
        self._next.append(transitions)
        return len(self._next) - 1

    def _append(self, last: int, token: Hashable) -> int:
        """Add one token of the source (Blumer et al. 1985)."""
        new = self._new(self._length[last] + 1, self.start, {})
        at = last
        while at >= 0 and token not in self._next[at]:
            self._next[at][token] = new
            at = self._link[at]
        if at >= 0:
            self._link[new] = self._split(at, token)
        return new

    def _split(self, at: int, token: Hashable) -> int:
        """Return the state of the longest span of ``at`` followed by ``token``, cut out of a longer one if need be."""
        there = self._next[at][token]
        if self._length[there] == self._length[at] + 1:
            return there
        clone = self._new(self._length[at] + 1, self._link[there], dict(self._next[there]))
        self._link[there] = clone
        while at >= 0 and self._next[at].get(token) == there:
            self._next[at][token] = clone
            at = self._link[at]
        return clone

    def continuations(self, state: int) -> set[Hashable]:
        """Return the tokens that follow the state's span somewhere in the source; may be empty."""
        return set(self._next[state])

    def extend(self, state: int, token: Hashable) -> int | None:
        """Return the state of the span with ``token`` behind it, or None if the source does not hold it."""
        return self._next[state].get(token)

    def longest(self, state: int, token: Hashable) -> int:
        """Return the state of the longest suffix of span and ``token`` that the source holds, maybe the empty one."""
        while state >= 0 and token not in self._next[state]:
            state = self._link[state]
        return self._next[state][token] if state >= 0 else self.start


# --- The mixture --------------------------------------------------------------------------------------------


def copy_mixture(logits: Tensor, tag_logits: Tensor, index: CopyIndex, state: int) -> Tensor:
    """Return the log probability of every token, the tag summed out (eq-summarization-mixture, chapter summarization).

    ``p(y) = p(O) p(y) + p(B) p(y | source) + p(I) p(y | continuations)``; a tag that allows nothing gives its
    probability to the others, in proportion. The empty span is continued by every token of the source.

    Parameters
    ----------
    logits : float Tensor, shape (vocabulary,)
    tag_logits : float Tensor, shape (3,)
        In the order O, B, I.
    index : CopyIndex
        Of a source of integers below the size of the vocabulary.
    state : int
        Of the longest suffix of the output that the source holds.

    Returns
    -------
    Tensor, shape (vocabulary,)
        Differentiable; its exponentials sum to 1.

    Raises
    ------
    ValueError
        If a shape or a token of the source does not fit.

    Examples
    --------
    >>> index = CopyIndex([1, 2, 1])
    >>> copy_mixture(torch.zeros(4), torch.zeros(3), index, index.extend(index.start, 2)).exp()
    tensor([0.0833, 0.5833, 0.2500, 0.0833])
    """
    if logits.dim() != 1 or tag_logits.shape != (3,):
        raise ValueError(
            f"want logits (vocabulary,) and tag_logits (3,), got {tuple(logits.shape)} and {tuple(tag_logits.shape)}"
        )
    masks = [token_mask(index.continuations(at), len(logits), logits.device) for at in (index.start, state)]
    return mix(logits, tag_logits, *masks)


def token_mask(tokens: Iterable[Hashable], vocabulary: int, device: torch.device | None = None) -> Tensor:
    """Return the boolean mask, shape (vocabulary,), of a set of tokens."""
    chosen = list(tokens)
    for token in chosen:
        if not isinstance(token, (int, np.integer)) or not 0 <= token < vocabulary:
            raise ValueError(f"a source token must be an integer in 0..{vocabulary - 1}, got {token!r}")
    mask = torch.zeros(vocabulary, dtype=torch.bool, device=device)
    mask[chosen] = True
    return mask


def mix(logits: Tensor, tag_logits: Tensor, in_source: Tensor, continues: Tensor) -> Tensor:
    """Return `copy_mixture` for logits (..., vocabulary), tag logits (..., 3) and masks like the logits."""
    available = torch.stack([torch.ones_like(in_source.any(-1)), in_source.any(-1), continues.any(-1)], -1)
    tags = tag_logits.masked_fill(~available, -math.inf).log_softmax(-1)
    tokens = logits.log_softmax(-1)
    terms = [tokens]
    for mask in (in_source, continues):
        mass = tokens.masked_fill(~mask, -math.inf).logsumexp(-1, keepdim=True)
        terms.append((tokens - mass).masked_fill(~mask, -math.inf))  # all of the row where nothing is allowed
    return torch.logsumexp(torch.stack([term + tags[..., n, None] for n, term in enumerate(terms)]), 0)


# --- Beam search --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hypothesis:
    """An output of `beam_search`, without the end token.

    Attributes
    ----------
    tokens : tuple of int
    tags : tuple of int
        O, B or I for each token; all O unless the search ran with ``copy="argmax"``.
    score : float
        Sum of log probabilities, the end token's included.
    """

    tokens: tuple[int, ...]
    tags: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class _Path:
    """A hypothesis under way: with the state of its copied span, and the row of `step` that it continues."""

    tokens: tuple[int, ...] = ()
    tags: tuple[int, ...] = ()
    score: float = 0.0
    state: int = CopyIndex.start
    row: int = 0
    done: bool = False


def beam_search(
    step: Step, source: Tokens, *, end: int, beam: int = 4, max_length: int = 32, copy: str = "none",
    k: int | None = None,
) -> list[Hypothesis]:  # fmt: skip
    """Return the best continuations found, best first (eq-summarization-copy-span, chapter summarization).

    The state of the copied span is part of a hypothesis, so it moves when hypotheses change places.

    Parameters
    ----------
    step : callable
        ``step(prefixes, parents)`` takes integer tensors (rows, t) and (rows,), and returns logits
        (rows, vocabulary) and tag logits (rows, 3) of the next token. ``parents`` says which row of the previous
        call each prefix continues; the first call has one empty prefix.
    source : sequence of int
        What may be copied; if it is empty every tag is O.
    end : int
        The token that ends a hypothesis. It can be copied only if the source holds it.
    beam, max_length : int
        Hypotheses kept, and the largest number of tokens. Those that reach it count without an end.
    copy : "none", "argmax" or "mixture"
        Ignore the tags; let the most probable available tag restrict the tokens, as the article does (the tag
        itself is not scored); or sum the tag out.
    k : int, optional
        Keep only the k most probable tokens, after the restriction (eq-summarization-sparse).

    Returns
    -------
    list of Hypothesis
        At most `beam`. The score has no length normalisation.

    Raises
    ------
    TypeError, ValueError
        If the source is a string or holds no token ids, `copy` is unknown, a number is below 1, or `step`
        returns other shapes.

    Examples
    --------
    >>> def step(prefixes, parents):
    ...     return torch.tensor([2.0, 1.0, 0.0]).expand(len(prefixes), 3), torch.zeros(len(prefixes), 3)
    >>> [h.tokens for h in beam_search(step, [1], end=0, beam=2, max_length=3)]
    [(), (1,)]
    """
    check_tokens("source", source)
    for name, value in (("beam", beam), ("max_length", max_length)):
        check_at_least(name, value, 1)
    if copy not in _COPY:
        raise ValueError(f"copy must be one of {', '.join(map(repr, _COPY))}, got {copy!r}")
    if k is not None:
        check_at_least("k", k, 1)
    index = CopyIndex(list(source))
    paths = [_Path()]
    for _ in range(max_length):
        live = [path for path in paths if not path.done]
        if not live:
            break
        logits, tag_logits = _call(step, live)
        grown = [path for path in paths if path.done]
        for row, path in enumerate(live):
            log_p, tag = _next_token(logits[row], tag_logits[row], path.state, index, copy, k)
            grown += _grow(path, row, log_p, tag, index, copy, end, beam)
        paths = sorted(grown, key=lambda path: -path.score)[:beam]
    return [Hypothesis(path.tokens, path.tags, path.score) for path in paths]


def stale_beam_search(step: Step, source: Tokens, *, end: int, beam: int = 4, max_length: int = 32) -> list[Hypothesis]:
    """Search by the rule of the article's code; the counterfeit of eq-summarization-copy-span, chapter summarization.

    The code remembers, for each place in the beam, how long the copied run is, and lets I choose what continues that
    many tokens of the output; if nothing does, it falls back to B. The lengths do not move when hypotheses do.
    """
    source, index = list(source), CopyIndex(list(source))
    lengths = [0] * beam
    paths = [_Path()]
    for _ in range(max_length):
        live = [path for path in paths if not path.done]
        if not live:
            break
        logits, tag_logits = _call(step, live)
        grown = [path for path in paths if path.done]
        for row, path in enumerate(live):
            tag = int(tag_logits[row][: 3 if lengths[row] else 2].argmax())
            lengths[row] = lengths[row] + 1 if tag == I else tag
            allowed = _followers(source, path.tokens, lengths[row] - 1)
            if tag == I and not allowed:
                tag, lengths[row], allowed = B, 1, set(source)
            log_p = logits[row].log_softmax(-1)
            if tag != O:
                outside = ~token_mask(allowed, len(log_p))
                log_p = logits[row].masked_fill(outside, -math.inf).log_softmax(-1)
            grown += _grow(path, row, log_p, tag, index, "none", end, beam)
        paths = sorted(grown, key=lambda path: -path.score)[:beam]
    return [Hypothesis(path.tokens, path.tags, path.score) for path in paths]


def _followers(source: list[Hashable], output: tuple[Hashable, ...], count: int) -> set[Hashable]:
    """Return what follows the last ``count`` tokens of the output somewhere in the source."""
    last = list(output[len(output) - count :]) if count > 0 else []
    return {source[at + len(last)] for at in range(len(source) - len(last)) if source[at : at + len(last)] == last}


def _call(step: Step, live: list[_Path]) -> tuple[Tensor, Tensor]:
    prefixes = torch.tensor([path.tokens for path in live], dtype=torch.long).view(len(live), -1)
    logits, tag_logits = step(prefixes, torch.tensor([path.row for path in live]))
    if logits.dim() != 2 or len(logits) != len(live) or tag_logits.shape != (len(live), 3):
        got = f"{tuple(logits.shape)} and {tuple(tag_logits.shape)}"
        raise ValueError(f"step must return ({len(live)}, vocabulary) and ({len(live)}, 3), got {got}")
    return logits, tag_logits


def _next_token(
    logits: Tensor, tag_logits: Tensor, state: int, index: CopyIndex, copy: str, k: int | None
) -> tuple[Tensor, int]:
    """Return log probabilities of the next token, shape (vocabulary,), and the tag that restricted them."""
    if copy == "mixture":
        return _truncate(copy_mixture(logits, tag_logits, index, state), k), O
    if copy == "none":
        return _truncate(logits, k), O
    spans = {O: None, B: index.continuations(index.start), I: set()}
    if state != index.start:  # without a span there is nothing to continue
        spans[I] = index.continuations(state)
    tag = max((tag for tag in spans if spans[tag] is None or spans[tag]), key=lambda tag: float(tag_logits[tag]))
    if tag == O:
        return _truncate(logits, k), O
    allowed = token_mask(spans[tag], len(logits), logits.device)
    return _truncate(logits.masked_fill(~allowed, -math.inf), k), tag


def _truncate(logits: Tensor, k: int | None) -> Tensor:
    if k is None or k >= len(logits):
        return logits.log_softmax(-1)
    top, place = logits.topk(k)
    return torch.full_like(logits, -math.inf).scatter(-1, place, top.log_softmax(-1))


def _grow(
    path: _Path, row: int, log_p: Tensor, tag: int, index: CopyIndex, copy: str, end: int, beam: int
) -> list[_Path]:
    """Return the best continuations of a path by one token."""
    top = log_p.topk(min(beam, len(log_p)))
    grown = []
    for gain, token in zip(top.values.tolist(), top.indices.tolist()):
        if gain == -math.inf:
            continue
        score = path.score + gain
        if token == end:
            grown.append(_Path(path.tokens, path.tags, score, done=True))
        else:
            state = _next_state(path.state, token, tag, index, copy)
            grown.append(_Path((*path.tokens, token), (*path.tags, tag), score, state, row))
    return grown


def _next_state(state: int, token: int, tag: int, index: CopyIndex, copy: str) -> int:
    if copy == "mixture":
        return index.longest(state, token)
    if copy == "none" or tag == O:
        return index.start
    after = index.extend(state if tag == I else index.start, token)
    assert after is not None, "the restriction let a token through that the source does not hold there"
    return after
