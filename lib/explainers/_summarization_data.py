"""Texts with summaries: the CAIL 2020 format, and docstrings; used through :mod:`explainers.summarization`."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ._corpus_fields import Doc
from ._corpus_tokens import tokenize

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(])|\n+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


# --- CAIL 2020, judicial summarisation ----------------------------------------------------------------------


@dataclass(frozen=True)
class Judgment:
    """One line of a CAIL 2020 file ("sfzy").

    Attributes
    ----------
    id : str
        The sample's, or the number of its line where there is none.
    sentences : list of str
    labels : list of int, or None
        The organisers' 0 or 1 for each sentence.
    summary : str or None
    """

    id: str
    sentences: list[str]
    labels: list[int] | None
    summary: str | None

    @property
    def text(self) -> str:
        """The document: its sentences, a line feed between them."""
        return "\n".join(self.sentences)


def read_cail(path: str | os.PathLike[str]) -> list[Judgment]:
    """Read a file of the CAIL 2020 track on judicial summaries, one JSON object a line (chapter summarization).

    Parameters
    ----------
    path : path
        UTF-8; each line has ``text``, a list of ``{"sentence": str, "label": 0 or 1}``, and ``summary``. Test
        files lack labels and summaries. Empty lines are skipped.

    Returns
    -------
    list of Judgment

    Raises
    ------
    ValueError
        If a line is malformed; the message names file and line.
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    judgments = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    judgments.append(_judgment(json.loads(line), number))
                except (ValueError, TypeError) as error:  # a JSON error is a ValueError
                    raise ValueError(f"{path}, line {number}: {error}") from None
    return judgments


def _judgment(record: Any, number: int) -> Judgment:
    if not isinstance(record, Mapping):
        raise ValueError(f"want a JSON object, got {type(record).__name__}")
    if not isinstance(record.get("text"), list):
        raise ValueError("'text' is missing, or no list")
    parts = record["text"]
    for part in parts:
        if not isinstance(part, Mapping) or not isinstance(part.get("sentence"), str):
            raise ValueError("an entry of 'text' has no string 'sentence'")
    summary = record.get("summary")
    if summary is not None and not isinstance(summary, str):
        raise ValueError(f"'summary' must be a string, got {type(summary).__name__}")
    return Judgment(str(record.get("id", number)), [part["sentence"] for part in parts], _labels(parts), summary)


def _labels(parts: list[Mapping[str, Any]]) -> list[int] | None:
    labels = [part.get("label") for part in parts]
    if all(label is None for label in labels):
        return None
    if any(label not in (0, 1) for label in labels):
        raise ValueError("'label' must be 0 or 1, for all sentences or for none")
    return [int(label) for label in labels]


# --- Docstrings ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A docstring as a task: write the summary line, given the rest.

    Attributes
    ----------
    name : str
        Of the documented object, in full.
    summary : str
        The one-line summary.
    sentences : list of str
        Prose: the extended summary and the notes, in order, without the summary line.
    parameters : list of str
        One line for each parameter and each returned value.
    """

    name: str
    summary: str
    sentences: list[str]
    parameters: list[str]

    @property
    def module(self) -> str:
        """The defining module or class, by which data are split: neighbours resemble one another."""
        return ".".join(self.name.split(".")[:3])

    @property
    def title(self) -> str:
        """The words of the object's own name.

        >>> Pair("numpy.fft.RealFFT.fft_freq", "", [], []).title
        'fft freq'
        """
        return " ".join(_CAMEL.findall(self.name.rpartition(".")[2])).lower()

    @property
    def source(self) -> str:
        """The name's words, the prose, then the parameters."""
        return " . ".join([self.title, *self.sentences, *self.parameters])


def docstring_pairs(docs: Iterable[Doc], *, min_words: int = 4) -> list[Pair]:
    """Return the documents that have a summary to write and something to write it from (chapter summarization).

    Parameters
    ----------
    docs : iterable of Doc
        From `corpus.load_docstrings`.
    min_words : int
        Of the summary.

    Returns
    -------
    list of Pair
        In the order of the documents; the first of those with equal summary and source.
    """
    pairs, seen = [], set()
    for doc in docs:
        summary = doc.summary.strip()
        prose = _prose(doc)
        lines = [line for title in ("Parameters", "Returns") for line in doc.sections.get(title, "").split("\n")]
        pair = Pair(doc.name, summary, [s for s in prose if s != summary], [line for line in lines if line])
        key = summary, tuple(pair.sentences), tuple(pair.parameters)
        if len(tokenize(summary)) >= min_words and (pair.sentences or pair.parameters) and key not in seen:
            seen.add(key)
            pairs.append(pair)
    return pairs


