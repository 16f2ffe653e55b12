"""Sentences and letters of the docstring corpus. Part of :mod:`explainers.sampling`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._sampling_ngram import encode
from .corpus import Corpus

LETTERS = "abcdefghijklmnopqrstuvwxyz "

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_PLAIN = re.compile(r"[A-Z][A-Za-z0-9 ,.;:()'-]*\.")
_TOKEN = re.compile(r"[a-z]+(?:['-][a-z]+)*|[0-9]+|[,.;:()]")


def sentences(corpus: Corpus) -> list[list[str]]:
    """Return the plain sentences of a corpus as lower-case tokens: words, numbers and ``, . ; : ( )``.

    A sentence starts with a capital, ends with a full stop, holds at least three words and no code; a repeated one
    is kept once.
    """
    found: dict[tuple[str, ...], None] = {}
    for text in corpus.prose():
        for line in text.split("\n"):
            for sentence in _SENTENCE_END.split(line):
                if _PLAIN.fullmatch(sentence):
                    tokens = tuple(_TOKEN.findall(sentence.lower()))
                    if sum(token[0].isalpha() for token in tokens) >= 3:
                        found[tokens] = None
    return [list(tokens) for tokens in found]


@dataclass(frozen=True)
class WordLab:
    """Sentences made of the most frequent words only, so that a model is small enough to be solved."""

    words: list[str]  # the vocabulary
    train: list[NDArray[np.int64]]
    held_out: list[NDArray[np.int64]]

    def text(self, tokens: Sequence[int]) -> str:
        """Return tokens as words; a negative token is padding."""
        return " ".join(self.words[token] for token in tokens if token >= 0)

    def ids(self, words: str) -> list[int]:
        """Return the tokens of words separated by spaces."""
        return encode([words.split()], self.words)[0].tolist()


def word_lab(lines: Sequence[Sequence[str]], size: int = 1500, held_out: int = 1000, seed: int = 0) -> WordLab:
    """Return the sentences that need only the ``size`` most frequent words, split at random.

    The vocabulary is what the training part uses; a held-out sentence with another word is dropped.
    """
    counts = Counter(word for line in lines for word in line)
    common = {word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:size]}
    kept = [line for line in lines if common.issuperset(line)]
    if held_out >= len(kept):
        raise ValueError(f"cannot hold out {held_out} of {len(kept)} sentences")
    order = np.random.default_rng(seed).permutation(len(kept))
    train = [kept[at] for at in order[held_out:]]
    words = sorted({word for line in train for word in line})
    known = set(words)
    rest = [kept[at] for at in order[:held_out] if known.issuperset(kept[at])]
    return WordLab(words, encode(train, words), encode(rest, words))


def letters(lines: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Return one stream of letters: a..z are 0..25, whatever else separates words is one space, 26."""
    text = re.sub("[^a-z]+", " ", " ".join(" ".join(line) for line in lines)).strip()
    codes = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
    return np.where(codes == ord(" "), 26, codes - ord("a"))


def spell(symbols: Sequence[int]) -> str:
    """Return symbols of :func:`letters` as text.

    >>> spell([7, 8, 26, 19])
    'hi t'
    """
    return "".join(LETTERS[symbol] for symbol in symbols)
