"""``python -m book check``: what must hold of every page before anything is run.

A rule takes a page and the book, and yields one sentence for each thing that is wrong, naming the file, the code cell
(counted from 1) and the label. ``PAGE_RULES`` apply to each page, ``BOOK_RULES`` to the book as a whole.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from pybtex.database import parse_string
from pybtex.exceptions import PybtexError

from book.catalogue import APPENDICES, PLANNED
from book.ledger import chapter_ledger
from book.pages import SERVICE_PAGES, Book, Page, code_cells, displayed, parse_code, tags
from book.prose import GLUE, glued, unsupported_numbers, worked_statements
from book.stamp import stamp, stored_stamp
from explainers.verify import KINDS, page_labels

CHAPTERS = tuple(chapter.name for chapter in PLANNED)
MAX_BYTES = 2_000_000
MAX_IGNORED_OUTPUTS = 3  # besides figures of trained things
MAX_IGNORED_FIGURES = 8
MIN_ALT_CHARACTERS = 20

_CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
_ABSOLUTE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|work|tmp|Users)/\w[^\s\"'<]*|\b[A-Z]:\\(?:[A-Z]|temp|tmp)\w*")
_REGISTRY = re.compile(r"\b(?:pypi[.]org|pythonhosted[.]org|anaconda[.]org|npmjs[.](?:com|org))\b")
_SEMICOLON = re.compile(r";\s*(?:#.*)?$")
_FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$]+\$", re.DOTALL)
_COMMENT_TAG = re.compile(r"#\s*(NBVAL_\w+|PYTEST_VALIDATE_\w+)")

PageRule = Callable[[Page, Book], Iterator[str]]
BookRule = Callable[[Book], Iterator[str]]


def check(book: Book) -> list[str]:
    """Return everything that is wrong with the book, in words."""
    if not book.pages:
        return ["chapters/ holds no page"]
    found = [problem for page in book.pages for rule in PAGE_RULES for problem in rule(page, book)]
    return found + [problem for rule in BOOK_RULES for problem in rule(book)]


# ---------------------------------------------------------------------- the pair and its outputs


def is_known(page: Page, book: Book) -> Iterator[str]:
    """A page is one of the planned chapters or one of the pages around them."""
    if page.name not in CHAPTERS + APPENDICES + SERVICE_PAGES:
        known = ", ".join(CHAPTERS + APPENDICES + SERVICE_PAGES)
        yield f"{_md(page)}: unknown page; lib/book/catalogue.py names the chapters ({known})"


def pair_in_sync(page: Page, book: Book) -> Iterator[str]:
    """Text and notebook have the same cells: type, source, tags and other metadata. Times do not matter."""
    if page.executed is None:
        yield f"{_md(page)}: no notebook beside it; `make run` writes it"
        return
    written, stored = page.written.cells, page.executed.cells
    if len(written) != len(stored):
        yield f"{_nb(page)}: {len(stored)} cells, the text has {len(written)}; `make run` brings them together"
        return
    for position, (new, old) in enumerate(zip(written, stored)):
        for what in ("cell_type", "source", "metadata"):
            if new[what] != old[what]:
                yield f"{_nb(page)}: cell {position} differs from the text in {what} (`make run`): {_first_line(new)}"
                return
    kept = {key: value for key, value in page.executed.metadata.get("explainers", {}).items() if key != "stamp"}
    if {**page.executed.metadata, "explainers": kept} != {"explainers": {}, **page.written.metadata}:
        yield f"{_nb(page)}: its metadata differ from the text's front matter; `make run`"


def executed_in_order(page: Page, book: Book) -> Iterator[str]:
    """The notebook was run top to bottom by the kernel python3: its execution counts are 1, 2, 3, ..."""
    if page.executed is None:
        return
    kernel = page.executed.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield f"{_nb(page)}: its kernel is {kernel!r}, not 'python3'"
    for number, cell in enumerate(code_cells(page.executed), 1):
        if cell.execution_count != number:
            yield f"{_cell(page, number)} has execution count {cell.execution_count}, not {number}: {_first_line(cell)}"
            return


def stamp_current(page: Page, book: Book) -> Iterator[str]:
    """Nothing that the outputs depend on has changed since they were computed."""
    if page.executed is not None and stored_stamp(page.executed) != stamp(page, book):
        yield f"{_nb(page)}: its outputs are older than its code, library, requirements or data; `make run`"


def no_error_outputs(page: Page, book: Book) -> Iterator[str]:
    """No cell shows an error or a warning."""
    for number, cell in _executed_cells(page):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{_cell(page, number)} shows an error: {output.ename}: {output.evalue}"
            elif output.get("name") == "stderr":
                yield f"{_cell(page, number)} writes to stderr: {output.text.strip().splitlines()[0][:100]}"


# ---------------------------------------------------------------------- labels and claims


def labels_are_claimed(page: Page, book: Book) -> Iterator[str]:
    """Every label has a claim in the executed ledger, and every claim a label on its page."""
    labels = page_labels(page.text)
    prefixes = (f"eq-{page.name}-", f"obs-{page.name}-")
    yield from (
        f"{_md(page)}: label {label} must begin with eq-{page.name}- or obs-{page.name}-"
        for label in labels
        if not label.startswith(prefixes)
    )
    if page.executed is None or _sources(page.executed) != _sources(page.written):
        return  # other rules say so; what an older run claimed says nothing about this text
    ledger = chapter_ledger(page.notebook) or {"chapter": page.name, "claims": []}
    if ledger["chapter"] != page.name:
        yield f"{_nb(page)}: its ledger is that of {ledger['chapter']!r}"
    claimed = {claim["label"] for claim in ledger["claims"]}
    if page.name in CHAPTERS + APPENDICES and not claimed:
        yield f"{_nb(page)}: shows no ledger; end the chapter with the cell `claims`"
    yield from (f"{_md(page)}: label {label} has no claim" for label in dict.fromkeys(labels) if label not in claimed)
    yield from (f"{_md(page)}: claims {label}, which it does not define" for label in sorted(claimed - {*labels}))
    for number, label in _claims_in_code(page):
        if label not in claimed:
            yield f"{_cell(page, number)} claims {label}, but the executed ledger does not hold it"


def labels_are_unique(book: Book) -> Iterator[str]:
    """No label is defined twice, on one page or on two."""
    places = defaultdict(list)
    for page in book.pages:
        for label in page_labels(page.text):
            places[label].append(page.name)
    for label, names in places.items():
        if len(names) > 1:
            yield f"label {label} is defined {len(names)} times: {', '.join(f'chapters/{name}.md' for name in names)}"


def _claims_in_code(page: Page) -> Iterator[tuple[int, str]]:
    """Yield the label of each call such as ``claims.proved("eq-...")``, with the number of its code cell."""
    for number, cell in enumerate(code_cells(page.written), 1):
        for node in ast.walk(parse_code(cell.source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in KINDS:
                label = node.args[0] if node.args else next((k.value for k in node.keywords if k.arg == "label"), None)
                if isinstance(label, ast.Constant) and isinstance(label.value, str):
                    yield number, label.value


# ---------------------------------------------------------------------- what readers and machines need


def figures_are_described(page: Page, book: Book) -> Iterator[str]:
    """Every figure has an alternative text and a caption; a cell shows one figure, as the texts belong to the cell."""
    for number, cell in _executed_cells(page):
        figures = [data for data in displayed(cell) if _is_figure(data)]
        if not figures:
            continue
        about = cell.metadata.get("mystnb", {})
        if len(figures) > 1:
            yield f"{_cell(page, number)} shows {len(figures)} figures; give each a cell, as alt text belongs to a cell"
        alt = str(about.get("image", {}).get("alt") or "")
        if len(alt) < MIN_ALT_CHARACTERS:
            yield f"{_cell(page, number)}: mystnb.image.alt has {len(alt)} characters, needs {MIN_ALT_CHARACTERS}"
        for key in sorted(set(GLUE.findall(alt)) - set(glued(page.executed))):
            yield f"{_cell(page, number)}: mystnb.image.alt quotes {key!r}, which the page does not glue"
        if not about.get("figure", {}).get("caption"):
            yield f"{_cell(page, number)}: its figure has no caption (mystnb.figure.caption)"
    for match in re.finditer(r"!\[\s*\]\([^)]*\)", page.text):
        yield f"{_md(page)}: image without alternative text: {match.group()}"


def run_time_is_stated(page: Page, book: Book) -> Iterator[str]:
    """The front matter states the run time; a chapter's text says the same to its readers, and the reading time."""
    seconds, minutes = page.settings.get("run_seconds"), page.settings.get("minutes_to_read")
    if not _positive(seconds):
        yield f"{_md(page)}: front matter needs `explainers: {{run_seconds: ...}}`, a positive number"
    if page.name not in CHAPTERS:
        return
    if not _positive(minutes):
        yield f"{_md(page)}: front matter needs `explainers: {{minutes_to_read: ...}}`, a positive number"
    for number, unit in ((seconds, "seconds"), (minutes, "minutes")):
        if _positive(number) and not re.search(rf"\b{number}\s+{unit}\b", page.text):
            yield f"{_md(page)}: the front matter says {number} {unit}, the text nowhere does"


