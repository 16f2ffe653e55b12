"""Public data sets that the book can use but does not bring along; used through :mod:`explainers.corpus`."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

_WIKITEXT_ADDRESS = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/"
_WIKITEXT_FILES = {  # bytes, md5
    "train": (10_797_148, "34a77ebe59551b3a3b3d8c0a2797c976"),
    "valid": (1_121_681, "d756d22ab2310e7e60c094bea5c5a8eb"),
    "test": (1_256_449, "781c9418ab9414bd09e4aad825aae752"),
}
_WIKITEXT_SOURCE = (
    "WikiText-2, word level (Merity et al., arXiv 1609.07843; text of Wikipedia, CC BY-SA 3.0), "
    "as in github.com/pytorch/examples, folder word_language_model/data/wikitext-2"
)
_PAIRS_SOURCE = (
    "word-similarity sets: MEN (staff.fnwi.uva.nl/e.bruni/MEN) and WordSim-353 "
    "(gabrilovich.com/resources/data/wordsim353), as tables with the columns word1, word2, score"
)
_ARTICLE = re.compile(r" = (?!= ).* = $")


def load_wikitext2(
    folder: str | os.PathLike[str] | None = None,
    split: str = "train",
    *,
    download: bool = False,
    check: bool = True,
) -> list[list[str]]:
    """Return the articles of WikiText-2 as lists of tokens, headings included.

    Parameters
    ----------
    folder : path, optional
        Holds ``train.txt``, ``valid.txt`` and ``test.txt``; else ``wikitext-2`` in the folder named by
        ``EXPLAINERS_DATA``, else in the user's cache folder.
    split : 'train', 'valid' or 'test'
    download : bool
        Fetch the file when it is missing (pooch: progress bar, checksum).
    check : bool
        Compare size and md5 with those of the published file.

    Returns
    -------
    list of list of str
        One list an article; words as published (cased, with ``<unk>``), without end-of-line tokens.

    Raises
    ------
    ValueError
        If the split is unknown or the file is not the published one.
    FileNotFoundError
        If the file is missing; the message says where it comes from.
    ConnectionError
        If it cannot be fetched; the message names the file, its address and the folder to put it in.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = " \\n = Ham = \\n \\n Ham is <unk> . \\n \\n = Egg = \\n \\n An egg . \\n"
    ...     _ = Path(folder, "test.txt").write_text(text)
    ...     load_wikitext2(folder, "test", check=False)
    [['=', 'Ham', '=', 'Ham', 'is', '<unk>', '.'], ['=', 'Egg', '=', 'An', 'egg', '.']]
    """
    if split not in _WIKITEXT_FILES:
        raise ValueError(f"split must be 'train', 'valid' or 'test', got {split!r}")
    folder = Path(folder) if folder else data_folder(None, "EXPLAINERS_DATA") / "wikitext-2"
    path = folder / f"{split}.txt"
    if not path.exists():
        if not download:
            raise FileNotFoundError(
                f"{path} is missing; the folder {folder} should hold train.txt, valid.txt and test.txt of "
                f"{_WIKITEXT_SOURCE}. Put them there, or pass download=True"
            )
        known = f"md5:{_WIKITEXT_FILES[split][1]}"
        _fetch(path, _WIKITEXT_ADDRESS + path.name, known, path, _WIKITEXT_SOURCE)
    content = path.read_bytes()
    if check:
        _check_file(path, content, *_WIKITEXT_FILES[split])
    return _articles(content.decode("utf-8").split("\n"))


def _articles(lines: list[str]) -> list[list[str]]:
    """Cut at titles; a title stands between blank lines, a formula such as ``= 1 =`` need not."""
    articles: list[list[str]] = []
    for at, line in enumerate(lines):
        alone = not lines[at - 1].strip() and not "".join(lines[at + 1 : at + 2]).strip()
        if not articles or (alone and _ARTICLE.match(line.rstrip("\r"))):
            if not line.strip():
                continue
            articles.append([])
        articles[-1] += line.split()
    return articles


def _check_file(path: Path, content: bytes, size: int, md5: str) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if (len(content), found) != (size, md5):
        raise ValueError(
            f"{path} is not the published file: {len(content)} bytes with md5 {found}, "
            f"expected {size} bytes with md5 {md5}"
        )


def _fetch(source: Path, address: str, known_hash: str | None, target: Path, wanted: str) -> None:
    import pooch

    try:
        pooch.retrieve(address, known_hash, fname=source.name, path=source.parent, progressbar=True)
    except OSError as error:  # every exception of requests is one
        by_hand = f"get it by hand and put it into {target.parent}"
        if source != target:
            by_hand = f"or put the table itself at {target}: {wanted}"
        raise ConnectionError(
            f"{source.name} could not be fetched from {address} ({type(error).__name__}); {by_hand}"
        ) from error


def load_word_pairs(
    path: str | os.PathLike[str], *, part: str | None = None, download: bool = False, check: bool = True
) -> list[tuple[str, str, float]]:
    """Return the pairs of a word-similarity table with their human scores.

    Parameters
    ----------
    path : path
        A table with a header that has ``word1``, ``word2`` and ``score``, separated by commas or tabs. A bare
        name such as ``men.csv`` is also looked for in ``word_similarity`` in the folder named by
        ``EXPLAINERS_DATA``, else in the user's cache folder.
    part : str, optional
        Only the rows with this value in the column ``split`` (MEN: 'dev' or 'test').
    download : bool
        Fetch ``men.csv`` or ``wordsim353.csv`` into that folder when it is missing (pooch: progress bar,
        checksum).
    check : bool
        Compare these two, where they come from that folder, with the sha256 of the published tables.

    Returns
    -------
    list of (word1, word2, score)
        In the order of the file, case as written.

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message says where such tables come from.
    ConnectionError
        If it cannot be fetched; the message names the address, what is wanted and where to put it.
    ValueError
        If the table is not the published one, a column is missing, a score is not a finite number, or no row
        is left.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "pairs.csv")
    ...     _ = path.write_text("word1,word2,score\\nsun,sunlight,50\\n")
    ...     load_word_pairs(path)
    [('sun', 'sunlight', 50.0)]
    """
    path = _pairs_path(Path(path), download, check)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        delimiter = "\t" if "\t" in lines.readline() else ","
        lines.seek(0)
        reader = csv.DictReader(lines, delimiter=delimiter)
        wanted = ["word1", "word2", "score"] + (["split"] if part is not None else [])
        missing = [name for name in wanted if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(f"{path} lacks the column {missing[0]!r}; its header is {reader.fieldnames}")
        pairs = [_pair(path, reader.line_num, row) for row in reader if part is None or row["split"] == part]
    if not pairs:
        raise ValueError(f"{path} has no pairs" + (f" with split {part!r}" if part is not None else ""))
    return pairs


def _pairs_path(path: Path, download: bool, check: bool) -> Path:
    if path.exists():
        return path
    folder = data_folder(None, "EXPLAINERS_DATA") / "word_similarity"
    found = folder / path
    if not path.is_absolute() and not found.exists() and download and path.name in _PAIR_TABLES:
        _fetch_pairs(found, _PAIR_TABLES[path.name])
    if path.is_absolute() or not found.exists():
        hint = " (download=True fetches it)" if path.name in _PAIR_TABLES else ""
        raise FileNotFoundError(f"{path} is missing, also in {folder}{hint}; expected is one of the {_PAIRS_SOURCE}")
    if check and path.name in _PAIR_TABLES:
        _check_pairs(found, found.read_bytes(), _PAIR_TABLES[path.name])
    return found


@dataclass(frozen=True)
class _PairTable:
    """A table of word pairs: its own checksum, and the public files it is written from."""

    wanted: str
    sha256: str
    address: str  # of a folder at a fixed commit
    files: Mapping[str, str | None]  # name: checksum; None where only the finished table's is known
    convert: Callable[..., str]


def _rows(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if not line.startswith(("#", "word1"))]


def _men_table(natural: list[list[str]], lemmas: list[list[str]], dev: list[list[str]]) -> str:
    """Words as they stand in texts; part of speech (n, v, j) and split from the lemmas, row by row."""
    first = {tuple(row[:2]) for row in dev}
    lines = ["word1,word2,score,pos1,pos2,split"]
    for (one, two, score), (lemma1, lemma2, _) in zip(natural, lemmas, strict=True):
        split = "dev" if (lemma1, lemma2) in first else "test"
        lines.append(f"{one},{two},{float(score):g},{lemma1[-1]},{lemma2[-1]},{split}")
    return "\n".join(lines) + "\n"


def _wordsim_table(rows: list[list[str]]) -> str:
    return "\n".join(["word1,word2,score", *(",".join(row) for row in rows)]) + "\n"


_PAIR_TABLES = {
    "men.csv": _PairTable(
        "MEN, 3,000 pairs (Bruni et al. 2014, CC BY 2.0), columns word1, word2, score, pos1, pos2, split",
        "e48d5a20127ed32e8a9955a991bfd926d2b2f4351d134cbdc6a906b1d6cd1b5a",
        "https://raw.githubusercontent.com/mrmechko/simcross/bddd11676a778133efef57f0537a8374489087b7/MEN/",
        {
            "MEN_dataset_natural_form_full": None,
            "MEN_dataset_lemma_form_full": None,
            "MEN_dataset_lemma_form.dev": None,
        },
        _men_table,
    ),
    "wordsim353.csv": _PairTable(
        "WordSim-353, 353 pairs (Finkelstein et al. 2002, CC BY 4.0), columns word1, word2, score",
        "c0e79cd275b1b007c67c2a64c6c8c833cc44e8ce3e78201cf37446459579fbc9",
        "https://raw.githubusercontent.com/piskvorky/gensim/66365f6a2688e32ada86d5f005d550d4b4f8a137/gensim/test/test_data/",
        {"wordsim353.tsv": "sha256:f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d"},
        _wordsim_table,
    ),
}


def _fetch_pairs(path: Path, table: _PairTable) -> None:
    """Fetch the sources into a temporary folder; keep the table only if it is the published one."""
    with tempfile.TemporaryDirectory() as folder:
        sources = [Path(folder, name) for name in table.files]
        for source in sources:
            _fetch(source, table.address + source.name, table.files[source.name], path, table.wanted)
        content = table.convert(*map(_rows, sources)).encode()
    _check_pairs(path, content, table)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _check_pairs(path: Path, content: bytes, table: _PairTable) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != table.sha256:
        raise ValueError(
            f"{path} is not the published table ({table.wanted}): sha256 {found}, expected {table.sha256}; "
            "move it away, or pass check=False"
        )


def _pair(path: Path, line: int, row: Mapping[str, str]) -> tuple[str, str, float]:
    try:
        score = float(row["score"])
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score) or not row["word1"] or not row["word2"]:
        raise ValueError(f"{path}, line {line}: two words and a number are needed, got {dict(row)}")
    return row["word1"], row["word2"], score


def data_folder(given: str | os.PathLike[str] | None, variable: str) -> Path:
    chosen = given or os.environ.get(variable)
    if chosen:
        return Path(chosen).expanduser()
    return Path(user_cache_dir("explainers"))  # what pooch.os_cache returns, without importing pooch
