"""The pages of the book: a MyST text that people edit, and beside it the same notebook with its outputs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from book.catalogue import APPENDICES, PLANNED

SERVICE_PAGES = ("references", "ledger", "library", "notation", "terms", "errata", "intro")
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


class BookError(Exception):
    """Something that the person at the keyboard can put right; the message says how."""


@dataclass(frozen=True)
class Page:
    """One page: ``source`` is the text, ``notebook`` the executed notebook beside it."""

    name: str
    chapters: Path

    @property
    def source(self) -> Path:
        return self.chapters / f"{self.name}.md"

    @property
    def notebook(self) -> Path:
        return self.chapters / f"{self.name}.ipynb"

    @cached_property
    def text(self) -> str:
        return self.source.read_text(encoding="utf-8")

    @cached_property
    def written(self) -> NotebookNode:
        """The notebook that the text describes, without outputs, with ids that follow from name and position."""
        try:
            notebook = jupytext.reads(self.text, fmt="md:myst")
        except Exception as error:
            raise BookError(f"chapters/{self.name}.md cannot be read as a MyST notebook: {error}") from error
        notebook.metadata = _canonical_metadata(notebook.metadata)
        notebook.nbformat, notebook.nbformat_minor = 4, 5
        for position, cell in enumerate(notebook.cells):
            cell.id = f"{self.name}-{position:03d}"
        return notebook

    @cached_property
    def executed(self) -> NotebookNode | None:
        """The stored notebook with its outputs, or None where there is none yet."""
        if not self.notebook.exists():
            return None
        try:
            return nbformat.read(self.notebook, as_version=4)
        except Exception as error:
            raise BookError(f"chapters/{self.name}.ipynb is no notebook; delete it and `make run`: {error}") from error

    @property
    def settings(self) -> dict[str, Any]:
        """What the front matter says under ``explainers``: ``run_seconds``, ``minutes_to_read``, ``reads``."""
        return self.written.metadata.get("explainers", {})

    @property
    def reads(self) -> tuple[str, ...]:
        """What the page's code reads besides the library: ``ledgers``, ``gallery``, or files of the folder chapters."""
        return tuple(self.settings.get("reads", ()))

    @property
    def title(self) -> str:
        """The page's first heading."""
        prose = [cell.source for cell in self.written.cells if cell.cell_type == "markdown"]
        heading = re.search(r"^# (.+)$", "\n".join(prose), re.MULTILINE)
        return heading.group(1).strip() if heading else self.name


@dataclass(frozen=True)
class Book:
    """The project in the folder ``root``."""

    root: Path

    @property
    def chapters(self) -> Path:
        return self.root / "chapters"

    @property
    def library(self) -> Path:
        return self.root / "lib"

    @cached_property
    def pages(self) -> list[Page]:
        """Every page in the order of execution: chapters first, then the pages that read what chapters produced."""
        order = [chapter.name for chapter in PLANNED] + [*APPENDICES, *SERVICE_PAGES]
        names = sorted(path.stem for path in self.chapters.glob("*.md"))
        known = [Page(name, self.chapters) for name in order if name in names]
        others = [Page(name, self.chapters) for name in names if name not in order]
        return sorted(known + others, key=lambda page: bool(page.reads))

    def page(self, name: str) -> Page:
        """Return the page of that name, which may be given as a path too."""
        found = next((page for page in self.pages if page.name == Path(name).stem), None)
        if found is None:
            raise BookError(f"no page {name!r}; there are: {', '.join(page.name for page in self.pages) or 'none'}")
        return found


def find_book(start: Path | None = None) -> Book:
    """Return the book that the working directory, or the folder ``start``, lies in."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "chapters").is_dir() and (folder / "lib").is_dir():
            return Book(folder)
    raise BookError("this is not a folder of the book: neither it nor one above it holds chapters/ and lib/")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells in order; the first is called code cell 1 in messages."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def parse_code(source: str) -> ast.Module:
    """Parse a cell's code, magics included; what does not parse counts as empty, and says why when it is run."""
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def displayed(cell: NotebookNode) -> Iterator[dict[str, Any]]:
    """Yield the MIME bundle of each displayed output of a code cell."""
    for output in cell.get("outputs", []):
        if "data" in output:
            yield output["data"]


def _canonical_metadata(metadata: NotebookNode) -> NotebookNode:
    """Keep what people wrote, and say the rest the same way on every machine."""
    explainers = {key: value for key, value in metadata.get("explainers", {}).items() if key != "stamp"}
    jupytext_keys = ("formats", "notebook_metadata_filter", "cell_metadata_filter")
    pairing = {key: value for key, value in metadata.get("jupytext", {}).items() if key in jupytext_keys}
    kept = {key: value for key, value in metadata.items() if key not in ("explainers", "jupytext", "language_info")}
    kept = {"kernelspec": KERNELSPEC, **kept, "language_info": LANGUAGE_INFO}
    if pairing:
        kept["jupytext"] = pairing
    if explainers:
        kept["explainers"] = explainers
    return nbformat.from_dict(kept)
