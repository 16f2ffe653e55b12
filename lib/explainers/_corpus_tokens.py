"""Words and numbers of a text, vocabularies, and token streams; used through :mod:`explainers.corpus`."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_NUMBER = r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?"
_WORD = r"[A-Za-z]+(?:'[a-z]+)?|<(?:math|num|unk)>"
_TOKENS = {
    None: re.compile(rf"{_WORD}|{_NUMBER}"),
    "punct": re.compile(rf"{_WORD}|{_NUMBER}|[.,;:()]"),
}


def tokenize(
    text: str,
    *,
    lower: bool = True,
    numbers: str | None = "<num>",
    keep: str | None = None,
) -> list[str]:
    """Cut a text into words and numbers.

    Parameters
    ----------
    text : str
        Plain text; ``<math>``, ``<num>`` and ``<unk>`` in it stay whole.
    lower : bool
        Lower-case the text first.
    numbers : str or None
        What stands for every number; None leaves them as they are.
    keep : None or 'punct'
        With ``'punct'`` the signs ``. , ; : ( )`` are tokens, too; all else is dropped.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If ``keep`` is neither.

    Examples
    --------
    >>> tokenize("Don't sum 3.5 values.")
    ["don't", 'sum', '<num>', 'values']
    >>> tokenize("Sum (all).", keep="punct")
    ['sum', '(', 'all', ')', '.']
    """
    if keep not in _TOKENS:
        raise ValueError(f"keep must be None or 'punct', got {keep!r}")
    tokens = _TOKENS[keep].findall(text.lower() if lower else text)
    if numbers is None:
        return tokens
    return [numbers if "0" <= token[0] <= "9" else token for token in tokens]


@dataclass(frozen=True, repr=False, eq=False)
class Vocabulary:
    """Words and their identifiers.

    Attributes
    ----------
    words : tuple of str
        By identifier: the specials first, then by falling count, equal counts alphabetically.
    counts : int64 array, shape (words,)
        How often each stands in the documents it was built from.
    index : dict
        Identifier by word.

    Examples
    --------
    >>> vocabulary = Vocabulary.build([["b", "a", "b"], ["c", "a", "b"]], min_count=2)
    >>> vocabulary.words, vocabulary.counts.tolist()
    (('<unk>', 'b', 'a'), [0, 3, 2])
    >>> vocabulary.encode(["a", "c", "b"], unknown="unk").tolist()
    [2, 0, 1]
    """

    words: tuple[str, ...]
    counts: NDArray[np.int64]
    index: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        index = {word: at for at, word in enumerate(self.words)}
        if len(index) != len(self.words) or len(self.counts) != len(self.words):
            raise ValueError(
                f"a vocabulary needs one count for each of its distinct words, got {len(self.words)} words "
                f"({len(index)} distinct) and {len(self.counts)} counts"
            )
        object.__setattr__(self, "index", index)

    @classmethod
    def build(
        cls,
        token_docs: Iterable[Iterable[str]],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        specials: Sequence[str] = ("<unk>",),
    ) -> Vocabulary:
        """Count the tokens and keep the frequent ones.

        Parameters
        ----------
        token_docs : iterable of iterables of str
        min_count : int
            Rarer words are left out (never a special).
        max_size : int or None
            At most this many entries, specials included.
        specials : sequence of str
            Come first, whether they occur or not.
        """
        if max_size is not None and max_size < len(specials):
            raise ValueError(f"max_size must leave room for {len(specials)} specials, got {max_size}")
        counter: Counter[str] = Counter(itertools.chain.from_iterable(token_docs))
        head = [(word, counter.pop(word, 0)) for word in specials]
        frequent = [item for item in counter.items() if item[1] >= min_count]
        frequent.sort(key=lambda item: (-item[1], item[0]))
        entries = (head + frequent)[:max_size]
        counts = np.array([count for _, count in entries], dtype=np.int64)
        return cls(tuple(word for word, _ in entries), counts)

    def encode(self, tokens: Iterable[str], *, unknown: str = "drop") -> NDArray[np.int32]:
        """Return the identifiers, shape (tokens,); unknown words are dropped or become ``<unk>``."""
        return np.array(self._ids(tokens, self._default(unknown)), dtype=np.int32)

    def decode(self, token_ids: Iterable[int]) -> list[str]:
        """Return the words of the identifiers."""
        return [self.words[at] for at in token_ids]

    def _ids(self, tokens: Iterable[str], default: int | None) -> list[int]:
        if default is None:
            return [at for token in tokens if (at := self.index.get(token)) is not None]
        return [self.index.get(token, default) for token in tokens]

    def _default(self, unknown: str) -> int | None:
        if unknown not in ("drop", "unk"):
            raise ValueError(f"unknown must be 'drop' or 'unk', got {unknown!r}")
        if unknown == "unk" and "<unk>" not in self.index:
            raise ValueError("unknown='unk' needs '<unk>' in the vocabulary: build it with that special")
        return self.index["<unk>"] if unknown == "unk" else None

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def __repr__(self) -> str:
        head = " ".join(self.words[:6])
        return f"<Vocabulary of {len(self)} words, {int(self.counts.sum())} tokens: {head} ...>"


def encode_corpus(
    token_docs: Iterable[Iterable[str]], vocab: Vocabulary, *, unknown: str = "drop"
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return all documents as one array of identifiers, with the places where they begin.

    Parameters
    ----------
    token_docs : iterable of iterables of str
    vocab : Vocabulary
    unknown : 'drop' or 'unk'
        What happens to words that the vocabulary lacks.

    Returns
    -------
    token_ids : int32 array, shape (N,)
    offsets : int64 array, shape (documents + 1,)
        Document d is ``token_ids[offsets[d]:offsets[d + 1]]``.

    Raises
    ------
    ValueError
        With ``unknown='unk'`` and no ``<unk>`` in the vocabulary.

    Examples
    --------
    >>> vocab = Vocabulary.build([["a", "b", "a"]], specials=())
    >>> encode_corpus([["a", "x"], [], ["b", "a"]], vocab)
    (array([0, 1, 0], dtype=int32), array([0, 1, 1, 3]))
    """
    default = vocab._default(unknown)
    token_ids: list[int] = []
    offsets = [0]
    for tokens in token_docs:
        token_ids += vocab._ids(tokens, default)
        offsets.append(len(token_ids))
    return np.array(token_ids, dtype=np.int32), np.array(offsets, dtype=np.int64)