def _prose(doc: Doc) -> list[str]:
    text = "\n".join([doc.body, doc.sections.get("Notes", "")])
    return [sentence for part in _SENTENCE_END.split(text) if len(tokenize(sentence := part.strip())) >= 3]


def words(text: str) -> list[str]:
    """Return a text's words for the metric: lower case, numbers as they are, no punctuation."""
    return tokenize(text, numbers=None)


def split_by_module(pairs: Sequence[Pair], seed: int, test_share: float = 0.25) -> tuple[list[Pair], list[Pair]]:
    """Return training and test pairs, both shuffled; a module is whole on one side.

    Parameters
    ----------
    pairs : sequence of Pair
    seed : int
        Chooses the modules and the order.
    test_share : float
        About how much of the pairs to test on, in (0, 1).

    Raises
    ------
    ValueError
        If `test_share` is out of range.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must lie in (0, 1), got {test_share}")
    rng = np.random.default_rng(seed)
    modules = sorted({pair.module for pair in pairs})
    sizes = Counter(pair.module for pair in pairs)
    held_out, size = set(), 0
    for at in rng.permutation(len(modules)):
        if size < test_share * len(pairs):
            held_out.add(modules[at])
            size += sizes[modules[at]]
    shuffled = [pairs[at] for at in rng.permutation(len(pairs))]
    train = [pair for pair in shuffled if pair.module not in held_out]
    return train, [pair for pair in shuffled if pair.module in held_out]


# --- Subwords -----------------------------------------------------------------------------------------------


def train_bpe(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return a byte-pair encoder, lower case, with single digits and signs; ids 0, 1, 2 pad, separate and end.

    Parameters
    ----------
    texts : iterable of str
    vocabulary : int
        Number of tokens.

    Examples
    --------
    >>> bpe = train_bpe(["low lower lowest", "low low"], 30)
    >>> bpe.decode(bpe.encode("Low lower").ids)
    'low lower'
    """
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    bpe.decoder = decoders.Metaspace()
    special = ["<pad>", "<sep>", "<end>", "<unk>"]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False, limit_alphabet=120),
    )
    return bpe


@dataclass(frozen=True)
class Encoded:
    """The tokens of a text."""

    ids: list[int]


class SpecialWords:
    """A byte-pair encoder with additional words, each of which is one token; used like the encoder itself.

    Parameters
    ----------
    bpe : Tokenizer
    words : sequence of str
        Their ids follow the encoder's. A word is found where the encoder's pre-tokenizer cuts out the same pieces.

    Attributes
    ----------
    pieces : list of list of int
        What the encoder makes of each word.

    Examples
    --------
    >>> bpe = train_bpe(["low lower lowest", "low low"], 30)
    >>> larger = SpecialWords(bpe, ["lowest"])
    >>> [ids] = larger.encode_batch(["low lowest"])
    >>> ids.ids[-1] == bpe.get_vocab_size(), larger.decode(ids.ids)
    (True, 'low lowest')
    """

    def __init__(self, bpe: Tokenizer, words: Sequence[str]):
        self._bpe = bpe
        self.pieces = [encoding.ids for encoding in bpe.encode_batch(list(words))]
        self._ids = {tuple(ids): bpe.get_vocab_size() + n for n, ids in enumerate(self.pieces)}

    def get_vocab_size(self) -> int:
        """Return the number of tokens, the words included."""
        return self._bpe.get_vocab_size() + len(self.pieces)

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        """Return the tokens of each text."""
        return [Encoded(self._join(encoding)) for encoding in self._bpe.encode_batch(list(texts))]

    def _join(self, encoding: Encoding) -> list[int]:
        ids: list[int] = []
        for _, group in groupby(zip(encoding.word_ids, encoding.ids), key=itemgetter(0)):
            pieces = [token for _, token in group]
            word = self._ids.get(tuple(pieces))
            ids += pieces if word is None else [word]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some tokens."""
        size = self._bpe.get_vocab_size()
        return self._bpe.decode([piece for i in ids for piece in ([i] if i < size else self.pieces[i - size])])


def split_words(bpe: Tokenizer, texts: Iterable[str], count: int) -> list[str]:
    """Return the most frequent words of the texts that the encoder cuts into several tokens.

    >>> split_words(train_bpe(["low lower lowest", "low low"], 30), ["slow lower low", "slow slow"], 1)
    ['slow']
    """
    counts = Counter(word for text in texts for word in tokenize(text) if word.isalpha())
    ranked = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    lengths = [len(encoding.ids) for encoding in bpe.encode_batch(ranked)]
    return [word for word, length in zip(ranked, lengths) if length > 1][:count]
