"""Six kinds of text matching in one network, and the data and scores to compare ways of telling it which one is asked.

The tasks are those of the Sohu text-matching contest of 2021: two standards (A loose, "same topic"; B strict, "same
thing") for three pairings of lengths. A :class:`Matcher` learns them through a task vector that moves the gain and the
shift of every layer norm, the idea of https://kexue.fm/archives/8337, or in one of the other ways it is compared with.
Pairs come from the docstring corpus (:func:`docstring_records`, :func:`build_pairs`) or from the contest's own files
(:func:`read_sohu`). Labels of equations refer to the chapter *matching*.

Shapes: ``B`` pairs in a batch, ``T`` tokens, ``D`` width, ``C`` size of a task vector, ``K`` tasks.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import json
import math
import os
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import HTML
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import LongTensor, Tensor, nn
from tqdm import tqdm

from explainers.corpus import Doc, load_docstrings
from explainers.transformer import ConditionalLayerNorm, TokenTransformer, padding_mask

LENGTHS = ("short-short", "short-long", "long-long")
STANDARDS = ("A", "B")
TASKS = tuple(f"{length} {standard}" for length in LENGTHS for standard in STANDARDS)
"""Task ``k`` is ``2 * length + standard``."""


class Pair(NamedTuple):
    """Two texts, the task that asks about them (0..5), and the answer where it is known."""

    source: str
    target: str
    task: int
    label: int | None = None
    id: str | None = None


# --- The contest's files --------------------------------------------------------------------------------------

SOHU_FOLDERS = ("短短匹配A类", "短短匹配B类", "短长匹配A类", "短长匹配B类", "长长匹配A类", "长长匹配B类")
SOHU_FILES = {"train": "train.txt", "valid": "valid.txt", "test": "test_with_id.txt"}


def read_pairs(path: str | os.PathLike[str], task: int, *, skip_malformed: bool = False) -> list[Pair]:
    """Read the pairs of one task from JSON lines: one object a line, in UTF-8.

    Each object holds the texts ``source`` and ``target``, and either the label of the task's standard (``labelA`` or
    ``labelB``; ``"0"``, ``"1"`` or the integers) or, in test files, the text ``id``. Other keys and blank lines are
    ignored.

    Parameters
    ----------
    path
        The file.
    task
        0..5, an index into :data:`TASKS`; decides which label is wanted.
    skip_malformed
        Leave malformed lines out, with a warning that numbers them, instead of refusing the file.

    Raises
    ------
    ValueError
        If the task does not exist or a line is malformed; the message names file, line and field.
    FileNotFoundError
        If there is no such file.
    """
    _check_task(task)
    pairs, faults = [], []
    for number, line in enumerate(Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            try:
                pairs.append(_parse_pair(line, task))
            except ValueError as error:
                faults.append((number, str(error)))
    if faults:
        number, reason = faults[0]
        others = f"; also malformed: lines {', '.join(str(n) for n, _ in faults[1:])}" if faults[1:] else ""
        message = f"{path}, line {number}: {reason}{others}"
        if not skip_malformed:
            raise ValueError(message)
        warnings.warn(f"{len(faults)} of {len(pairs) + len(faults)} lines skipped: {message}", stacklevel=2)
    return pairs


def _parse_pair(line: bytes, task: int) -> Pair:
    """Return the pair that a line holds, or raise ``ValueError`` with the field and the reason."""
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object is wanted, got {type(record).__name__}")
    for field in ("source", "target"):
        if not isinstance(record.get(field), str):
            raise ValueError(f"field {field!r} must be text, got {record.get(field, 'nothing')!r}")
    label, identity = _parse_label(record, STANDARDS[task % 2])
    return Pair(record["source"], record["target"], task, label, identity)


def _parse_label(record: dict[str, Any], standard: str) -> tuple[int | None, str | None]:
    field, other = f"label{standard}", f"label{'B' if standard == 'A' else 'A'}"
    identity = record.get("id")
    if field in record:
        value = record[field]
        if isinstance(value, bool) or value not in ("0", "1", 0, 1) or isinstance(value, float):
            raise ValueError(f"field {field!r} must be 0 or 1, got {value!r}")
        return int(value), None if identity is None else str(identity)
    if other in record:
        raise ValueError(f"field {field!r} is wanted, got {other!r}: the file belongs to the other standard")
    if not isinstance(identity, str):
        raise ValueError(f"field {field!r} (or in test files 'id', a text) is missing")
    return None, identity


def read_sohu(
    root: str | os.PathLike[str], split: str = "train", *, skip_malformed: bool = False
) -> list[Pair]:  # fmt: skip
    """Read one part of the contest's data, all six tasks, from the folders in which it was handed out.

    Parameters
    ----------
    root
        Holds the folders :data:`SOHU_FOLDERS`, each with ``train.txt``, ``valid.txt`` and ``test_with_id.txt``.
    split
        ``"train"``, ``"valid"`` or ``"test"``.
    skip_malformed
        As in :func:`read_pairs`.

    Raises
    ------
    ValueError
        If the split is unknown, a line is malformed, or a pair of the parts ``train`` and ``valid`` has no label.
    FileNotFoundError
        If a file is missing; the message names its path.
    """
    if split not in SOHU_FILES:
        raise ValueError(f"split must be one of {sorted(SOHU_FILES)}, got {split!r}")
    pairs = []
    for task, folder in enumerate(SOHU_FOLDERS):
        path = Path(root, folder, SOHU_FILES[split])
        if not path.is_file():
            raise FileNotFoundError(f"the part {split!r} of task {TASKS[task]!r} should be at {path}")
        found = read_pairs(path, task, skip_malformed=skip_malformed)
        if split != "test" and any(pair.label is None for pair in found):
            raise ValueError(f"{path}: a pair has an id but no label, as only test files do")
        pairs += found
    return pairs


def _check_task(task: int) -> None:
    if isinstance(task, bool) or not isinstance(task, (int, np.integer)) or not 0 <= task < len(TASKS):
        raise ValueError(f"task must be an integer in 0..{len(TASKS) - 1}, got {task!r}")


# --- Records of the docstring corpus --------------------------------------------------------------------------


class Record(NamedTuple):
    """What is said about one documented object; the topic's first component is its package."""

    topic: str
    name: str
    sentences: tuple[str, ...]


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z(\[\"'])|\n+")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_UNUSED_SECTIONS = ("Examples", "References", "See Also")


def docstring_records(corpus: Iterable[Doc] | None = None) -> list[Record]:
    """Return one record per documented object whose topic lies below a package.

    Sentences have 5 words or more, 60 % of their characters are letters, the object's own name is hidden
    (:func:`hide_name`), and each belongs to the first object that uses it: boilerplate and inherited texts would give
    matches away.

    Parameters
    ----------
    corpus
        Documents; by default the shared corpus.
    """
    seen: set[str] = set()
    records = []
    for doc in load_docstrings() if corpus is None else corpus:
        if "." in doc.topic:
            sentences = []
            for sentence in _sentences(doc):
                if (key := sentence.lower()) not in seen:
                    seen.add(key)
                    sentences.append(sentence)
            if sentences:
                records.append(Record(doc.topic, doc.name, tuple(sentences)))
    return records


def _sentences(doc: Doc) -> Iterator[str]:
    parts = (text for title, text in doc.sections.items() if title not in _UNUSED_SECTIONS)
    text = hide_name("\n".join((doc.summary, doc.body, *parts)), doc.name)
    for sentence in _SENTENCE_END.split(text):
        letters = sum(map(str.isalpha, sentence))
        if len(sentence.split()) >= 5 and letters >= 0.6 * len(sentence.replace(" ", "")):
            yield " ".join(sentence.split())


def hide_name(text: str, name: str) -> str:
    """Replace by "it" every identifier with a component that equals the last one of ``name``; case does not matter.

    Names of fewer than 3 letters stay: they are words of their own too often.

    >>> hide_name("Call numpy.fft.fft or FFT, not fft2.", "numpy.fft.fft")
    'Call it or it, not fft2.'
    """
    last = name.rpartition(".")[2].lower()
    if len(last) < 3 or last not in text.lower():
        return text
    return _IDENTIFIER.sub(lambda m: "it" if last in m.group().lower().split(".") else m.group(), text)


def split_by_topic(records: Iterable[Record], fraction: float = 0.25) -> tuple[list[Record], list[Record]]:
    """Return records to train on and records to test on, which share no topic.

    A hash of the topic's name decides, so that a topic that comes or goes moves no other.

    Parameters
    ----------
    records
        Of any topics.
    fraction
        Expected share of the topics on the test side, in (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
    train, test = [], []
    for record in records:
        digest = hashlib.blake2b(record.topic.encode(), digest_size=8).digest()
        (test if int.from_bytes(digest, "big") < fraction * 2**64 else train).append(record)
    return train, test


# --- Pairs ----------------------------------------------------------------------------------------------------

_WORDS = {"short": (10, 40), "long": (30, 60)}
_TOPIC_LIMIT, _TOPIC_MINIMUM = 30, 4


def two_texts(sentences: Sequence[str], length: int) -> tuple[str, str] | None:
    """Return two disjoint texts of one object: its leading sentences, and what follows them.

    A short text has 10 to 40 words, a long one 30 to 60; each takes as few sentences as reach the lower bound, and is
    cut at the upper one.

    Parameters
    ----------
    sentences
        In order.
    length
        0 short and short, 1 short and long, 2 long and long.

    Returns
    -------
    (str, str), or None where the object says too little

    >>> sentences = ["Of these, one has five.", "The next one also has six.", "And this is the text that comes second."]
    >>> two_texts([*sentences, "It ends here."], 0)
    ('Of these, one has five. The next one also has six.', 'And this is the text that comes second. It ends here.')
    """
    if length not in (0, 1, 2):
        raise ValueError(f"length must be 0, 1 or 2, got {length!r}")
    rest = iter(sentences)
    first, second = (_take(rest, *_WORDS[word]) for word in LENGTHS[length].split("-"))
    return None if first is None or second is None else (first, second)


def _take(sentences: Iterator[str], low: int, high: int) -> str | None:
    words: list[str] = []
    while len(words) < low:
        sentence = next(sentences, None)
        if sentence is None:
            return None
        words += sentence.split()
    return " ".join(words[:high])


def build_pairs(
    records: Sequence[Record], per_task: int, *, seed: int = 0, positive: float = 0.5, same_object: float = 0.2,
    near_negatives: float = 0.0,
) -> list[Pair]:  # fmt: skip
    """Return ``6 * per_task`` labelled pairs, task by task.

    Under A a match is "same topic" (another object of it; in a share ``same_object`` of the matches the same one) and
    no match is another package. Under B a match is "same object" and no match is another object of the topic. The first
    text of a pair is always some object's beginning, the second some object's continuation.

    Topics are drawn in proportion to their objects, 30 at most; those with fewer than 4 objects that say enough are
    left out. The negatives of A keep the packages' shares on either side (:func:`_apart`), or one text alone would
    tell the label.

    Parameters
    ----------
    records
        Of several packages.
    per_task
        Pairs of each task, 2 or more; ``round(per_task * positive)`` of them match.
    seed
        The same records and seed give the same pairs.
    positive
        Share of matches, in (0, 1).
    same_object
        Share of same-object pairs among the matches of A, in [0, 1].
    near_negatives
        Share of the negatives of A that come from another topic of the same package, in [0, 1].

    Returns
    -------
    list of Pair
        ``id`` names the two objects, ``"first | second"``; :func:`kind_of` reads it.

    Raises
    ------
    ValueError
        If ``per_task`` or a share is out of range, or the records hold no two packages.
    """
    if per_task < 2:
        raise ValueError(f"per_task must be at least 2, got {per_task}")
    for name, share, open_ in (
        ("positive", positive, True),
        ("same_object", same_object, False),
        ("near_negatives", near_negatives, False),
    ):
        if not 0 <= share <= 1 or (open_ and share in (0, 1)):
            raise ValueError(f"{name} must be a share {'inside (0, 1)' if open_ else 'in [0, 1]'}, got {share}")
    rng = np.random.default_rng(seed)
    pairs = []
    for length in range(len(LENGTHS)):
        pool = _Pool(records, length)
        matches = round(per_task * positive)
        same = round(matches * same_object)
        near = round((per_task - matches) * near_negatives)
        loose = {"same object": same, "same topic": matches - same}
        loose |= {"same package": near, "other package": per_task - matches - near}
        strict = {"same object": matches, "same topic": per_task - matches}
        pairs += pool.draw(loose, 2 * length, rng) + pool.draw(strict, 2 * length + 1, rng)
    return pairs


class _Pool:
    """The objects that say enough for one pairing of lengths, and how pairs are drawn from them."""

    def __init__(self, records: Sequence[Record], length: int):
        topics: dict[str, list[tuple[str, tuple[str, str]]]] = defaultdict(list)
        for record in records:
            if texts := two_texts(record.sentences, length):
                topics[record.topic].append((record.name, texts))
        self.topics = {topic: objects for topic, objects in topics.items() if len(objects) >= _TOPIC_MINIMUM}
        self.names = list(self.topics)
        packages = [name.partition(".")[0] for name in self.names]
        if len(set(packages)) < 2:
            found = ", ".join(sorted(set(packages))) or "none"
            raise ValueError(
                f"pairs of the kind {LENGTHS[length]!r} need topics of two packages with {_TOPIC_MINIMUM} objects "
                f"that say enough, got packages: {found}"
            )
        weights = np.array([min(len(objects), _TOPIC_LIMIT) for objects in self.topics.values()], dtype=float)
        self.weights = weights / weights.sum()
        same = np.equal.outer(packages, packages)
        self.apart = _apart(self.weights, ~same)
        self.near = same & ~np.eye(len(packages), dtype=bool)

    def draw(self, counts: dict[str, int], task: int, rng: np.random.Generator) -> list[Pair]:
        """Return pairs of each kind in the stated numbers, in random order and without repeats."""
        pairs: dict[str, Pair] = {}
        total = 0
        for kind, count in counts.items():
            total += count
            for _ in range(100 * count + 100):
                if len(pairs) == total:
                    break
                pair = self._pair(kind, task, rng)
                pairs.setdefault(pair.id, pair)
            if len(pairs) < total:
                raise ValueError(f"too few different pairs of the kind {kind!r} for task {TASKS[task]!r}: {count}")
        found = list(pairs.values())
        return [found[i] for i in rng.permutation(len(found))]

    def _pair(self, kind: str, task: int, rng: np.random.Generator) -> Pair:
        topics = len(self.names)
        if kind in ("same object", "same topic"):
            one = other = rng.choice(topics, p=self.weights)
        elif kind == "same package":
            rows = self.near.any(1) * self.weights
            if not rows.any():
                raise ValueError("near_negatives need a package with two topics")
            one = rng.choice(topics, p=rows / rows.sum())
            row = self.near[one] * self.weights
            other = rng.choice(topics, p=row / row.sum())
        else:
            one, other = divmod(rng.choice(topics * topics, p=self.apart.ravel()), topics)
        first, second = self.topics[self.names[one]], self.topics[self.names[other]]
        i = rng.integers(len(first))
        j = i if kind == "same object" else rng.integers(len(second))
        if kind == "same topic" and i == j:
            j = (j + 1 + rng.integers(len(second) - 1)) % len(second)
        label = int(kind == "same object" or (kind == "same topic" and task % 2 == 0))
        return Pair(first[i][1][0], second[j][1][1], task, label, f"{first[i][0]} | {second[j][0]}")


def _apart(weights: NDArray, allowed: NDArray, rounds: int = 200) -> NDArray:
    """Return a symmetric joint distribution of two topics that are ``allowed`` together, both with shares ``weights``.

    ``u_s u_t`` on the allowed cells, ``u`` found by Sinkhorn's scaling. Where a package holds more than half of the
    weight there is none, and the result is only the nearest that scaling finds.
    """
    u = np.sqrt(weights)
    for _ in range(rounds):
        u = np.sqrt(u * weights / np.maximum(allowed @ u, 1e-300))
    joint = allowed * np.outer(u, u)
    return joint / joint.sum()


KINDS = ("same object", "same topic", "other package")


def kind_of(pair: Pair) -> str:
    """Return which of :data:`KINDS` a pair of :func:`build_pairs` is.

    >>> kind_of(Pair("a", "b", task=0, label=1, id="numpy.fft.fft | numpy.fft.ifft"))
    'same topic'
    """
    first, _, second = (pair.id or "").partition(" | ")
    if not second:
        raise ValueError(f"kind_of takes a pair of build_pairs, whose id names two objects, got id {pair.id!r}")
    if first == second:
        return KINDS[0]
    return KINDS[2] if pair.task % 2 == 0 and pair.label == 0 else KINDS[1]


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> HTML:
    """Return a table of short texts, aligned to the left; the first cell of a row is its name."""
    style = "text-align:left;vertical-align:top;white-space:normal"
    body = ""
    for name, *cells in rows:
        texts = "".join(f"<td style='{style}'>{escape(cell)}</td>" for cell in cells)
        body += f"<tr><th scope='row' style='{style}'>{escape(name)}</th>{texts}</tr>"
    head = "".join(f"<th scope='col' style='{style}'>{escape(title)}</th>" for title in header)
    return HTML(f"<table class='numbers'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


# --- Words and what a count of them can say --------------------------------------------------------------------

_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def pieces(text: str) -> list[str]:
    """Return the lower-case word pieces of a text; identifiers fall apart at underscores, digits and capitals.

    >>> pieces("Uses n_jobs and LinearSVC2.")
    ['uses', 'n', 'jobs', 'and', 'linear', 'svc', '2']
    """
    return [piece.lower() for piece in _PIECE.findall(text)]


class Lexicon:
    """Word weights, topic dimensions and token ids, all learned from training texts only.

    Parameters
    ----------
    texts
        What to count.
    size
        Largest vocabulary: the most frequent word pieces, of equally frequent ones the first in the alphabet.
    components
        Dimensions of the latent semantic analysis (LSA).
    seed
        Of the truncated SVD.
    """

    def __init__(self, texts: Sequence[str], *, size: int = 6000, components: int = 128, seed: int = 0):
        # Of equally frequent pieces, max_features keeps those that NumPy's sort happens to put first on this processor.
        frequency = Counter(piece for text in texts for piece in pieces(text))
        kept = sorted(frequency, key=lambda piece: (-frequency[piece], piece))[:size]
        self.vectorizer = TfidfVectorizer(
            vocabulary=sorted(kept), tokenizer=pieces, token_pattern=None, lowercase=False, sublinear_tf=True
        )
        counts = self.vectorizer.fit_transform(texts)
        self.lsa = TruncatedSVD(components, n_iter=3, random_state=seed).fit(counts)

    def __len__(self) -> int:
        """Number of token ids: the words, and one for a text without any known word."""
        return len(self.vectorizer.vocabulary_) + 1

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Return the known word pieces of each text as ids, padded with 0."""
        index, unknown = self.vectorizer.vocabulary_, len(self) - 1
        rows = [[index[piece] for piece in pieces(text) if piece in index] or [unknown] for text in texts]
        return pad_tokens(rows)

    def cosines(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """Return two similarities of the texts of each pair, shape (pairs, 2): cosine of TF-IDF, cosine of LSA."""
        one, two = (self.vectorizer.transform([pair[side] for pair in pairs]) for side in (0, 1))
        words = np.asarray(one.multiply(two).sum(1)).ravel()  # rows have length 1
        u, v = self.lsa.transform(one), self.lsa.transform(two)
        norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
        return np.column_stack([words, (u * v).sum(1) / np.maximum(norms, 1e-12)])

    def embeddings(self, topical: int = 32, lexical: int = 64, *, seed: int = 0) -> Tensor:
        """Return token vectors (len(self), topical + lexical) that need no training.

        The first dimensions are those of the LSA: near for words of one field. The others are random and scaled by the
        inverse document frequency: near only for the same word (eq-matching-lexical-metric).
        """
        idf = self.vectorizer.idf_ / self.vectorizer.idf_.mean()
        rng = np.random.default_rng(seed)
        topic = self.lsa.components_[:topical].T * math.sqrt(len(idf))
        word = rng.standard_normal((len(idf), lexical)) * idf[:, None]
        table = np.vstack([np.hstack([topic, word]), rng.standard_normal((1, topical + lexical))])
        return torch.tensor(table, dtype=torch.float32)


# --- Scores ---------------------------------------------------------------------------------------------------


class Score(NamedTuple):
    """F1 of the matches under each standard, pooled over the lengths, and their mean: the contest's score."""

    a: float
    b: float
    mean: float


def competition_score(tasks: ArrayLike, labels: ArrayLike, predictions: ArrayLike) -> Score:
    """Return the contest's score (eq-matching-f1).

    Parameters
    ----------
    tasks
        Integers in 0..5, shape (pairs,).
    labels, predictions
        Zeros and ones, shape (pairs,).

    Raises
    ------
    ValueError
        If the arrays are not of one length, empty, or hold anything else, such as probabilities.

    >>> competition_score([0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0])
    Score(a=0.6666666666666666, b=0.0, mean=0.3333333333333333)
    """
    k = _integers("tasks", tasks, len(TASKS) - 1)
    y, p = _integers("labels", labels, 1), _integers("predictions", predictions, 1)
    if not len(k) == len(y) == len(p) or len(k) == 0:
        raise ValueError(f"tasks, labels and predictions need one positive length, got {len(k)}, {len(y)}, {len(p)}")
    cells = np.bincount((k & 1) * 4 + y * 2 + p, minlength=8).reshape(2, 2, 2)  # (standard, label, prediction)
    a, b = (float(_f1(cell[1, 1], cell[:, 1].sum(), cell[1].sum())) for cell in cells)
    return Score(a, b, (a + b) / 2)


def _integers(name: str, values: ArrayLike, largest: int) -> NDArray[np.integer]:
    array = np.asarray(values)
    if array.dtype == bool:
        array = array.astype(np.int8)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name} must be a row of integers, got shape {array.shape} of {array.dtype}")
    if array.size and (array.min() < 0 or array.max() > largest):
        raise ValueError(f"{name} must lie in 0..{largest}, got values from {array.min()} to {array.max()}")
    return array.astype(np.int64, copy=False)


def _f1(hits: Any, predicted: Any, true: Any) -> Any:
    """F1 from counts; 0 where nothing is predicted and nothing is true."""
    return 2 * hits / np.maximum(predicted + true, 1)


def best_threshold(labels: ArrayLike, probabilities: ArrayLike) -> tuple[float, float]:
    """Return the threshold ``t`` for which "p >= t" has the largest F1, and that F1 (eq-matching-threshold).

    Parameters
    ----------
    labels
        Zeros and ones, shape (pairs,), at least one of them 1.
    probabilities
        Numbers, shape (pairs,).

    Returns
    -------
    (float, float)
        ``t`` is one of the probabilities, the largest of several equally good ones.

    Raises
    ------
    ValueError
        If the arrays are empty, differ in length, are not finite, or there is no match among the labels.

    >>> best_threshold([0, 1, 0, 1], [0.1, 0.3, 0.6, 0.8])
    (0.3, 0.8)
    """
    y, p = _integers("labels", labels, 1), np.asarray(probabilities, dtype=float)
    if p.shape != y.shape or not np.isfinite(p).all():
        raise ValueError(f"probabilities must be {len(y)} finite numbers, got shape {p.shape}")
    if not y.any():
        raise ValueError(f"best_threshold needs at least one match among the labels, got none in {len(y)}")
    order = np.argsort(p)[::-1]
    p = p[order]
    hits = np.cumsum(y[order])
    f1 = _f1(hits, np.arange(1, len(p) + 1), hits[-1])
    f1[:-1][p[:-1] == p[1:]] = -1  # a threshold takes all equal values or none
    best = int(np.argmax(f1))
    return float(p[best]), float(f1[best])


# --- Batches --------------------------------------------------------------------------------------------------


def bucket_batches(lengths: ArrayLike, batch_size: int, *, seed: int = 0, spread: int = 50) -> list[NDArray[np.int64]]:
    """Return batches of examples of similar length, each example once: the article's exercise for its readers.

    Examples are shuffled, sorted inside pools of ``spread`` batches, cut, and the batches shuffled; so batches are
    random from epoch to epoch (by ``seed``) and nearly free of padding.

    Parameters
    ----------
    lengths
        Integers, shape (examples,).
    batch_size
        Examples per batch; the last pool may leave a smaller one.
    spread
        Batches per pool; 1 gives plain random batches.

    Raises
    ------
    ValueError
        If there is no example, or ``batch_size`` or ``spread`` is not positive.
    """
    sizes = np.asarray(lengths)
    if sizes.ndim != 1 or sizes.size == 0:
        raise ValueError(f"lengths must be a row of at least one number, got shape {sizes.shape}")
    if batch_size < 1 or spread < 1:
        raise ValueError(f"batch_size and spread must be positive, got {batch_size} and {spread}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(sizes))
    pool = batch_size * spread
    batches = []
    for start in range(0, len(order), pool):
        chunk = order[start : start + pool]
        if spread > 1:
            chunk = chunk[np.argsort(sizes[chunk], kind="stable")]
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def padding_fraction(lengths: ArrayLike, batches: Iterable[ArrayLike]) -> float:
    """Return the share of padding among the tokens that batches hold (eq-matching-padding).

    >>> round(padding_fraction([2, 4, 6], [[0, 1], [2]]), 4)
    0.1429
    """
    sizes = np.asarray(lengths)
    held = real = 0
    for batch in batches:
        inside = sizes[np.asarray(batch)]
        held += len(inside) * int(inside.max())
        real += int(inside.sum())
    if held == 0:
        raise ValueError("padding_fraction needs a batch with at least one token")
    return 1 - real / held


# --- The network ----------------------------------------------------------------------------------------------

CONDITIONINGS = (None, "token", "norm", "heads")
INTERACTIONS = ("late", "joint")


class Tokens(NamedTuple):
    """Texts as ids (B, T) with their lengths (B,); what stands behind a length does not matter."""

    ids: LongTensor
    lengths: LongTensor


def pad_tokens(rows: Sequence[Sequence[int]]) -> Tokens:
    """Return rows of ids as one rectangle, padded with 0.

    >>> pad_tokens([[5, 6], [7]])
    Tokens(ids=tensor([[5, 6],
            [7, 0]]), lengths=tensor([2, 1]))
    """
    lengths = torch.tensor([len(row) for row in rows])
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True)
    return Tokens(ids, lengths)


def late_interaction(hidden: Tensor, other: Tensor, mask: Tensor, other_mask: Tensor) -> Tensor:
    """Return how well each text's tokens are met in the other text, shape (B,) (eq-matching-maxsim).

    The mean over the real tokens of the first text of the largest cosine with a real token of the second.

    Parameters
    ----------
    hidden, other
        Token vectors of length 1, shapes (B, T, D) and (B, S, D).
    mask, other_mask
        True where a token is real, shapes (B, T) and (B, S).
    """
    cosines = hidden @ other.transpose(1, 2)
    best = cosines.masked_fill(~other_mask[:, None], -torch.inf).amax(-1)
    return (best * mask).sum(-1) / mask.sum(-1)


class Matcher(nn.Module):
    """Says how likely two texts match under a task; one of four ways tells it the task.

    Parameters
    ----------
    vocabulary_size : int
        Token ids are 0..vocabulary_size - 1.
    layers, width, heads
        Of the encoder, a :class:`~explainers.transformer.TokenTransformer`.
    tasks : int
        Number of tasks ``K``.
    conditioning : {None, "token", "norm", "heads"}
        Nothing; a task vector added to every input embedding; a task vector that moves every layer norm
        (eq-matching-conditional-norm), zero-initialised, so that at the start the task changes nothing; one output unit
        per task.
    interaction : {"late", "joint"}
        ``"late"`` encodes the texts one by one and compares averages and single tokens (eq-matching-maxsim);
        ``"joint"`` encodes source, separator and target as one sequence with two segments, as the article does.
    condition_size : int
        ``C``, size of the task vectors of ``"norm"``.
    embeddings : Tensor, shape (vocabulary_size, width), optional
        Token vectors that stay as they are.
    generator : torch.Generator, optional
        Draws the weights.
    **options
        Of :class:`~explainers.transformer.Transformer`.

    Raises
    ------
    ValueError
        If a word is not one of the allowed, ``tasks`` or a size is not positive, or the embeddings have another shape.

    Examples
    --------
    >>> model = Matcher(100, width=32)
    >>> texts = pad_tokens([[5, 6, 7], [8]])
    >>> model(texts, texts, torch.tensor([0, 3])).shape
    torch.Size([2])
    """

    def __init__(
        self, vocabulary_size: int, layers: int = 1, width: int = 96, heads: int = 4, *, tasks: int = 6,
        conditioning: str | None = "norm", interaction: str = "late", condition_size: int = 16,
        embeddings: Tensor | None = None, generator: torch.Generator | None = None, **options: Any,
    ):  # fmt: skip
        super().__init__()
        for name, value, words in (
            ("conditioning", conditioning, CONDITIONINGS),
            ("interaction", interaction, INTERACTIONS),
        ):
            if value not in words:
                raise ValueError(f"{name} must be one of {words}, got {value!r}")
        if not isinstance(tasks, int) or tasks < 1:
            raise ValueError(f"tasks must be a positive integer, got {tasks!r}")
        self.vocabulary_size, self.conditioning, self.interaction = vocabulary_size, conditioning, interaction
        self.task_count = tasks
        joint = interaction == "joint"
        self.encoder = TokenTransformer(
            vocabulary_size + joint, layers, width, heads, segments=2 if joint else 0, generator=generator,
            condition_size=condition_size if conditioning == "norm" else None, **options,
        )  # fmt: skip
        self.encoder.bias.requires_grad_(False)  # of the language model's output, which matching does not use
        self._freeze(embeddings, width)
        self.tasks = None
        if conditioning in ("norm", "token"):
            size = condition_size if conditioning == "norm" else width
            self.tasks = nn.Parameter(torch.randn(tasks, size, generator=generator) * size**-0.5)
        features = width if joint else 2 * width + 3
        outputs = tasks if conditioning == "heads" else 1
        self.head = nn.Sequential(_linear(features, 64, generator), nn.GELU(), _linear(64, outputs, generator))

    def _freeze(self, embeddings: Tensor | None, width: int) -> None:
        if embeddings is None:
            return
        if embeddings.shape != (self.vocabulary_size, width):
            wanted = (self.vocabulary_size, width)
            raise ValueError(f"embeddings must have shape {wanted}, got {tuple(embeddings.shape)}")
        with torch.no_grad():
            self.encoder.tokens[: self.vocabulary_size] = embeddings
        self.encoder.tokens.requires_grad_(False)

    def forward(
        self, source: Tokens, target: Tokens, task: LongTensor, *, condition: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """Return the logits of "match".

        Parameters
        ----------
        source, target
            Texts of B pairs.
        task
            Integers in 0..K-1, shape (B,); tasks may be mixed in a batch.
        condition
            Task vectors (B, C) to use instead of the tasks' own, for ``"norm"`` and ``"token"``.

        Returns
        -------
        Tensor, shape (B,)

        Raises
        ------
        ValueError
            If a text is empty, a task is out of range, or batch sizes differ.
        """
        self._check(source, target, task)
        if condition is None:
            condition = None if self.tasks is None else self.tasks[task]
        elif self.tasks is None or condition.shape != (len(task), self.tasks.shape[1]):
            wanted = None if self.tasks is None else (len(task), self.tasks.shape[1])
            raise ValueError(f"condition must have shape {wanted}, got {tuple(condition.shape)}")
        features = self._joint if self.interaction == "joint" else self._late
        logits = self.head(features(source, target, condition))
        return logits.gather(1, task[:, None])[:, 0] if self.conditioning == "heads" else logits[:, 0]

    def _late(self, source: Tokens, target: Tokens, condition: Tensor | None) -> Tensor:
        (u, h, a), (v, g, b) = (self._encode(text, condition) for text in (source, target))
        close = torch.stack(
            [F.cosine_similarity(u, v), late_interaction(h, g, a, b), late_interaction(g, h, b, a)], dim=1
        )
        return torch.cat([u * v, (u - v).abs(), 10 * close], dim=1)  # (B, 2 D + 3)

    def _encode(self, text: Tokens, condition: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the average vector (B, D), token vectors of length 1 (B, T, D), and which are real (B, T)."""
        hidden, mask = self.encode(text, condition)
        real = mask[..., None]
        return (hidden * real).sum(1) / real.sum(1), F.normalize(hidden, dim=-1), mask

    def encode(self, text: Tokens, condition: Tensor | None = None, segments: Tensor | None = None):
        """Return the encoder's token vectors (B, T, D) and which of them are real (B, T)."""
        encoder, size = self.encoder, text.ids.shape[1]
        mask = padding_mask(text.lengths, size)
        if self.conditioning != "token":
            return encoder(text.ids, segments=segments, mask=mask, condition=condition), mask[:, 0, 0]
        x = F.embedding(text.ids, encoder.tokens) + condition[:, None]
        if segments is not None:
            x = x + F.embedding(segments, encoder.segments)
        x = F.dropout(encoder.norm(x), encoder.stack.options.dropout, self.training)
        return encoder.stack(x, mask=mask), mask[:, 0, 0]

    def _joint(self, source: Tokens, target: Tokens, condition: Tensor | None) -> Tensor:
        text, segments = _join(source, target, self.vocabulary_size)
        return self._encode_joint(text, segments, condition)

    def _encode_joint(self, text: Tokens, segments: Tensor, condition: Tensor | None) -> Tensor:
        hidden, mask = self.encode(text, condition, segments)
        return (hidden * mask[..., None]).sum(1) / text.lengths[:, None]

    def specialise(self, task: int) -> Matcher:
        """Return the plain network, told nothing, that this one is for one task (eq-matching-fold).

        Raises
        ------
        ValueError
            If the conditioning is not ``"norm"``, or the task is out of range.
        """
        if self.conditioning != "norm":
            raise ValueError(f"specialise needs conditioning 'norm', got {self.conditioning!r}")
        if not 0 <= task < self.task_count:
            raise ValueError(f"task must lie in 0..{self.task_count - 1}, got {task}")
        plain = Matcher.__new__(Matcher)
        nn.Module.__init__(plain)
        for name in ("vocabulary_size", "interaction", "task_count"):
            setattr(plain, name, getattr(self, name))
        plain.conditioning, plain.tasks = None, None
        plain.encoder = self.encoder.specialise(self.tasks[task].detach())
        plain.head = copy.deepcopy(self.head)
        return plain.train(self.training)

    def _check(self, source: Tokens, target: Tokens, task: Tensor) -> None:
        sizes = [len(source.ids), len(source.lengths), len(target.ids), len(target.lengths), len(task)]
        if len(set(sizes)) > 1:
            raise ValueError(f"source, target and task need one batch size, got {sizes}")
        for name, text in (("source", source), ("target", target)):
            if (text.lengths < 1).any() or (text.lengths > text.ids.shape[1]).any():
                raise ValueError(
                    f"{name}: lengths must lie in 1..{text.ids.shape[1]}, got {int(text.lengths.min())} "
                    f"to {int(text.lengths.max())}"
                )
        if task.ndim != 1 or task.is_floating_point() or ((task < 0) | (task >= self.task_count)).any():
            raise ValueError(f"task must be a row of integers in 0..{self.task_count - 1}, got {task.tolist()}")


def _linear(fan_in: int, fan_out: int, generator: torch.Generator | None) -> nn.Linear:
    linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
    with torch.no_grad():
        linear.weight.normal_(0, fan_in**-0.5, generator=generator)
        linear.bias.zero_()
    return linear


def _join(source: Tokens, target: Tokens, separator: int) -> tuple[Tokens, Tensor]:
    """Return source, separator and target as one sequence, with segment 1 from the first target token on."""
    lengths = source.lengths + 1 + target.lengths
    at = torch.arange(int(lengths.max()))[None]
    start = source.lengths[:, None] + 1
    inside = torch.gather(source.ids, 1, at.clamp(max=source.ids.shape[1] - 1).expand(len(lengths), -1))
    behind = torch.gather(target.ids, 1, (at - start).clamp(0, target.ids.shape[1] - 1))
    ids = torch.where(at < start - 1, inside, behind).masked_fill(at == start - 1, separator)
    return Tokens(ids, lengths), (at >= start).long()


# --- Training -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairTensors:
    """Pairs as tensors: two texts, tasks (n,) and labels (n,)."""

    source: Tokens
    target: Tokens
    tasks: LongTensor
    labels: Tensor

    @classmethod
    def of(cls, pairs: Sequence[Pair], lexicon: Lexicon) -> PairTensors:
        """Encode labelled pairs."""
        texts = (lexicon.encode([pair[side] for pair in pairs]) for side in (0, 1))
        return cls(
            *texts, torch.tensor([pair.task for pair in pairs]), torch.tensor([float(pair.label) for pair in pairs])
        )

    def __len__(self) -> int:
        return len(self.tasks)

    def rows(self, index: ArrayLike) -> PairTensors:
        """Return the pairs of an integer index, without the columns that all of them leave empty."""
        at = torch.as_tensor(np.asarray(index))
        source, target = (_rows(text, at) for text in (self.source, self.target))
        return PairTensors(source, target, self.tasks[at], self.labels[at])

    def sizes(self) -> NDArray[np.int64]:
        """Return the tokens of each pair as one sequence with a separator, shape (n,)."""
        return (self.source.lengths + self.target.lengths + 1).numpy()


def _rows(text: Tokens, at: Tensor) -> Tokens:
    lengths = text.lengths[at]
    return Tokens(text.ids[at, : int(lengths.max())], lengths)


def task_batches(data: PairTensors, batch_size: int, *, seed: int) -> list[NDArray[np.int64]]:
    """Return batches of one task and of similar lengths each, in random order."""
    sizes, tasks = data.sizes(), data.tasks.numpy()
    batches = []
    for task in np.unique(tasks):
        inside = np.flatnonzero(tasks == task)
        batches += [inside[batch] for batch in bucket_batches(sizes[inside], batch_size, seed=seed * 97 + int(task))]
    return [batches[i] for i in np.random.default_rng(seed).permutation(len(batches))]


def fit_matcher(
    model: Matcher, data: PairTensors, *, epochs: int = 3, batch_size: int = 50, lr: float = 2e-3,
    warmup: float = 0.1, seed: int = 0,
) -> Matcher:  # fmt: skip
    """Minimise the cross entropy with AdamW; change ``model``, return it.

    The step size rises over the share ``warmup`` of the steps and falls to zero, linearly. Every batch holds one task.
    No global generator is touched: ``seed`` orders the batches and drives the dropout.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr)
    schedule = [task_batches(data, batch_size, seed=1000 * seed + epoch) for epoch in range(epochs)]
    steps = sum(map(len, schedule))
    rise = max(1, round(warmup * steps))
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, (steps - step) / max(1, steps - rise))
    )
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for batch in itertools.chain.from_iterable(schedule):
            part = data.rows(batch)
            loss = F.binary_cross_entropy_with_logits(model(part.source, part.target, part.tasks), part.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return model.eval()


@torch.no_grad()
def probabilities(
    model: Matcher, data: PairTensors, *, condition: Tensor | None = None, batch_size: int = 200
) -> NDArray[np.float64]:  # fmt: skip
    """Return the probability of a match for every pair, shape (n,).

    Parameters
    ----------
    model, data
        What to ask, and about what.
    condition
        One task vector (C,) for all pairs, instead of the tasks' own.
    batch_size
        Pairs at a time, sorted by length.
    """
    result = np.empty(len(data))
    order = np.argsort(data.sizes(), kind="stable")
    for batch in np.split(order, range(batch_size, len(order), batch_size)):
        part = data.rows(batch)
        own = None if condition is None else condition.expand(len(batch), -1)
        result[batch] = torch.sigmoid(model(part.source, part.target, part.tasks, condition=own)).numpy()
    return result


# --- A judge that counts words ---------------------------------------------------------------------------------

TOLD = {"nothing": lambda task: 0 * task, "standard": lambda task: task % 2, "task": lambda task: task}


def lexical_judge(study: Study, told: str = "task") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probabilities of training and test pairs by a logistic regression on two cosines.

    Parameters
    ----------
    study
        The pairs, and the lexicon that measures the cosines (:meth:`Lexicon.cosines`).
    told
        ``"nothing"``: one regression; ``"standard"``: one for A, one for B; ``"task"``: one per task.
    """
    if told not in TOLD:
        raise ValueError(f"told must be one of {sorted(TOLD)}, got {told!r}")
    train, test = study.cosines
    labels = np.array([pair.label for pair in study.train])
    groups = [TOLD[told](np.array([pair.task for pair in pairs])) for pairs in (study.train, study.test)]
    if missing := set(groups[1].tolist()) - set(groups[0].tolist()):
        raise ValueError(f"no training pairs for the groups {sorted(missing)} of the test pairs")
    results = np.empty(len(train)), np.empty(len(test))
    for group in np.unique(groups[0]):
        inside = groups[0] == group
        regression = LogisticRegression(C=100).fit(train[inside], labels[inside])
        for result, cosines, at in zip(results, (train, test), groups):
            if (at == group).any():
                result[at == group] = regression.predict_proba(cosines[at == group])[:, 1]
    return results


def bootstrap_scores(
    groups: ArrayLike, tasks: ArrayLike, labels: ArrayLike, predictions: ArrayLike, *, rounds: int = 2000, seed: int = 0
) -> NDArray[np.float64]:  # fmt: skip
    """Return the contest's score of resampled test sets that draw whole groups, such as topics, with replacement.

    Equal groups and seed draw equal sets, so that two judges can be compared set by set.

    Parameters
    ----------
    groups
        Integers, shape (pairs,): pairs of one group are drawn together.
    tasks, labels, predictions
        As in :func:`competition_score`.

    Returns
    -------
    Array of shape (rounds,)
    """
    g, k, y, p = (np.asarray(values).astype(int) for values in (groups, tasks, labels, predictions))
    size = g.max() + 1
    cells = np.bincount(g * 8 + (k % 2) * 4 + y * 2 + p, minlength=8 * size).reshape(size, 8)
    draws = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), rounds)  # (rounds, groups)
    counts = (draws @ cells).reshape(rounds, 2, 2, 2)  # (round, standard, label, prediction)
    f1 = _f1(counts[..., 1, 1], counts[..., 1].sum(-1), counts[..., 1, :].sum(-1))
    return f1.mean(1)


# --- The study: one data set, ways to tell the task, seeds -----------------------------------------------------

WAYS = ("blind", "six models", "task token", "conditional norm", "six heads")
_CONDITIONING = {"blind": None, "task token": "token", "conditional norm": "norm", "six heads": "heads"}
ENCODER = {"layers": 1, "width": 96, "heads": 4, "hidden": 96, "gain": 0.5, "dropout": 0.1}


@dataclass(frozen=True)
class Study:
    """Training and test pairs of disjoint topics, and what the training side says about words."""

    train: list[Pair]
    test: list[Pair]
    lexicon: Lexicon

    @classmethod
    def of(cls, records: Sequence[Record], *, per_task: int = 600, test_per_task: int = 500, seed: int = 0) -> Study:
        """Split records by topic, build pairs of each side, count the words of the training side."""
        train, test = split_by_topic(records)
        texts = [" ".join(record.sentences[:8]) for record in train]
        return cls(
            build_pairs(train, per_task, seed=seed), build_pairs(test, test_per_task, seed=seed + 1), Lexicon(texts)
        )

    def scarce(self, per_task: int) -> Study:
        """Return the same study with the first ``per_task`` training pairs of each task."""
        kept = [pair for task in range(len(TASKS)) for pair in [p for p in self.train if p.task == task][:per_task]]
        return Study(kept, self.test, self.lexicon)

    def fingerprint(self) -> str:
        """Return a hash of all pairs."""
        return hashlib.sha256(json.dumps([self.train, self.test]).encode()).hexdigest()[:16]

    @cached_property
    def train_data(self) -> PairTensors:
        """The training pairs as tensors."""
        return PairTensors.of(self.train, self.lexicon)

    @cached_property
    def test_data(self) -> PairTensors:
        """The test pairs as tensors."""
        return PairTensors.of(self.test, self.lexicon)

    @cached_property
    def cosines(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The two word similarities of the training and of the test pairs, shape (pairs, 2) each."""
        return self.lexicon.cosines(self.train), self.lexicon.cosines(self.test)

    @cached_property
    def embeddings(self) -> Tensor:
        """The frozen token vectors."""
        return self.lexicon.embeddings()

    def matcher(self, way: str, seed: int) -> Matcher:
        """Return an untrained network that is told the task in one of the :data:`WAYS` but "six models"."""
        options = ENCODER | {"embeddings": self.embeddings, "generator": torch.Generator().manual_seed(seed)}
        return Matcher(len(self.lexicon), conditioning=_CONDITIONING[way], **options)

    def fit(self, way: str, seed: int, *, epochs: int = 3) -> list[Matcher]:
        """Return one trained network, or six that saw one task each."""
        if way != "six models":
            return [fit_matcher(self.matcher(way, seed), self.train_data, seed=seed, epochs=epochs)]
        tasks = self.train_data.tasks.numpy()
        parts = [self.train_data.rows(np.flatnonzero(tasks == task)) for task in range(len(TASKS))]
        return [fit_matcher(self.matcher("blind", seed), part, seed=seed, epochs=epochs) for part in parts]

    def ask(self, models: Sequence[Matcher]) -> NDArray[np.float64]:
        """Return the probabilities of the test pairs, each from the model of its task."""
        if len(models) == 1:
            return probabilities(models[0], self.test_data)
        tasks = self.test_data.tasks.numpy()
        result = np.empty(len(tasks))
        for task, model in enumerate(models):
            at = np.flatnonzero(tasks == task)
            result[at] = probabilities(model, self.test_data.rows(at))
        return result


# --- The record: what many hours of a reader's notebook would be ------------------------------------------------

RECORD = "matching_runs.json"
SEEDS = (0, 1, 2, 3, 4)
DIAL = tuple(round(-0.5 + 0.1 * step, 1) for step in range(21))
PER_TASK, SCARCE = 800, 200


def experiments() -> dict[str, Callable[[Study, int], list[Matcher]]]:
    """Return the recorded experiments by name: each maps a study and a seed to trained networks."""
    runs = {way: partial(_run, way=way) for way in WAYS}
    scarce = ("blind", "six models", "conditional norm")
    runs |= {f"{way}, {SCARCE} pairs": partial(_run, way=way, per_task=SCARCE) for way in scarce}
    return runs | {"one sequence": _run_joint}


def _run(study: Study, seed: int, way: str, per_task: int | None = None) -> list[Matcher]:
    return (study if per_task is None else study.scarce(per_task)).fit(way, seed)


def _run_joint(study: Study, seed: int) -> list[Matcher]:
    generator = torch.Generator().manual_seed(seed)
    options = ENCODER | {"layers": 2, "interaction": "joint", "embeddings": study.embeddings, "generator": generator}
    return [fit_matcher(Matcher(len(study.lexicon), **options), study.train_data, seed=seed)]


def gain_ratio(model: Matcher, topical: int = 32) -> NDArray[np.float64]:
    """Return the mean gain on the topic dimensions over that on the others, shape (norms, tasks).

    Norms in the order in which a text meets them: the embedding's first.
    """
    norms = [part for part in model.encoder.modules() if isinstance(part, ConditionalLayerNorm)]
    norms = [model.encoder.norm, *(norm for norm in norms if norm is not model.encoder.norm)]
    with torch.no_grad():
        gains = torch.stack([norm.scale_and_shift(model.tasks)[0] for norm in norms])  # (norm, task, D)
    return (gains[..., :topical].mean(-1) / gains[..., topical:].mean(-1)).double().numpy()


def dial(study: Study, model: Matcher, length: int, settings: Sequence[float] = DIAL) -> dict[str, NDArray[np.float64]]:
    """Return, for each kind, the match probabilities of test pairs while one condition becomes another.

    The condition is ``(1 - s) E_A + s E_B`` for the two tasks of a pairing of lengths.

    Returns
    -------
    dict
        Kind -> array of shape (settings, 60): the first 60 test pairs of the kind and the length.
    """
    loose, strict = model.tasks[2 * length].detach(), model.tasks[2 * length + 1].detach()
    found = {}
    for kind in KINDS:
        at = [i for i, p in enumerate(study.test) if p.task // 2 == length and kind_of(p) == kind][:60]
        part = study.test_data.rows(at)
        curve = [probabilities(model, part, condition=(1 - s) * loose + s * strict) for s in settings]
        found[kind] = np.array(curve)
    return found


def pack(values: NDArray[np.float64]) -> str:
    """Return probabilities as text, one byte each.

    >>> unpack(pack(np.array([0.0, 0.4999, 0.5, 1.0]))).tolist()
    [0.001953125, 0.498046875, 0.501953125, 0.998046875]
    """
    return base64.b64encode(np.clip(values * 256, 0, 255).astype(np.uint8).tobytes()).decode()


def unpack(text: str) -> NDArray[np.float64]:
    """Return the probabilities of :func:`pack`, each the middle of its 1/256."""
    return (np.frombuffer(base64.b64decode(text), dtype=np.uint8) + 0.5) / 256


class Runs:
    """What the recorded experiments answered on the test pairs.

    Parameters
    ----------
    study
        The data of this machine; they must be those of the record.

    Raises
    ------
    ValueError
        If the record was made from other pairs, as with other versions of the packages.
    """

    def __init__(self, study: Study):
        source = resources.files("explainers").joinpath("assets", RECORD)
        self._record = json.loads(source.read_text(encoding="utf-8"))
        if self._record["pairs"] != study.fingerprint():
            raise ValueError(
                f"{RECORD} was made from other pairs than this machine builds (other versions of the documented "
                "packages?); run `python -m explainers.matching` to record anew"
            )
        self.tasks = study.test_data.tasks.numpy()
        self.labels = study.test_data.labels.numpy().astype(int)

    def probabilities(self, name: str) -> NDArray[np.float64]:
        """Return the answers of an experiment, shape (seeds, test pairs)."""
        return np.array([unpack(text) for text in self._record["answers"][name]])

    def scores(self, name: str) -> list[Score]:
        """Return the contest's score for each seed, at the threshold 1/2."""
        return [competition_score(self.tasks, self.labels, p >= 0.5) for p in self.probabilities(name)]

    def accuracies(self, name: str) -> NDArray[np.float64]:
        """Return the share of right answers for each seed."""
        return ((self.probabilities(name) >= 0.5) == self.labels).mean(1)

    def areas(self, name: str) -> NDArray[np.float64]:
        """Return the area under the ROC curve, shape (seeds, tasks)."""
        return np.array([task_areas(self.tasks, self.labels, p) for p in self.probabilities(name)])

    def gains(self) -> NDArray[np.float64]:
        """Return :func:`gain_ratio` of the conditional network, shape (seeds, norms, tasks)."""
        return np.array(self._record["gains"])

    def dial(self) -> dict[str, NDArray[np.float64]]:
        """Return for each kind the mean probability, shape (seeds, lengths, settings)."""
        return {kind: np.array(values) for kind, values in self._record["dial"].items()}


def task_areas(tasks: ArrayLike, labels: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """Return the area under the ROC curve for each of the six tasks."""
    k, y, v = map(np.asarray, (tasks, labels, values))
    return np.array([roc_auc_score(y[k == task], v[k == task]) for task in range(len(TASKS))])


def record(path: Path, names: Sequence[str] = ()) -> None:
    """Run the experiments of these names, by default all, and write them into the record at ``path``."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    study = Study.of(docstring_records(), per_task=PER_TASK)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if content.get("pairs") != study.fingerprint():
        content = {"pairs": study.fingerprint(), "answers": {}}
    runs = experiments()
    for name in names or runs:
        trained = [runs[name](study, seed) for seed in tqdm(SEEDS, desc=name)]
        content["answers"][name] = [pack(study.ask(models)) for models in trained]
        if name == "conditional norm":
            content |= _look_inside(study, [models[0] for models in trained])
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _look_inside(study: Study, models: Sequence[Matcher]) -> dict[str, Any]:
    curves = [[dial(study, model, length) for length in range(3)] for model in models]
    means = {kind: [[c[kind].mean(1).round(4).tolist() for c in seed] for seed in curves] for kind in KINDS}
    return {"gains": [gain_ratio(model).round(4).tolist() for model in models], "dial": means}


if __name__ == "__main__":
    record(Path(__file__).parent / "assets" / RECORD, sys.argv[1:])
