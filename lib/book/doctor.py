"""``python -m book doctor CHAPTER``: run a chapter on this machine and say what differs from the stored outputs."""

from __future__ import annotations

import difflib
import json
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from book.execute import RunFailed, execute
from book.pages import Book, BookError, Page, code_cells, tags

SANITIZE = Path("lib", "tests", "nbval_sanitize.cfg")
MAX_SHOWN = 12
_NOT_COMPARED = ("image/png", "image/jpeg")


def doctor(book: Book, name: str) -> int:
    """Print on one screen how a run here differs from what is stored; return the number of cells that differ."""
    page = book.page(name)
    if page.executed is None:
        raise BookError(f"chapters/{page.name}.ipynb does not exist; `make run CHAPTER={page.name}` writes it")
    patterns = sanitize_patterns(book.root / SANITIZE)
    print(f"running chapters/{page.name}.md in a temporary copy ...", flush=True)
    start = time.perf_counter()
    here, failure = _run_in_copy(page)
    differences = compare(page.executed, here, patterns)
    print(f"{len(code_cells(here))} code cells, {time.perf_counter() - start:.1f} s on this machine")
    for number, what in differences[:MAX_SHOWN]:
        print(f"\n  code cell {number}: {what}")
    if len(differences) > MAX_SHOWN:
        print(f"\n  ... and {len(differences) - MAX_SHOWN} cells more")
    if failure:
        print(f"\n{failure}")
    print(f"\n{_verdict(page, len(differences), failure)}")
    return max(len(differences), int(failure is not None))


def compare(stored: NotebookNode, here: NotebookNode, patterns: list[tuple[str, str]]) -> list[tuple[int, str]]:
    """Return the code cells whose outputs differ after sanitising, each with words for the first difference."""
    old_cells, new_cells = code_cells(stored), code_cells(here)
    if [cell.source for cell in old_cells] != [cell.source for cell in new_cells]:
        return [(0, "the text's code is not that of the stored notebook; `make run` first")]
    found = []
    for number, (old, new) in enumerate(zip(old_cells, new_cells), 1):
        if "nbval-ignore-output" not in tags(old):
            what = _first_difference(output_texts(old, patterns), output_texts(new, patterns))
            if what:
                found.append((number, what))
    return found


def sanitize_patterns(path: Path) -> list[tuple[str, str]]:
    """Return the pairs of regular expression and replacement of an nbval sanitise file."""
    return re.findall(r"^regex: (.*)\nreplace: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)


def output_texts(cell: NotebookNode, patterns: list[tuple[str, str]]) -> dict[str, str]:
    """Return what nbval compares of a code cell: one sanitised text per kind of output."""
    texts: dict[str, str] = {}
    for output in cell.outputs:
        for kind, value in _parts(output):
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, indent=1)
            for pattern, replacement in patterns:
                text = re.sub(pattern, replacement, text)
            texts[kind] = texts.get(kind, "") + text
    return texts


def _parts(output: NotebookNode) -> list[tuple[str, Any]]:
    if output.output_type == "stream":
        return [(output.name, output.text)]
    if output.output_type == "error":
        return [("error", f"{output.ename}: {output.evalue}")]
    return [(kind, value) for kind, value in output.data.items() if kind not in _NOT_COMPARED]


def _first_difference(old: dict[str, str], new: dict[str, str]) -> str | None:
    for kind in sorted({*old, *new}):
        before, after = old.get(kind), new.get(kind)
        if before is None or after is None:
            return f"{kind}: {'only here' if before is None else 'only in the stored notebook'}"
        if before != after:
            lines = difflib.ndiff(before.splitlines(), after.splitlines())
            shown = [line for line in lines if line[0] in "-+"]
            pair = [next((line for line in shown if line[0] == sign), f"{sign} (nothing)") for sign in "-+"]
            return f"{kind}\n    stored {_short(pair[0])}\n    here   {_short(pair[1])}"
    return None


def _short(line: str, limit: int = 150) -> str:
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _run_in_copy(page: Page) -> tuple[NotebookNode, str | None]:
    """Run the page in a copy of the folder chapters; return the notebook as far as it got, and the failure if any."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "chapters")
        shutil.copytree(page.chapters, copy, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
        try:
            return execute(page.written, copy, page.name), None
        except RunFailed as error:
            return error.notebook, str(error)


def _verdict(page: Page, differing: int, failure: str | None) -> str:
    if failure and "ClaimFailed" in failure:
        return f"{page.name}: A CLAIM BROKE on this machine."
    if failure:
        return f"{page.name}: the run FAILED before its end."
    if differing:
        return f"{page.name}: every claim holds; {differing} outputs differ from the stored ones."
    return f"{page.name}: every claim holds, and every compared output is the stored one."
