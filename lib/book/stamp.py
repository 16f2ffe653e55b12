"""The stamp of a page: a hash over everything that its outputs depend on."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

from book.gallery import cards
from book.ledger import collect
from book.pages import Book, BookError, Page, code_cells, parse_code, tags

PACKAGES = ("explainers", "book")
# Of all tags only these change what a run does; the others change what a reader sees.
EXECUTION_TAGS = ("raises-exception", "skip-execution")


def stamp(page: Page, book: Book) -> str:
    """Return the stamp that the page's outputs have if they are current."""
    return hashlib.sha256(json.dumps(ingredients(page, book), sort_keys=True).encode()).hexdigest()


def stored_stamp(notebook: NotebookNode | None) -> str | None:
    """Return the stamp that a notebook was written with."""
    return None if notebook is None else notebook.metadata.get("explainers", {}).get("stamp")


def ingredients(page: Page, book: Book) -> dict[str, object]:
    """Return what the stamp is made of, by name: the code, the library, its assets, the requirements, the data."""
    cells = code_cells(page.written)
    modules = imported_modules([cell.source for cell in cells], book.library)
    assets = sorted((book.library / "explainers" / "assets").glob(f"{page.name}_*"))
    requirements = book.root / "requirements.txt"
    return {
        "cells": [[cell.source, [tag for tag in tags(cell) if tag in EXECUTION_TAGS]] for cell in cells],
        "library": {path.relative_to(book.library).as_posix(): _digest(path) for path in [*modules, *assets]},
        "requirements": _requirements(requirements.read_text(encoding="utf-8")) if requirements.exists() else [],
        "reads": {name: _data(name, page, book) for name in page.reads},
    }


def imported_modules(sources: Iterable[str], library: Path) -> list[Path]:
    """Return the files of the book's own modules that the sources import, directly or through one another.

    The imports are found by reading, wherever they stand, in functions too; nothing is run.
    """
    found: set[Path] = set()
    todo = [path for source in sources for path in _imports(parse_code(source), library)]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _imports(ast.parse(path.read_text(encoding="utf-8")), library, path)
    return sorted(found)


def _imports(tree: ast.Module, library: Path, importer: Path | None = None) -> list[Path]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, library, importer)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [path for name in names if name.split(".")[0] in PACKAGES for path in _module_files(name, library)]


def _absolute(node: ast.ImportFrom, library: Path, importer: Path | None) -> str:
    """Return the full name of the module in ``from module import ...``."""
    if not node.level or importer is None:
        return node.module or ""
    package = importer.relative_to(library).parts[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _module_files(name: str, library: Path) -> list[Path]:
    """Return the files that ``import name`` runs: the packages on the way, and the module."""
    parts = name.split(".")
    files = [library.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    files.append(library.joinpath(*parts).with_suffix(".py"))
    return [path for path in files if path.is_file()]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _requirements(text: str) -> list[str]:
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    return sorted(line for line in lines if line and not line.startswith("#"))


def _data(name: str, page: Page, book: Book) -> object:
    """Return what stands for one entry of ``reads`` in the stamp."""
    if name == "ledgers":
        return collect(book.chapters)
    if name == "gallery":
        return hashlib.sha256(repr(cards(book.chapters)).encode()).hexdigest()
    path = book.chapters / name
    if not path.is_file():
        raise BookError(f"chapters/{page.name}.md reads {name!r}: neither 'ledgers', 'gallery' nor a file in chapters/")
    return _digest(path)
