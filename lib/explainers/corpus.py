"""The docstring corpus: 2 million words of English that the book's own packages bring along.

A document is the docstring of one module, class, function, method or property of numpy, scipy,
scikit-learn, matplotlib, sympy or torch: a one-line summary, a body, named sections, and a topic. The sources
are parsed, not run; the result is cached, so that only the first use takes a while, best as the command
``python -m explainers.corpus``. The texts stay under their packages' licences: a page that prints one names
the package.

Two public data sets are read here as well, WikiText-2 and word-similarity tables; neither comes with the
book.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import gzip
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ._corpus_build import DISTRIBUTIONS, EXTRACTOR_VERSION, build
from ._corpus_data import data_folder, load_wikitext2, load_word_pairs
from ._corpus_fields import Doc, from_line, to_line
from ._corpus_text import plain_text
from ._corpus_tokens import Vocabulary, encode_corpus, subsample, tokenize

__all__ = [
    "PACKAGES",
    "PINNED",
    "Corpus",
    "CorpusWarning",
    "Doc",
    "Stats",
    "Vocabulary",
    "encode_corpus",
    "load_docstrings",
    "load_wikitext2",
    "load_word_pairs",
    "plain_text",
    "subsample",
    "tokenize",
]

PACKAGES = ("numpy", "scipy", "sklearn", "matplotlib", "sympy", "torch")

# The versions that the figures of the book were measured with; a test compares them with requirements.txt.
PINNED = {
    "numpy": "2.4.6",
    "scipy": "1.17.1",
    "scikit-learn": "1.9.1",
    "matplotlib": "3.11.2",
    "sympy": "1.14.0",
    "torch": "2.13.0",
    "numpydoc": "1.11.0",
    "docstring-parser": "0.18.0",
}
_TOOLS = ("numpydoc", "docstring-parser")  # they shape the texts, so they are part of the key


class CorpusWarning(UserWarning):
    """The corpus is there, but not quite as expected: other versions, a damaged or unwritable cache."""


# ---------------------------------------------------------------- the corpus


class Stats(dict[str, dict[str, int]]):
    """Figures by package, with a last row ``'all'``; shows itself as a table."""

    def _cells(self) -> list[list[str]]:
        columns = list(next(iter(self.values()), {}))
        head = ["package", *(column.replace("_", " ") for column in columns)]
        return [head, *([name, *(f"{row[column]:,}" for column in columns)] for name, row in self.items())]

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in cells]
        return "\n".join("  ".join(line) for line in lines)

    def _repr_html_(self) -> str:
        head, *rows = self._cells()
        cells = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"]
        for name, *values in rows:
            cells.append(f"<tr><th>{name}</th>{''.join(f'<td>{value}</td>' for value in values)}</tr>")
        return f"<table>{''.join(cells)}</table>"


class Corpus(Sequence[Doc]):
    """An immutable sequence of documents, sorted by name when it comes from :func:`load_docstrings`.

    Attributes
    ----------
    key : str
        sha256 over the extractor's version and the versions of the distributions.
    versions : dict
        Version by distribution name.

    Examples
    --------
    >>> from explainers._corpus_fields import make_doc
    >>> where = "numpy.ma.core"
    >>> corpus = Corpus(make_doc("numpy", f"{where}.f{n}", where, "function", f"Sum {n}.") for n in (1, 2))
    >>> corpus, corpus.by_name("numpy.ma.core.f1").summary, len(corpus.filter(package="scipy"))
    (<Corpus of 2 documents: numpy 2>, 'Sum 1.', 0)
    """

    def __init__(self, docs: Iterable[Doc], *, key: str = "", versions: Mapping[str, str] | None = None):
        self._docs = tuple(docs)
        self.key = key
        self.versions = dict(versions or {})
        self._boilerplate: dict[int, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._docs)

    @overload
    def __getitem__(self, at: int) -> Doc: ...
    @overload
    def __getitem__(self, at: slice) -> Corpus: ...
    def __getitem__(self, at: int | slice) -> Doc | Corpus:
        return self._with(self._docs[at]) if isinstance(at, slice) else self._docs[at]

    def __iter__(self) -> Iterator[Doc]:
        return iter(self._docs)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in Counter(doc.package for doc in self).items())
        return f"<Corpus of {len(self)} documents{': ' if sizes else ''}{sizes}>"

    def _with(self, docs: Iterable[Doc]) -> Corpus:
        return Corpus(docs, key=self.key, versions=self.versions)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {doc.name: at for at, doc in enumerate(self)}

    def by_name(self, name: str) -> Doc:
        """Return the document of a definition, as in ``'scipy.optimize._minimize.minimize'``.

        Raises
        ------
        KeyError
            If there is none; the message offers similar names.
        """
        try:
            return self[self._index[name]]
        except KeyError:
            last = "." + name.rpartition(".")[2]
            near = [other for other in self._index if other.endswith(last)] or self._index
            similar = ", ".join(difflib.get_close_matches(name, near, cutoff=0.3)) or "none"
            raise KeyError(f"no document is named {name!r}; similar names: {similar}") from None

    def filter(
        self,
        *,
        package: str | Collection[str] | None = None,
        topic: str | Collection[str] | None = None,
        kind: str | Collection[str] | None = None,
        public: bool | None = None,
    ) -> Corpus:
        """Return the documents that meet every condition given; a condition may list several values."""
        wanted = {"package": package, "topic": topic, "kind": kind}
        allowed = {name: {v} if isinstance(v, str) else set(v) for name, v in wanted.items() if v is not None}
        return self._with(
            doc
            for doc in self
            if all(getattr(doc, name) in values for name, values in allowed.items())
            and (public is None or doc.public == public)
        )

    def boilerplate(self, min_docs: int = 5) -> dict[str, int]:
        """Return the paragraphs that stand in at least ``min_docs`` documents, most frequent first.

        Returns
        -------
        dict
            Number of documents by paragraph.
        """
        if min_docs not in self._boilerplate:
            counter: Counter[str] = Counter()
            for doc in self:
                counter.update(set(doc.text.split("\n")))
            found = [item for item in counter.items() if item[1] >= min_docs and item[0]]
            self._boilerplate[min_docs] = dict(sorted(found, key=lambda item: (-item[1], item[0])))
        return self._boilerplate[min_docs]

    def prose(self, min_docs: int = 5) -> list[str]:
        """Return the text of each document without boilerplate paragraphs: what language models train on."""
        dull = self.boilerplate(min_docs)
        return ["\n".join(line for line in doc.text.split("\n") if line not in dull) for doc in self]

    def stats(self) -> Stats:
        """Return the integrity figures by package.

        Columns: documents; public ones; words of the raw text; prose tokens (boilerplate out); documents with
        See Also; pairs for summarisation (summary of at least 4 words, body of at least 30).
        """
        table = Stats()
        for doc, prose in zip(self, self.prose()):
            row = table.setdefault(doc.package, dict.fromkeys(_STATS_COLUMNS, 0))
            pair = len(doc.summary.split()) >= 4 and len(doc.body.split()) >= 30
            values = (1, doc.public, len(doc.raw.split()), len(tokenize(prose)), bool(doc.see_also), pair)
            for column, value in zip(_STATS_COLUMNS, values):
                row[column] += int(value)
        rows = [table[name] for name in table]
        total = {column: sum(row[column] for row in rows) for column in _STATS_COLUMNS}
        return Stats({**{name: table[name] for name in PACKAGES if name in table}, "all": total})

    def content_hash(self) -> str:
        """Return the sha256 over every field of every document, in order."""
        return _checksum(to_line(doc).encode() for doc in self)

    def see_also_pairs(self) -> NDArray[np.int64]:
        """Return the See Also references that lead to a document of the corpus.

        A name is looked up by its last component within the package (its own, or the one it is written with);
        the document whose name repeats more of the reference wins, then the same topic, then a function or
        class, then the first.

        Returns
        -------
        int64 array, shape (pairs, 2)
            Places of the referring and the referred document, sorted, each pair once.
        """
        candidates: dict[tuple[str, str], list[int]] = defaultdict(list)
        for at, doc in enumerate(self):
            candidates[doc.package, doc.name.rpartition(".")[2]].append(at)
        pairs = set()
        for at, doc in enumerate(self):
            for name in doc.see_also:
                first, last = name.partition(".")[0], name.rpartition(".")[2]
                package = first if first in PACKAGES and "." in name else doc.package
                others = [other for other in candidates[package, last] if other != at]
                if others:
                    pairs.add((at, min(others, key=lambda other: self._distance(doc, name, other))))
        return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)

    def _distance(self, doc: Doc, name: str, other: int) -> tuple[int, bool, bool, int]:
        target = self[other]
        repeated = len(set(name.split(".")) & set(target.name.split(".")))
        return -repeated, target.topic != doc.topic, target.kind not in ("function", "class"), other

    def split(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), *, by: str = "name") -> tuple[Corpus, ...]:
        """Return disjoint parts, about as large as the fractions say.

        Each document goes where a hash of its name (or topic) sends it, so another document coming or going
        does not move it. Near-duplicates (same summary or same body, also through a third document) follow
        the one with the first name. With ``by='topic'`` topics stay whole, and the topic alone decides, even
        where two topics share a sentence.

        Parameters
        ----------
        fractions : sequence of float
            Positive, with sum 1.
        by : 'name' or 'topic'

        Raises
        ------
        ValueError
            If there are fewer than 3 documents, or the fractions do not sum to 1.
        """
        if len(self) < 3:
            raise ValueError(f"a split needs at least 3 documents, got {len(self)}")
        if by not in ("name", "topic"):
            raise ValueError(f"by must be 'name' or 'topic', got {by!r}")
        if not fractions or min(fractions) <= 0 or not math.isclose(sum(fractions), 1.0, abs_tol=1e-9):
            raise ValueError(f"fractions must be positive and sum to 1, got {tuple(fractions)}")
        bounds = list(itertools.accumulate(fractions))[:-1]
        keys = [doc.topic for doc in self] if by == "topic" else self._leaders
        places = [sum(_share_of(key) >= bound for bound in bounds) for key in keys]
        parts: list[list[Doc]] = [[] for _ in fractions]
        for doc, place in zip(self, places):
            parts[place].append(doc)
        return tuple(self._with(part) for part in parts)

    @cached_property
    def _leaders(self) -> list[str]:
        """For each document the first name among its near-duplicates, itself included."""
        parent = list(range(len(self)))
        order = sorted(range(len(self)), key=lambda at: self[at].name)
        rank = {at: place for place, at in enumerate(order)}

        def root(at: int) -> int:
            while parent[at] != at:
                parent[at] = parent[parent[at]]
                at = parent[at]
            return at

        first: dict[tuple[str, str], int] = {}
        for at in order:
            for which in ("summary", "body"):
                if text := getattr(self[at], which):
                    one, two = root(first.setdefault((which, text), at)), root(at)
                    low, high = sorted((one, two), key=rank.__getitem__)
                    parent[high] = low
        return [self[root(at)].name for at in range(len(self))]


_STATS_COLUMNS = ("documents", "public", "words", "prose_tokens", "see_also", "pairs")


def _share_of(key: str) -> float:
    """Return a number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64


