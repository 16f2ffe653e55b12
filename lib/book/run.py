"""``python -m book run``: bring every notebook up to date with its text, running only what a change reaches."""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from book.execute import RunFailed, execute
from book.pages import Book, BookError, Page, code_cells
from book.stamp import stamp, stored_stamp


def run(book: Book, names: list[str], force: bool = False) -> int:
    """Refresh the named pages, or all, and print a line for each; return the number that failed."""
    if not book.pages:
        raise BookError("chapters/ holds no page yet")
    chosen = {book.page(name).name for name in names}
    failed = 0
    for page in book.pages:
        if chosen and page.name not in chosen:
            continue
        try:
            refresh(page, book, force)
        except RunFailed as error:
            failed += 1
            print(f"{page.name:14} FAILED, the notebook stays as it was\n\n{error}\n", flush=True)
    # A fresh look: what ran just now may have changed what other pages read.
    left = [page.name for page in Book(book.root).pages if needs_run(page, book)]
    if left and not failed:
        print(f"still out of date: {', '.join(left)} (`make run` refreshes all)", flush=True)
    return failed


def refresh(page: Page, book: Book, force: bool = False) -> None:
    """Write the page's notebook if it is not what its text and its stamp ask for."""
    mark = stamp(page, book)
    ran = force or needs_run(page, book)
    if not ran:
        notebook = with_outputs(page.written, page.executed)
        verb = "text refreshed, outputs kept"
    else:
        cells = len(code_cells(page.written))
        print(f"{page.name:14} running {cells} code cells ...", flush=True)
        start = time.perf_counter()
        executed = execute(page.written, page.chapters, page.name)
        # Only the outputs are taken over: a run also leaves behind the Python version and times.
        notebook = with_outputs(page.written, executed)
        stated = page.settings.get("run_seconds")
        said = f" (the page says {stated:g} s)" if isinstance(stated, (int, float)) else ""
        verb = f"ran in {time.perf_counter() - start:.1f} s{said}"
    notebook.metadata.setdefault("explainers", nbformat.NotebookNode())["stamp"] = mark
    changed = write(notebook, page.notebook)
    print(f"{page.name:14} {verb if changed or ran else 'up to date'}", flush=True)


def needs_run(page: Page, book: Book) -> bool:
    """Return whether the stored outputs can be other than what a run would give."""
    stored = page.executed
    return (
        stored is None
        or stored_stamp(stored) != stamp(page, book)
        or [cell.source for cell in code_cells(stored)] != [cell.source for cell in code_cells(page.written)]
        or [cell.execution_count for cell in code_cells(stored)] != list(range(1, len(code_cells(stored)) + 1))
    )


def with_outputs(written: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """Return the written notebook with the outputs of the executed one, whose code cells are the same."""
    notebook = copy.deepcopy(written)
    for new, old in zip(code_cells(notebook), code_cells(executed), strict=True):
        new.outputs, new.execution_count = copy.deepcopy(old.outputs), old.execution_count
    return notebook


def write(notebook: NotebookNode, path: Path) -> bool:
    """Write a notebook, whole or not at all; return whether that changed the file."""
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    draft = path.with_suffix(".ipynb.part")
    draft.write_text(text, encoding="utf-8", newline="\n")
    os.replace(draft, path)
    return True