def subsample(
    token_ids: NDArray[np.integer],
    offsets: NDArray[np.integer],
    counts: NDArray[np.integer],
    threshold: float = 1e-4,
    seed: int = 0,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Thin out frequent words as word2vec does: keep a token with probability min(1, sqrt(threshold / f)).

    Parameters
    ----------
    token_ids : int array, shape (N,)
    offsets : int array, shape (documents + 1,)
        As :func:`encode_corpus` returns them.
    counts : int array, shape (words,)
        Of the vocabulary; f is a word's share of their sum.
    threshold : float
        Words rarer than this are all kept.
    seed : int

    Returns
    -------
    token_ids, offsets
        Of the same documents, shorter.

    Examples
    --------
    >>> stream = np.zeros(10_000, int), np.array([0, 10_000])
    >>> token_ids, offsets = subsample(*stream, counts=np.array([10_000]), threshold=0.25)
    >>> bool(abs(len(token_ids) - 5_000) < 200), int(offsets[-1]) == len(token_ids)
    (True, True)
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be positive, got {threshold}")
    low, high = (int(np.min(token_ids)), int(np.max(token_ids))) if len(token_ids) else (0, -1)
    if low < 0 or high >= len(counts):
        raise ValueError(f"token_ids must lie in 0..{len(counts) - 1} to have a count, got {low}..{high}")
    if len(offsets) == 0 or offsets[-1] != len(token_ids):
        raise ValueError(f"offsets must end with the number of tokens, {len(token_ids)}, got {offsets[-1:]}")
    share = np.maximum(counts, 1) / max(np.sum(counts), 1)
    keep_probability = np.minimum(1.0, np.sqrt(threshold / share))
    kept = np.random.default_rng(seed).random(len(token_ids)) < keep_probability[token_ids]
    new_offsets = np.concatenate([[0], np.cumsum(kept)])[offsets]
    return np.asarray(token_ids, dtype=np.int32)[kept], new_offsets.astype(np.int64)
