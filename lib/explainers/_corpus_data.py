"""Public data sets that the book can use but does not bring along; used through :mod:`explainers.corpus`."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import re
from collections.abc import Mapping
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
        _fetch(path, _WIKITEXT_ADDRESS + path.name, f"md5:{_WIKITEXT_FILES[split][1]}")
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


def _fetch(path: Path, address: str, known_hash: str) -> None:
    import pooch

    try:
        pooch.retrieve(address, known_hash, fname=path.name, path=path.parent, progressbar=True)
    except OSError as error:  # every exception of requests is one
        raise ConnectionError(
            f"{path.name} could not be fetched from {address} ({type(error).__name__}); "
            f"get it by hand and put it into {path.parent}"
        ) from error


def load_word_pairs(path: str | os.PathLike[str], *, part: str | None = None) -> list[tuple[str, str, float]]:
    """Return the pairs of a word-similarity table with their human scores.

    Parameters
    ----------
    path : path
        A table with a header that has ``word1``, ``word2`` and ``score``, separated by commas or tabs. A bare
        name such as ``men.csv`` is also looked for in ``word_similarity`` under ``EXPLAINERS_DATA``.
    part : str, optional
        Only the rows with this value in the column ``split`` (MEN: 'dev' or 'test').

    Returns
    -------
    list of (word1, word2, score)
        In the order of the file, case as written.

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message says where such tables come from.
    ValueError
        If a column is missing, a score is not a finite number, or no row is left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "pairs.csv")
    ...     _ = path.write_text("word1,word2,score\\nsun,sunlight,50\\n")
    ...     load_word_pairs(path)
    [('sun', 'sunlight', 50.0)]
    """
    path = _pairs_path(Path(path))
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


def _pairs_path(path: Path) -> Path:
    if path.exists():
        return path
    folder = data_folder(None, "EXPLAINERS_DATA") / "word_similarity"
    if not path.is_absolute() and (folder / path).exists():
        return folder / path
    raise FileNotFoundError(f"{path} is missing, also in {folder}; expected is one of the {_PAIRS_SOURCE}")


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