def _checksum(lines: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line + b"\n")
    return digest.hexdigest()


# ---------------------------------------------------------------- loading and cache


def load_docstrings(
    packages: Iterable[str] = PACKAGES,
    *,
    public_only: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    refresh: bool = False,
) -> Corpus:
    """Return the docstring corpus, from the cache where there is one.

    Parameters
    ----------
    packages : iterable of str
        A choice of :data:`PACKAGES`.
    public_only : bool
        Leave out what starts with an underscore.
    cache_dir : path, optional
        Else the folder named by ``EXPLAINERS_CACHE``, else the user's cache folder.
    refresh : bool
        Build the corpus even where it is cached.

    Returns
    -------
    Corpus
        Sorted by name.

    Raises
    ------
    ValueError
        If a package is not one of :data:`PACKAGES`.
    ModuleNotFoundError
        If a package is not installed; the message names the distribution.

    Warns
    -----
    CorpusWarning
        If a version is not the pinned one (all figures may differ), if the cache is damaged (it is built
        anew), or if it cannot be written (the corpus is returned nevertheless).

    Examples
    --------
    >>> load_docstrings(["pandas"])
    Traceback (most recent call last):
    ValueError: unknown package 'pandas': choose from numpy, scipy, sklearn, matplotlib, sympy, torch
    """
    chosen = _checked_packages(packages)
    tools = {name: _version(name) for name in _TOOLS}
    versions = {DISTRIBUTIONS[name]: _version(DISTRIBUTIONS[name]) for name in chosen}
    _warn_of_other_versions(versions | tools)
    key = corpus_key(versions | tools)
    path = cache_path(key, cache_dir)
    docs = None if refresh else _read_cache(path)
    if docs is None:
        docs = build(chosen)
        _write_cache(path, docs)
    corpus = Corpus(docs, key=key, versions=versions)
    return corpus.filter(public=True) if public_only else corpus


