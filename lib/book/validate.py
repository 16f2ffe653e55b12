"""``python -m book validate``: re-run every notebook with nbval and compare every output with the stored one.

This is ``pytest --nbval`` with the project's options, and a guard around it: it counts, so that a run that collected
nothing, or compared nothing, is not taken for a success.  A notebook that passed here is not run again until it, or
anything that its outputs depend on, changes; a fresh checkout, as in continuous integration, runs them all.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path

import pytest

from book.doctor import SANITIZE
from book.execute import CELL_SECONDS, THREADS
from book.pages import Book, BookError, Page, code_cells
from book.stamp import stamp

PASSED = Path("_build", "validated.json")
# Whoever sets one of these wants to see how a page does on another kind of machine.
MACHINE = ("ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "PYTHONHASHSEED")


class PassedCells:
    """A pytest plugin that collects the names of the cells that passed."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.names.add(report.nodeid)


def validate(book: Book, names: list[str], workers: int = 2, force: bool = False) -> int:
    """Run nbval over the named pages, or all; return the exit status."""
    pages = [book.page(name) for name in names] or book.pages
    if missing := [page.name for page in pages if page.executed is None]:
        raise BookError(f"no notebook for {', '.join(missing)}; `make run` writes it")
    memory = book.root / PASSED
    passed_before = json.loads(memory.read_text(encoding="utf-8")) if memory.exists() and not force else {}
    digests = {page.name: _digest(page, book) for page in pages}
    todo = [page for page in pages if passed_before.get(page.name) != digests[page.name]]
    if unchanged := [page.name for page in pages if page not in todo]:
        print(f"unchanged since they passed here: {', '.join(unchanged)} (`python -m book validate --force` runs all)")
    status = _run(book, todo, workers) if todo else 0
    if status == 0:
        memory.parent.mkdir(exist_ok=True)
        memory.write_text(json.dumps({**passed_before, **digests}, indent=1, sort_keys=True), encoding="utf-8")
    return status


def _run(book: Book, pages: list[Page], workers: int) -> int:
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


def _digest(page: Page, book: Book) -> str:
    """Return a hash over what the verdict on a page depends on."""
    words = [stamp(page, book), platform.python_version(), *(os.environ.get(name, "") for name in MACHINE)]
    parts = [page.notebook.read_bytes(), (book.root / SANITIZE).read_bytes(), repr(words).encode()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


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