def small_enough(page: Page, book: Book) -> Iterator[str]:
    """A notebook stays below 2 MB."""
    if page.executed is None:
        return
    size = page.notebook.stat().st_size
    if size >= MAX_BYTES:
        cells = {number: len(json.dumps(cell.outputs)) for number, cell in _executed_cells(page)}
        largest = max(cells, key=cells.get)
        yield f"{_nb(page)}: {size:,} bytes, the limit is {MAX_BYTES:,}; code cell {largest} has {cells[largest]:,}"


def no_absolute_paths(page: Page, book: Book) -> Iterator[str]:
    """No path of somebody's machine stands in the text or in an output."""
    yield from (f"{_md(page)}: absolute path {match.group()}" for match in _ABSOLUTE_PATH.finditer(page.text))
    for number, text in _output_texts(page):
        if match := _ABSOLUTE_PATH.search(text):
            yield f"{_cell(page, number)} shows the absolute path {match.group()}"


def no_registry_hosts(page: Page, book: Book) -> Iterator[str]:
    """No page names the host of a package registry; people install from requirements.txt."""
    yield from (f"{_md(page)}: names the package registry {match.group()}" for match in _REGISTRY.finditer(page.text))
    for number, text in _output_texts(page):
        if match := _REGISTRY.search(text):
            yield f"{_cell(page, number)} shows the package registry {match.group()}"


