"""Numbers in the text: each stands somewhere that a run would notice it being wrong.

A result that a page measures is glued from the run (``{glue:text}``) or covered by a claim that the sentence refers to.
What may be typed are settings and worked examples, and those stand in the page's code, its claims or its compared
outputs too; or in a formula that is worked out again (:mod:`book.arithmetic`). So a number can be changed in one of
these places alone only if no test ever looks at it. Captions and alternative texts of figures are held to the same for
all their numbers.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from nbformat import NotebookNode

from book.arithmetic import FORMULA, Statement, statements
from book.pages import Page, code_cells, displayed, parse_code

# Words that turn a number beside them into a statement about a result.
_TELLING = re.compile(r"(?i)\b(?:measured|accurac(?:y|ies)|ratio|seeds?|times|seconds|per cent|points|nats)\b|%")
_NUMBER = re.compile(r"(?<![\w.,/^-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w-])")
_ANY_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")
_REFERENCE = re.compile(
    r"\{glue:text\}`[^`]*`|\{(?:eq|ref|numref)\}`[^`]*`|\{cite(?::\w+)?\}`[^`]*`|\[[^\]]*\]\((?:obs|ex)-[^)]*\)"
)
_ASIDE = re.compile(
    r"\$\$.*?\$\$(?: *\(eq-[\w-]+\))?|\$[^$]*\$|`[^`]*`|^#+ .*$|^\(\w[\w-]*\)=$", re.DOTALL | re.MULTILINE
)
_LABELLED = re.compile(r"\$\$[^$]*\$\$ *\(eq-[\w-]+\)")
_IN_FORMULA = re.compile(r"(?<![\w.])(?:\d+\.\d+|\d{3,})")
_QUOTED = re.compile(r"\"[^\"]{2,}?\"|“[^”]+”|\bquoted\b")  # what others say is cited, not measured here
_SENTENCE = re.compile(r"(?<=[.;:?!|])\s+|\n\s*\n")
_MASKED = re.compile(r"measured [^<\n]*")
GLUE = re.compile(r"\{glue:text\}`([^`]*)`")
_GLUED = "application/papermill.record/text/plain"


def glued(notebook: NotebookNode | dict[str, Any]) -> dict[str, str]:
    """Return the words of an executed notebook that are glued as text, by their keys, without the mark ``measured``."""
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if _GLUED in output.get("data", {}):
                words = ast.literal_eval("".join(output["data"][_GLUED]))
                found[output["metadata"]["scrapbook"]["name"]] = str(words).removeprefix("measured ")
    return found


def quote(text: str, words: dict[str, str]) -> str:
    """Return a text with the glued words in their places.

    Raises
    ------
    KeyError
        If a key was not glued.

    >>> quote("It ends near {glue:text}`mitchell-end`.", {"mitchell-end": "0.98"})
    'It ends near 0.98.'
    """
    return GLUE.sub(lambda match: words[match[1]], text)


def unsupported_numbers(page: Page) -> Iterator[tuple[str, str]]:
    """Yield each number that stands in the text and nowhere else, with its sentence, caption or formula.

    Looked at are numbers beside a telling word, all those of captions and alternative texts, and the decimals and large
    numbers of formulas without a label (a labelled equation has a claim).
    """
    known = set(known_numbers(page))
    for number, sentence in (*typed_numbers(page), *figure_numbers(page), *formula_numbers(page)):
        if not is_known(number, known):
            yield number, sentence


def typed_numbers(page: Page) -> Iterator[tuple[str, str]]:
    """Yield each typed number beside a telling word, in no sentence that refers to a claim, with its sentence."""
    for cell in page.written.cells:
        if cell.cell_type != "markdown":
            continue
        text = _ASIDE.sub(" ", _REFERENCE.sub(" REFERENCE ", cell.source))
        for sentence in _SENTENCE.split(text):
            if "REFERENCE" in sentence or not _TELLING.search(sentence) or _QUOTED.search(sentence):
                continue
            for match in _NUMBER.finditer(sentence):
                yield match.group(), " ".join(sentence.split())


def figure_numbers(page: Page) -> Iterator[tuple[str, str]]:
    """Yield each typed number of the captions and alternative texts of figures, with the text that it stands in."""
    for cell in code_cells(page.written):
        about = cell.metadata.get("mystnb", {})
        for text in (about.get("figure", {}).get("caption"), about.get("image", {}).get("alt")):
            for match in _NUMBER.finditer(_ASIDE.sub(" ", _REFERENCE.sub(" ", text or ""))):
                yield match.group(), " ".join((text or "").split())


def formula_numbers(page: Page) -> Iterator[tuple[str, str]]:
    """Yield the numbers of formulas without a label that are in no statement that is worked out, with the formula."""
    for formula in _formulas(page):
        worked = " ".join(statement.text for statement in statements(formula))
        for match in _IN_FORMULA.finditer(formula.replace("{,}", "")):
            if match.group() not in worked:
                yield match.group(), " ".join(formula.split())


def worked_statements(page: Page) -> Iterator[Statement]:
    """Yield what the formulas of the page say about numbers alone."""
    for cell in page.written.cells:
        if cell.cell_type == "markdown":
            for match in FORMULA.finditer(cell.source):
                yield from statements(match[1] or match[2] or "")


def _formulas(page: Page) -> Iterator[str]:
    for cell in page.written.cells:
        if cell.cell_type == "markdown":
            for match in FORMULA.finditer(_LABELLED.sub(" ", cell.source)):
                yield match[1] or match[2] or ""


def is_known(number: str, known: set[float]) -> bool:
    """Return whether the number is among those known, perhaps as a fraction where the text has per cent.

    >>> is_known("20", {0.2}), is_known("1,200", {1200.0}), is_known("21", {0.2})
    (True, True, False)
    """
    value = float(number.replace(",", ""))
    return any(round(scaled, 9) in known for scaled in (value, value / 100, 1 - value / 100))


def known_numbers(page: Page) -> Iterator[float]:
    """Yield the numbers of the page's settings, code, claims and compared outputs."""
    for value in page.settings.values():
        if isinstance(value, (int, float)):
            yield float(value)
    for cell in code_cells(page.written):
        for node in ast.walk(parse_code(cell.source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
                yield round(float(node.value), 9)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from _numbers([node.value])
    if page.executed is not None:
        for cell in code_cells(page.executed):
            if "nbval-ignore-output" not in cell.metadata.get("tags", []):
                yield from _numbers(_texts(cell))


def _texts(cell) -> Iterator[str]:
    for output in cell.outputs:
        yield _MASKED.sub("", str(output.get("text", "")))
    for data in displayed(cell):
        for mime, value in data.items():
            words = value if isinstance(value, str) else json.dumps(value)
            if mime in ("text/plain", "text/html") and "<script" not in words:  # a widget's data are no statements
                yield _MASKED.sub("", words)


def _numbers(texts: Iterable[str]) -> Iterator[float]:
    for text in texts:
        for match in _ANY_NUMBER.finditer(text):
            yield round(float(match.group().replace(",", "")), 9)
