"""``python -m book validate``: re-run every notebook with nbval and compare every output with the stored one.

This is ``pytest --nbval`` with the project's options, and a guard around it: it counts, so that a run that collected
nothing, or compared nothing, is not taken for a success.
"""

from __future__ import annotations

import os

import pytest

from book.doctor import SANITIZE
from book.execute import CELL_SECONDS, THREADS
from book.pages import Book, BookError, Page, code_cells


class PassedCells:
    """A pytest plugin that collects the names of the cells that passed."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.names.add(report.nodeid)


def validate(book: Book, names: list[str], workers: int = 2) -> int:
    """Run nbval over the named pages, or all; return the exit status."""
    pages = [book.page(name) for name in names] or book.pages
    if missing := [page.name for page in pages if page.executed is None]:
        raise BookError(f"no notebook for {', '.join(missing)}; `make run` writes it")
    expected = sum(count_code_cells(page) for page in pages)
    os.environ.update(THREADS)
    passed = PassedCells()
    status = pytest.main(arguments(book, pages, workers), plugins=[passed])
    if status == 0 and len(passed.names) != expected:
        print(f"nbval ran {len(passed.names)} code cells; the notebooks hold {expected}")
        return 1
    if status == 0:
        print(f"every output of {expected} code cells in {len(pages)} notebooks is as stored")
    return int(status)


def arguments(book: Book, pages: list[Page], workers: int) -> list[str]:
    """Return the arguments of pytest. A worker takes a whole notebook, because cells need those before them."""
    return [
        "--nbval",
        "--nbval-current-env",
        f"--nbval-sanitize-with={book.root / SANITIZE}",
        f"--nbval-cell-timeout={CELL_SECONDS}",
        "--quiet",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        *(["-n", str(min(workers, len(pages))), "--dist", "loadfile"] if workers > 1 and len(pages) > 1 else []),
        f"--rootdir={book.root}",
        *(str(page.notebook) for page in pages),
    ]


def count_code_cells(page: Page) -> int:
    """Return the number of cells that nbval is to run."""
    return len(code_cells(page.executed))