def corpus_key(versions: Mapping[str, str]) -> str:
    """Return the sha256 over the extractor's version and the distributions' names and versions.

    >>> corpus_key({"numpy": "2.4.6"}) == corpus_key({"numpy": "2.4.7"})
    False
    """
    return hashlib.sha256(json.dumps([EXTRACTOR_VERSION, sorted(versions.items())]).encode()).hexdigest()


def cache_path(key: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the file that holds the corpus of this key."""
    return data_folder(cache_dir, "EXPLAINERS_CACHE") / f"docstrings-{key[:16]}.jsonl.gz"


def _checked_packages(packages: Iterable[str]) -> list[str]:
    named = {packages} if isinstance(packages, str) else set(packages)
    for name in sorted(named - set(PACKAGES)):
        raise ValueError(f"unknown package {name!r}: choose from {', '.join(PACKAGES)}")
    if not named:
        raise ValueError(f"no package named: choose from {', '.join(PACKAGES)}")
    return [name for name in PACKAGES if name in named]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f"the docstring corpus needs the distribution {distribution!r}, which is not installed"
        ) from None


def _warn_of_other_versions(versions: Mapping[str, str]) -> None:
    """The part after a plus sign names a build (``2.13.0+cpu``), not a version."""
    other = [
        f"{name} {version} (pinned: {PINNED[name]})"
        for name, version in versions.items()
        if version.partition("+")[0] != PINNED[name]
    ]
    if other:
        warnings.warn(
            f"the docstring corpus is built from other versions than the book's: {', '.join(other)}; "
            "its figures will differ",
            CorpusWarning,
            stacklevel=3,
        )


def _read_cache(path: Path) -> list[Doc] | None:
    """Return the documents, or None where there is no cache or no sound one."""
    try:
        *lines, last, end = gzip.decompress(path.read_bytes()).split(b"\n")
        trailer = json.loads(last)
        if end or trailer != {"count": len(lines), "sha256": _checksum(lines)}:
            raise ValueError("the checksum does not fit the content")
        return [from_line(line) for line in lines]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        message = f"the corpus cache {path} is damaged and is built anew ({error})"
        warnings.warn(message, CorpusWarning, stacklevel=3)
        return None


def _write_cache(path: Path, docs: Iterable[Doc]) -> None:
    """Write beside the file and put it in place in one step: other processes see a whole file or none."""
    lines = [to_line(doc).encode() for doc in docs]
    trailer = json.dumps({"count": len(lines), "sha256": _checksum(lines)}, sort_keys=True).encode()
    content = gzip.compress(b"\n".join([*lines, trailer, b""]), compresslevel=6, mtime=0)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        reason = f"{type(error).__name__} for {path}: {error}"
        message = f"the corpus is not cached, every use builds it again: {reason}"
        warnings.warn(message, CorpusWarning, stacklevel=3)


# ---------------------------------------------------------------- the command


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the cache, or read it, and print the integrity figures."""
    parser = argparse.ArgumentParser(
        prog="python -m explainers.corpus", description="Build the docstring corpus and print its figures."
    )
    choice = f"of {', '.join(PACKAGES)}; all by default"
    parser.add_argument("packages", nargs="*", metavar="package", help=choice)
    parser.add_argument("--cache-dir", help="instead of EXPLAINERS_CACHE or the user's cache folder")
    parser.add_argument("--refresh", action="store_true", help="build even if cached")
    options = parser.parse_args(arguments)
    try:
        chosen = options.packages or PACKAGES
        corpus = load_docstrings(chosen, cache_dir=options.cache_dir, refresh=options.refresh)
    except (ValueError, ModuleNotFoundError) as error:
        parser.error(str(error))
    topics = Counter(doc.topic for doc in corpus)
    print(corpus.stats())
    large = sum(size >= 20 for size in topics.values())
    print(f"topics    {len(topics)}, of which {large} have 20 documents or more")
    print(f"versions  {', '.join(f'{name} {version}' for name, version in corpus.versions.items())}")
    print(f"key       {corpus.key}")
    print(f"content   {corpus.content_hash()}")
    print(f"cache     {cache_path(corpus.key, options.cache_dir)}")


if __name__ == "__main__":
    main()
