"""That nbval, with the project's options, sees what it must see: planted errors in stored outputs fail."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from book.pages import Book, code_cells
from book.rules import executed_in_order
from book.validate import arguments, validate

Edit = Callable[[list[nbformat.NotebookNode]], None]


def wrong_text(cells):
    cells[0].outputs[0].data["text/plain"] = cells[0].outputs[0].data["text/plain"].replace("2 = 2", "2 = 3")


def wrong_figure(cells):
    svg = cells[1].outputs[0].data["image/svg+xml"]
    cells[1].outputs[0].data["image/svg+xml"] = svg.replace("L ", "L 1", 1)


def wrong_claim(cells):
    cells[3].outputs[0].data["application/vnd.explainers.ledger+json"]["counterfeits"] = 7


def another_machine(cells):
    """Change what stands after the word "measured", in a printed line, a claim and the table of claims."""
    for output in cells[2].outputs + cells[3].outputs:
        texts = output if output.output_type == "stream" else output.data
        for kind in ("text", "text/plain", "text/html"):
            if kind in texts:
                texts[kind] = texts[kind].replace("measured 0.125", "measured 0.126").replace("mean 3,", "mean 3.001,")


def no_counts(cells):
    for cell in cells:
        cell.execution_count, cell.outputs = None, []


PLANTED: dict[str, Edit] = {
    "as_stored": lambda cells: None,
    "another_machine": another_machine,
    "wrong_text": wrong_text,
    "wrong_figure": wrong_figure,
    "wrong_claim": wrong_claim,
    "no_counts": no_counts,
}


@pytest.fixture(scope="module")
def verdicts(executed_tiny_book: Path, tmp_path_factory) -> dict[str, list[bool]]:
    """Run nbval once over copies of the tiny chapter, each with one planted error; return which cells passed."""
    folder = tmp_path_factory.mktemp("nbval")
    chapter = Book(executed_tiny_book).page("mitchell")
    (folder / "mitchell.md").write_text(chapter.text, encoding="utf-8")  # where the ledger looks up labels
    for name, plant in PLANTED.items():
        notebook = nbformat.read(chapter.notebook, as_version=4)
        plant(code_cells(notebook))
        nbformat.write(notebook, folder / f"{name}.ipynb")
    options = arguments(Book(executed_tiny_book), [], workers=1)
    command = [sys.executable, "-m", "pytest", *options, "--junitxml=report.xml", "."]
    subprocess.run(command, cwd=folder, capture_output=True, check=False)
    found: dict[str, list[bool]] = {name: [] for name in PLANTED}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        name = next(name for name in PLANTED if name in case.get("classname"))
        found[name].append(case.find("failure") is None and case.find("error") is None)
    return found


def test_nbval_passes_what_is_stored(verdicts):
    assert verdicts["as_stored"] == [True] * 4


def test_nbval_passes_what_only_another_machine_measures(verdicts):
    assert verdicts["another_machine"] == [True] * 4


@pytest.mark.parametrize(("planted", "cell"), [("wrong_text", 0), ("wrong_figure", 1), ("wrong_claim", 3)])
def test_nbval_fails_the_planted_cell(planted, cell, verdicts):
    assert verdicts[planted] == [number != cell for number in range(4)]


def test_notebook_without_counts_passes_nbval_and_fails_the_rule(verdicts, tiny):
    assert verdicts["no_counts"] == [True] * 4  # this is why the rule exists
    page = Book(tiny).page("mitchell")
    no_counts(code_cells(page.executed))
    assert len([*executed_in_order(page, Book(tiny))]) == 1


def test_validate_counts_the_cells(tiny, monkeypatch, capsys):
    monkeypatch.setattr("book.validate.count_code_cells", lambda page: 5)
    assert validate(Book(tiny), ["mitchell"], workers=1) == 1
    assert "nbval ran 4 code cells; the notebooks hold 5" in capsys.readouterr().out


def test_validate_runs_only_what_changed_since_it_passed(tiny, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr("book.validate._run", lambda book, pages, workers: ran.append([p.name for p in pages]) or 0)
    assert validate(Book(tiny), []) == 0
    assert validate(Book(tiny), []) == 0
    assert ran == [["mitchell", "ledger"]]
    assert "unchanged since they passed here: mitchell, ledger" in capsys.readouterr().out
    (tiny / "lib/explainers/shared.py").write_text("constant = 3\n")
    assert validate(Book(tiny), []) == 0
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert validate(Book(tiny), []) == 0
    assert validate(Book(tiny), ["ledger"], force=True) == 0
    assert ran[1:] == [["mitchell"], ["mitchell", "ledger"], ["ledger"]]


def test_validate_does_not_remember_a_failure(tiny, monkeypatch):
    monkeypatch.setattr("book.validate._run", lambda book, pages, workers: 1)
    assert validate(Book(tiny), []) == 1
    monkeypatch.setattr("book.validate._run", lambda book, pages, workers: 0)
    assert validate(Book(tiny), []) == 0
    assert not (tiny / "_build/validated.json").read_text().startswith("{}")