def no_semicolons(page: Page, book: Book) -> Iterator[str]:
    """No cell ends in a semicolon: it silences the output in Jupyter but not in nbval."""
    for number, cell in enumerate(code_cells(page.written), 1):
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if lines and _SEMICOLON.search(lines[-1]):
            yield f"{_cell(page, number)} ends in a semicolon; write `_ = ...`: {lines[-1].strip()}"


def few_ignored_outputs(page: Page, book: Book) -> Iterator[str]:
    """Only figures and few other cells keep their output from being compared, by a tag and never by a comment."""
    ignored = [number for number, cell in enumerate(code_cells(page.written), 1) if "nbval-ignore-output" in tags(cell)]
    figures = {number for number, cell in _executed_cells(page) if any(map(_is_figure, displayed(cell)))}
    drawn, others = [n for n in ignored if n in figures], [n for n in ignored if n not in figures]
    for what, found, limit in (("figures", drawn, MAX_IGNORED_FIGURES), ("cells", others, MAX_IGNORED_OUTPUTS)):
        if len(found) > limit:
            yield f"{_md(page)}: code cells {found} have the tag nbval-ignore-output; of {what} only {limit} may"
    for number, cell in enumerate(code_cells(page.written), 1):
        if "nbval-skip" in tags(cell) or "skip-execution" in tags(cell):
            yield f"{_cell(page, number)} is skipped by a tag; every cell runs"
        if match := _COMMENT_TAG.search(cell.source):
            yield f"{_cell(page, number)}: comment {match.group(1)}, which readers would see; use a tag"


def numbers_have_a_source(page: Page, book: Book) -> Iterator[str]:
    """A number beside a word such as accuracy, ratio or times, in a caption or formula, is glued, claimed or known."""
    if page.name in CHAPTERS:
        for number, sentence in unsupported_numbers(page):
            yield (
                f"{_md(page)}: the number {number} stands in the text alone; glue it from the run, or refer to "
                f"its claim or equation in the same sentence: {sentence[:120]}"
            )


def worked_arithmetic_holds(page: Page, book: Book) -> Iterator[str]:
    """What a formula says about numbers alone is true, to the digits that it gives."""
    for statement in worked_statements(page):
        if not statement.holds:
            yield f"{_md(page)}: this does not hold: {statement.text}"


def no_glue_in_maths(page: Page, book: Book) -> Iterator[str]:
    """No number is glued inside a formula, where it would be shown as the name of its key."""
    for cell in page.written.cells:
        if cell.cell_type == "markdown":
            for match in _FORMULA.finditer(cell.source):
                if "{glue:" in match.group():
                    where = match.group()[:80]
                    yield f"{_md(page)}: glue inside a formula is not replaced; end the formula before it: {where}"


# ---------------------------------------------------------------------- references and contents


def citations_exist(page: Page, book: Book) -> Iterator[str]:
    """Every cited key is in references.bib."""
    entries = _bibliography(book)
    for key in _citations(page):
        if key not in entries:
            yield f"{_md(page)}: cites {key!r}, which chapters/references.bib does not hold"


def references_are_cited(book: Book) -> Iterator[str]:
    """references.bib can be read, defines each key once, and every entry is cited by some page."""
    try:
        entries = _bibliography(book)
    except PybtexError as error:
        yield f"chapters/references.bib: {error}"
        return
    cited = {key for page in book.pages for key in _citations(page)}
    yield from (f"chapters/references.bib: no page cites {key!r}" for key in entries if key not in cited)


def contents_are_complete(book: Book) -> Iterator[str]:
    """_toc.yml lists every notebook of the folder chapters, once, and nothing else."""
    path = book.root / "_toc.yml"
    if not path.exists():
        yield "_toc.yml: missing"
        return
    listed = Counter(toc_files(yaml.safe_load(path.read_text(encoding="utf-8"))))
    pages = {f"chapters/{page.name}" for page in book.pages}
    yield from (f"_toc.yml: lists {name} {count} times" for name, count in listed.items() if count > 1)
    yield from (f"_toc.yml: does not list {name}" for name in sorted(pages - {*listed}))
    yield from (f"_toc.yml: lists {name}, but no page has that name" for name in sorted({*listed} - pages))


def toc_files(node: Any) -> Iterator[str]:
    """Yield every file that a table of contents names, without its extension."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("root", "file"):
                yield str(value).removesuffix(".ipynb")
            else:
                yield from toc_files(value)
    elif isinstance(node, list):
        for item in node:
            yield from toc_files(item)


def _citations(page: Page) -> list[str]:
    prose = "\n".join(cell.source for cell in page.written.cells if cell.cell_type == "markdown")
    return [key.strip() for match in _CITATION.finditer(prose) for key in match.group(1).split(",")]


def _bibliography(book: Book) -> list[str]:
    """Return the keys of references.bib; a key that is there twice raises."""
    path = book.chapters / "references.bib"
    if not path.exists():
        return []
    return list(parse_string(path.read_text(encoding="utf-8"), "bibtex").entries)


# ---------------------------------------------------------------------- words and small helpers


def _md(page: Page) -> str:
    return f"chapters/{page.name}.md"


def _nb(page: Page) -> str:
    return f"chapters/{page.name}.ipynb"


def _cell(page: Page, number: int) -> str:
    return f"{_md(page)}: code cell {number}"


def _first_line(cell: Any) -> str:
    return next(iter(cell.source.strip().splitlines()), "(empty)")[:80]


def _sources(notebook: Any) -> list[str]:
    return [cell.source for cell in code_cells(notebook)]


def _executed_cells(page: Page) -> Iterator[tuple[int, Any]]:
    if page.executed is not None:
        yield from enumerate(code_cells(page.executed), 1)


def _output_texts(page: Page) -> Iterator[tuple[int, str]]:
    """Yield every text that a code cell put out; pictures made of bytes hold no text."""
    for number, cell in _executed_cells(page):
        for output in cell.outputs:
            yield number, str(output.get("text", "")) + "\n".join(output.get("traceback", []))
        for data in displayed(cell):
            for mime, value in data.items():
                if mime not in ("image/png", "image/jpeg"):
                    yield number, value if isinstance(value, str) else json.dumps(value)


def _is_figure(data: dict[str, Any]) -> bool:
    return "image/png" in data or "image/svg+xml" in data


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


PAGE_RULES: tuple[PageRule, ...] = (
    is_known,
    pair_in_sync,
    executed_in_order,
    stamp_current,
    no_error_outputs,
    labels_are_claimed,
    figures_are_described,
    run_time_is_stated,
    small_enough,
    no_absolute_paths,
    no_registry_hosts,
    no_semicolons,
    few_ignored_outputs,
    numbers_have_a_source,
    worked_arithmetic_holds,
    no_glue_in_maths,
    citations_exist,
)
BOOK_RULES: tuple[BookRule, ...] = (labels_are_unique, references_are_cited, contents_are_complete)
