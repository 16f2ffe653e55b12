"""The tools of the book, on a tiny book that each test breaks in its own way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from book.__main__ import main
from book.catalogue import PLANNED, to_come
from book.doctor import compare, doctor, sanitize_patterns
from book.ledger import BookLedger, Record, collect, records
from book.pages import Book, BookError, code_cells, find_book
from book.rules import BOOK_RULES, PAGE_RULES, check
from book.run import run
from book.site import configure, finish, frame_figures, loaded_elsewhere, mend, offer_text, write_config
from book.stamp import imported_modules, stamp

Change = Callable[[Path], None]
CELL = "```{code-cell} ipython3"


def change(root: Path, name: str, old: str, new: str) -> None:
    """Replace the one place in a file where ``old`` stands."""
    text = (root / name).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
    (root / name).write_text(text.replace(old, new), encoding="utf-8")


def change_notebook(root: Path, edit: Callable[[nbformat.NotebookNode], None]) -> None:
    """Edit the stored notebook of the chapter behind the tools' back."""
    path = root / "chapters/mitchell.ipynb"
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    nbformat.write(notebook, path)


def chapter(root: Path):
    return Book(root).page("mitchell")


# ---------------------------------------------------------------------- catalogue


def test_catalogue_plans_eight_chapters():
    assert [chapter.name for chapter in PLANNED] == [
        "flooding", "imbalance", "mitchell", "realformer", "matching", "summarization", "sampling", "bioword",
    ]  # fmt: skip
    assert len({chapter.article for chapter in PLANNED}) == 8


def test_chapters_without_a_page_are_to_come(tiny):
    assert "mitchell" not in {chapter.name for chapter in to_come(tiny / "chapters")}
    assert len(to_come(tiny / "chapters")) == 7


# ---------------------------------------------------------------------- stamp


def stamps(root: Path) -> tuple[str, str]:
    book = Book(root)
    return stamp(book.page("mitchell"), book), stamp(book.page("ledger"), book)


REACHES_CHAPTER = {
    "code": ("chapters/mitchell.md", "print(", "print(1, "),
    "execution tag": ("chapters/mitchell.md", "[hide-input]", "[hide-input, raises-exception]"),
    "imported module": ("lib/explainers/plots.py", "", "x = 1"),
    "module imported by a module, in a function": ("lib/explainers/shared.py", "= 2", "= 3"),
    "package": ("lib/explainers/__init__.py", "", "x = 1"),
    "asset": ("lib/explainers/assets/mitchell_adder.html", "one", "1"),
    "requirements": ("requirements.txt", "2.4.6", "2.4.7"),
}
REACHES_NOTHING = {
    "prose": ("chapters/mitchell.md", "A figure and a value.", "Something else."),
    "caption": ("chapters/mitchell.md", "caption: A line.", "caption: One line."),
    "tag for readers": ("chapters/mitchell.md", "[hide-input]", "[hide-cell]"),
    "another chapter's module": ("lib/explainers/flooding.py", "", "x = 1"),
    "another chapter's asset": ("lib/explainers/assets/flooding_plot.html", "two", "2"),
    "comment in the requirements": ("requirements.txt", "numpy", "# arrays\nnumpy"),
}


@pytest.mark.parametrize("edit", REACHES_CHAPTER.values(), ids=REACHES_CHAPTER)
def test_stamp_changes_with(edit, tiny):
    before = stamps(tiny)[0]
    name, old, new = edit
    (tiny / name).write_text(new) if not old else change(tiny, name, old, new)
    assert stamps(tiny)[0] != before


@pytest.mark.parametrize("edit", REACHES_NOTHING.values(), ids=REACHES_NOTHING)
def test_stamp_stays_with(edit, tiny):
    before = stamps(tiny)
    name, old, new = edit
    (tiny / name).write_text(new) if not old else change(tiny, name, old, new)
    assert stamps(tiny) == before


def test_stamp_of_a_page_that_reads_ledgers_changes_with_a_claim(tiny):
    before = stamps(tiny)
    text = (tiny / "chapters/mitchell.ipynb").read_text(encoding="utf-8")
    (tiny / "chapters/mitchell.ipynb").write_text(text.replace('"says": "2 = 2"', '"says": "4 = 4"'), encoding="utf-8")
    assert stamps(tiny)[0] == before[0]
    assert stamps(tiny)[1] != before[1]


def test_stamp_of_a_page_that_reads_a_file_changes_with_the_file(tiny):
    change(tiny, "chapters/ledger.md", "reads: [ledgers]", "reads: [references.bib]")
    before = stamps(tiny)[1]
    change(tiny, "chapters/references.bib", "A Book", "One Book")
    assert stamps(tiny)[1] != before
    change(tiny, "chapters/ledger.md", "reads: [references.bib]", "reads: [nothing.bib]")
    with pytest.raises(BookError, match=r"chapters/ledger.md reads 'nothing.bib'"):
        stamps(tiny)


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import explainers.shared", {"__init__", "shared"}),
        ("import numpy, explainers.shared as s", {"__init__", "shared"}),
        ("from explainers import plots as p", {"__init__", "plots"}),
        ("from explainers.mitchell import product", {"__init__", "mitchell", "shared"}),
        ("%matplotlib inline\n!ls\nimport explainers.plots", {"__init__", "plots"}),
        ("if True:\n    def f():\n        from explainers import verify", {"__init__", "verify"}),
        ("import numpy", set()),
        ("text = 'import explainers'", set()),
        ("this is no Python", set()),
    ],
)
def test_imports_are_found_by_reading(code, modules, tiny):
    assert {path.stem for path in imported_modules([code], tiny / "lib")} == modules


# ---------------------------------------------------------------------- run


@pytest.fixture
def no_kernel(monkeypatch):
    def refuse(*_):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr("book.run.execute", refuse)


def test_nothing_to_do_writes_nothing(tiny, no_kernel, capsys):
    before = {path: path.stat().st_mtime_ns for path in tiny.glob("chapters/*.ipynb")}
    assert run(Book(tiny), []) == 0
    assert {path: path.stat().st_mtime_ns for path in tiny.glob("chapters/*.ipynb")} == before
    assert capsys.readouterr().out.count("up to date") == 2


def test_prose_edit_is_paired_without_running_and_keeps_outputs(tiny, no_kernel):
    outputs = [cell.outputs for cell in code_cells(chapter(tiny).executed)]
    change(tiny, "chapters/mitchell.md", "A figure and a value.", "Changed prose.\n\n+++\n\nAnd a new cell.")
    change(tiny, "chapters/mitchell.md", "caption: A line.", "caption: Changed caption.")
    assert run(Book(tiny), []) == 0
    stored = chapter(tiny).executed
    assert "Changed prose." in nbformat.writes(stored)
    assert "Changed caption." in nbformat.writes(stored)
    assert [cell.outputs for cell in code_cells(stored)] == outputs
    assert all(any(cell.outputs) for cell in code_cells(stored))
    assert check(Book(tiny)) == []


def test_code_edit_runs_the_chapter_and_what_reads_it(tiny):
    change(tiny, "chapters/mitchell.md", 'says="the seeds agree"', 'says="all five agree"')
    assert run(Book(tiny), []) == 0
    assert "all five agree" in (tiny / "chapters/mitchell.ipynb").read_text(encoding="utf-8")
    assert "all five agree" in (tiny / "chapters/ledger.ipynb").read_text(encoding="utf-8")
    assert check(Book(tiny)) == []


def test_hand_edited_notebook_is_run_again(tiny, monkeypatch):
    change_notebook(tiny, lambda notebook: code_cells(notebook)[2].update(source="print('by hand')"))
    ran = []
    monkeypatch.setattr("book.run.execute", lambda notebook, folder, name: ran.append(name) or notebook)
    run(Book(tiny), [])
    assert ran[0] == "mitchell"


def test_two_runs_give_the_same_bytes(tiny):
    before = (tiny / "chapters/mitchell.ipynb").read_bytes()
    assert run(Book(tiny), ["mitchell"], force=True) == 0
    assert (tiny / "chapters/mitchell.ipynb").read_bytes() == before
    assert str(tiny).encode() not in before
    assert b"python3.1" not in before
    assert [cell.id for cell in chapter(tiny).executed.cells][:2] == ["mitchell-000", "mitchell-001"]


def test_failing_cell_is_named_and_the_notebook_kept(tiny, capsys):
    before = (tiny / "chapters/mitchell.ipynb").read_bytes()
    change(tiny, "chapters/mitchell.md", "1 + 1, 2, counterfeit=3", "1 + 1, 3, counterfeit=4")
    assert run(Book(tiny), []) == 1
    said = capsys.readouterr().out
    assert "chapters/mitchell.md: code cell 1 failed with ClaimFailed: eq-mitchell-sum" in said
    assert 'claims.proved("eq-mitchell-sum", 1 + 1, 3, counterfeit=4)' in said
    assert (tiny / "chapters/mitchell.ipynb").read_bytes() == before
    assert not [*tiny.glob("chapters/*.part")]


def test_dead_kernel_is_named(tiny, capsys):
    change(tiny, "chapters/mitchell.md", 'print("measured", 0.125)', "import os; os._exit(1)")
    assert run(Book(tiny), ["mitchell"]) == 1
    assert "chapters/mitchell.md: code cell 3: Kernel died" in capsys.readouterr().out


def test_stamp_in_the_text_is_ignored(tiny, no_kernel):
    change(tiny, "chapters/mitchell.md", "  run_seconds: 3\n", "  run_seconds: 3\n  stamp: from-an-editor\n")
    assert "stamp" not in chapter(tiny).settings
    assert check(Book(tiny)) == []


def test_unknown_page_is_refused(tiny, monkeypatch, capsys):
    monkeypatch.chdir(tiny / "chapters")
    assert main(["run", "mitchel"]) == 2
    assert "no page 'mitchel'; there are: mitchell, ledger" in capsys.readouterr().err


def test_folder_outside_a_book_is_refused(tmp_path):
    with pytest.raises(BookError, match="neither it nor one above it"):
        find_book(tmp_path)


# ---------------------------------------------------------------------- check


def test_every_rule_holds_of_the_tiny_book(tiny, monkeypatch, capsys):
    monkeypatch.chdir(tiny)
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "2 pages: every rule of the book holds\n"


def in_text(old: str, new: str) -> Change:
    return lambda root: change(root, "chapters/mitchell.md", old, new)


def in_output(cell: int, **output) -> Change:
    def edit(notebook):
        code_cells(notebook)[cell].outputs.append(nbformat.from_dict(output))

    return lambda root: change_notebook(root, edit)


def write_file(name: str, text: str) -> Change:
    return lambda root: (root / name).write_text(text, encoding="utf-8")


def many_ignored_figures(root: Path) -> None:
    cell = f"{CELL}\n:tags: [nbval-ignore-output]\nplots.figure('x')\n```\n"
    in_text(f"{CELL}\nclaims\n```\n", cell * 10)(root)
    change_notebook(root, lambda notebook: notebook.cells.extend([code_cells(notebook)[1]] * 10))


def recount(notebook):
    code_cells(notebook)[1].execution_count = None


def swap_svg(notebook):
    outputs = code_cells(notebook)[1].outputs
    outputs += [outputs[0]]


def drop_a_claim(notebook):
    ledger = code_cells(notebook)[3].outputs[0].data["application/vnd.explainers.ledger+json"]
    ledger["claims"] = ledger["claims"][:1]


# Each violation with the rule that must name it, and words that the message must hold.
VIOLATIONS = {
    "no notebook": (lambda root: (root / "chapters/mitchell.ipynb").unlink(), "pair_in_sync", "no notebook beside it"),
    "text changed": (
        in_text("A figure and a value.", "Changed."),
        "pair_in_sync",
        "cell 2 differs from the text in s",
    ),
    "tag changed": (in_text("[hide-input]", "[hide-cell]"), "pair_in_sync", "cell 1 differs from the text in metadata"),
    "cell added": (in_text("A figure and a value.", "One.\n\n+++\n\nTwo."), "pair_in_sync", "6 cells, the text has 7"),
    "front matter changed": (in_text("minutes_to_read: 2", "minutes_to_read: 3"), "pair_in_sync", "front matter"),
    "no execution count": (lambda root: change_notebook(root, recount), "executed_in_order", "code cell 2 has"),
    "another kernel": (
        lambda root: change_notebook(root, lambda notebook: notebook.metadata.kernelspec.update(name="conda-env")),
        "executed_in_order",
        "its kernel is 'conda-env'",
    ),
    "library changed": (write_file("lib/explainers/plots.py", "x = 1"), "stamp_current", "older than its code"),
    "error": (
        in_output(2, output_type="error", ename="ValueError", evalue="no", traceback=[]),
        "no_error_outputs",
        "code cell 3 shows an error: ValueError: no",
    ),
    "warning": (
        in_output(2, output_type="stream", name="stderr", text="UserWarning: careful"),
        "no_error_outputs",
        "code cell 3 writes to stderr: UserWarning",
    ),
    "label without claim": (
        in_text("(eq-mitchell-sum)\n", "(eq-mitchell-sum)\n\n$$ 2 $$ (eq-mitchell-two)\n"),
        "labels_are_claimed",
        "label eq-mitchell-two has no claim",
    ),
    "claim without label": (
        in_text("(obs-mitchell-line)=\n", ""),
        "labels_are_claimed",
        "claims obs-mitchell-line, which it does not define",
    ),
    "label of another chapter": (
        in_text("(eq-mitchell-sum)\n", "(eq-mitchell-sum)\n\n$$ 2 $$ (eq-flooding-two)\n"),
        "labels_are_claimed",
        "label eq-flooding-two must begin with eq-mitchell-",
    ),
    "claim that never ran": (
        lambda root: change_notebook(root, drop_a_claim),
        "labels_are_claimed",
        "code cell 3 claims obs-mitchell-line, but the executed ledger does not hold it",
    ),
    "ledger missing": (
        lambda root: change_notebook(root, lambda notebook: code_cells(notebook)[3].update(outputs=[])),
        "labels_are_claimed",
        "shows no ledger",
    ),
    "label twice": (
        in_text("(eq-mitchell-sum)\n", "(eq-mitchell-sum)\n\n$$ 2 $$ (eq-mitchell-sum)\n"),
        "labels_are_unique",
        "label eq-mitchell-sum is defined 2 times",
    ),
    "two figures in a cell": (lambda root: change_notebook(root, swap_svg), "figures_are_described", "shows 2 figures"),
    "no alternative text": (
        lambda root: change_notebook(root, lambda notebook: code_cells(notebook)[1].metadata.mystnb.pop("image")),
        "figures_are_described",
        "code cell 2: mystnb.image.alt has 0 characters",
    ),
    "no caption": (
        lambda root: change_notebook(root, lambda notebook: code_cells(notebook)[1].metadata.mystnb.pop("figure")),
        "figures_are_described",
        "code cell 2: its figure has no caption",
    ),
    "alternative text without its number": (
        lambda root: change_notebook(
            root,
            lambda notebook: code_cells(notebook)[1].metadata.mystnb.image.update(
                alt="A line up to {glue:text}`mitchell-top`, measured"
            ),
        ),
        "figures_are_described",
        "code cell 2: mystnb.image.alt quotes 'mitchell-top', which the page does not glue",
    ),
    "number in an alternative text": (
        in_text("alt: A straight line", "alt: A line up to 0.873"),
        "numbers_have_a_source",
        "the number 0.873 stands in the text alone",
    ),
    "image without words": (in_text("A figure and", "![](x.png) and"), "figures_are_described", "without alternative"),
    "run time not in the text": (in_text("3 seconds", "some seconds"), "run_time_is_stated", "says 3 seconds"),
    "run time not in the front matter": (in_text("  run_seconds: 3\n", ""), "run_time_is_stated", "needs `explainers"),
    "big notebook": (
        in_output(2, output_type="stream", name="stdout", text="x" * 2_000_000),
        "small_enough",
        "code cell 3 has 2,000",
    ),
    "path in the text": (in_text("A figure", "See /home/me/x. A figure"), "no_absolute_paths", "path /home/me/x"),
    "path in an output": (
        in_output(2, output_type="stream", name="stdout", text="saved to C:\\Users\\me"),
        "no_absolute_paths",
        "code cell 3 shows the absolute path C:\\Users",
    ),
    "registry": (in_text("A figure", "See https://pypi" + ".org/x. A figure"), "no_registry_hosts", "package registry"),
    "semicolon": (
        in_text("_ = ax.plot([0, 1])", "ax.plot([0, 1]);  # quiet"),
        "no_semicolons",
        "code cell 2 ends",
    ),
    "too many ignored": (
        in_text(f"{CELL}\nclaims\n```\n", f"{CELL}\n:tags: [nbval-ignore-output]\n1\n```\n" * 4),
        "few_ignored_outputs",
        "code cells [4, 5, 6, 7] have the tag nbval-ignore-output",
    ),
    "too many figures ignored": (many_ignored_figures, "few_ignored_outputs", "of figures only 8 may"),
    "ignored by a comment": (in_text("_ = ax", "# NBVAL_IGNORE_OUTPUT\n_ = ax"), "few_ignored_outputs", "NBVAL_IGNORE"),
    "skipped": (in_text("[hide-input]", "[nbval-skip]"), "few_ignored_outputs", "code cell 1 is skipped by a tag"),
    "number typed by hand": (
        in_text("A figure and a value.", "A figure and an accuracy of 0.873."),
        "numbers_have_a_source",
        "the number 0.873 stands in the text alone",
    ),
    "number in a caption": (
        in_text("caption: ", "caption: Of 977 points. "),
        "numbers_have_a_source",
        "the number 977 stands in the text alone",
    ),
    "number in a formula": (
        in_text("A figure and a value.", "So $x = 0.873$."),
        "numbers_have_a_source",
        "the number 0.873 stands in the text alone",
    ),
    "false arithmetic": (
        in_text("A figure and a value.", r"So $x = 9.75 - \frac12 = 9.4$."),
        "worked_arithmetic_holds",
        r"this does not hold: 9.75 - \frac12 = 9.4",
    ),
    "glue in a formula": (
        in_text("A figure and a value.", "From $x$ to $y$: $z = {glue:text}`mitchell-z`$."),
        "no_glue_in_maths",
        "glue inside a formula is not replaced; end the formula before it: $z = ",
    ),
    "unknown citation": (in_text("`someone2020`", "`nobody1999`"), "citations_exist", "cites 'nobody1999'"),
    "uncited reference": (in_text(" {cite}`someone2020`", ""), "references_are_cited", "no page cites 'someone2020'"),
    "reference twice": (
        write_file("chapters/references.bib", "@book{a, title = {A}}\n@book{a, title = {B}}\n"),
        "references_are_cited",
        "repeated bibliography entry: a",
    ),
    "contents without a page": (write_file("_toc.yml", "root: chapters/ledger\n"), "contents_are_complete", "not list"),
    "contents with a text": (
        write_file("_toc.yml", "root: chapters/ledger\nchapters:\n- file: chapters/mitchell.md\n"),
        "contents_are_complete",
        "lists chapters/mitchell.md, but no page",
    ),
    "no contents": (lambda root: (root / "_toc.yml").unlink(), "contents_are_complete", "missing"),
    "unknown page": (write_file("chapters/extra.md", "# Extra\n"), "is_known", "chapters/extra.md: unknown page"),
}


@pytest.mark.parametrize(("violate", "rule", "words"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_rule_rejects(violate, rule, words, tiny):
    violate(tiny)
    book = Book(tiny)
    found = [problem for r in PAGE_RULES if r.__name__ == rule for page in book.pages for problem in r(page, book)]
    found += [problem for r in BOOK_RULES if r.__name__ == rule for problem in r(book)]
    assert found
    assert any(words in problem for problem in found), found


def test_every_rule_has_a_violation():
    assert {rule for _, rule, _ in VIOLATIONS.values()} == {rule.__name__ for rule in (*PAGE_RULES, *BOOK_RULES)}


@pytest.mark.parametrize("text", ["https://example.org/work/x", "a/tmp/b", r"$A: \mathbb{R} \to B:\to$", "~/work/x"])
def test_what_only_looks_like_a_path_is_allowed(text, tiny):
    change(tiny, "chapters/mitchell.md", "A figure and", f"{text} and")
    book = Book(tiny)
    rule = next(rule for rule in PAGE_RULES if rule.__name__ == "no_absolute_paths")
    assert [*rule(book.page("mitchell"), book)] == []


# ---------------------------------------------------------------------- ledger


def test_ledger_collects_the_claims_of_executed_notebooks(tiny):
    assert [ledger["chapter"] for ledger in collect(tiny / "chapters")] == ["mitchell"]
    equation, experiment = records(tiny / "chapters")
    assert equation == Record("mitchell", "eq-mitchell-sum", None, "proved", "2 = 2", "3 (differs)")
    assert equation.address == "mitchell.html#equation-eq-mitchell-sum"
    assert experiment.address == "mitchell.html#obs-mitchell-line"


def test_ledger_shows_every_claim_and_escapes_it():
    claims = [
        Record("mitchell", "eq-mitchell-a", "first", "proved", "a < b", "a > b"),
        Record("flooding", "obs-flooding-b", None, "experiment", "effect", None),
    ]
    ledger = BookLedger(claims)
    assert ledger.counts() == {"proved": 1, "exhaustive": 0, "numeric": 0, "statistical": 0, "experiment": 1}
    assert ledger.summary() == "2 claims in 2 pages (1 proved, 1 experiment); 1 counterfeit caught."
    page = ledger._repr_html_()
    assert page.count('<table class="claims-table">') == 2
    assert '<a class="claim-label" href="mitchell.html#equation-eq-mitchell-a">eq-mitchell-a</a>' in page
    assert '<span class="claim-kind claim-kind-proved">proved</span>' in page
    assert "first: a &lt; b" in page
    assert "a > b" not in page
    assert repr(ledger).splitlines()[0] == "✓ eq-mitchell-a (first) · proved · a < b · rejects a > b"
    assert "measured" not in page + repr(ledger)


# ---------------------------------------------------------------------- doctor


def test_doctor_finds_nothing_on_the_same_machine(tiny, capsys):
    before = (tiny / "chapters/mitchell.ipynb").read_bytes()
    assert doctor(Book(tiny), "mitchell") == 0
    assert "every claim holds, and every compared output is the stored one" in capsys.readouterr().out
    assert (tiny / "chapters/mitchell.ipynb").read_bytes() == before


def test_doctor_says_which_claim_broke(tiny, monkeypatch, capsys):
    change(tiny, "chapters/mitchell.md", "[1, 2, 3, 4, 5]", "[1, 2, 3, 4, -5]")
    change_notebook(
        tiny, lambda nb: code_cells(nb)[2].update(source=code_cells(nb)[2].source.replace("4, 5]", "4, -5]"))
    )
    monkeypatch.chdir(tiny)
    assert main(["doctor", "mitchell"]) == 1
    said = capsys.readouterr().out
    assert "code cell 3 failed with ClaimFailed: obs-mitchell-line" in said
    assert "A CLAIM BROKE" in said


def test_compare_masks_only_what_is_measured(tiny, book):
    patterns = sanitize_patterns(book.root / "lib/tests/nbval_sanitize.cfg")
    stored, here = chapter(tiny).executed, chapter(tiny).executed
    assert compare(stored, here, patterns) == []
    code_cells(here)[2].outputs[-1]["text"] = "measured 0.5\n"
    here = nbformat.from_dict(json.loads(json.dumps(stored)))
    for output in code_cells(here)[2].outputs:
        if output.output_type == "stream":
            output.text = "measured 0.25\n"
    assert compare(stored, here, patterns) == []
    svg = code_cells(here)[1].outputs[0].data
    svg["image/svg+xml"] = svg["image/svg+xml"].replace("L ", "L 1", 1)
    ((number, words),) = compare(stored, here, patterns)
    assert number == 2
    assert words.startswith("image/svg+xml\n    stored - ")


def test_compare_masks_hashed_ids_of_a_figure_and_nothing_else_in_it(book):
    def masked(text):
        for pattern, replacement in sanitize_patterns(book.root / "lib/tests/nbval_sanitize.cfg"):
            text = re.sub(pattern, replacement, text)
        return text

    drawn = '<path id="{0}" d="M {2} 2"/><use xlink:href="#{0}" clip-path="url(#{1})" x="{3}"/><g id="axes_1"/>'
    stored = drawn.format("m400a68c425", "C0_0_caf009600d", "1.234567", "0123456789")
    assert masked(stored) == masked(drawn.format("m0000000001", "C0_0_1234567890", "1.234567", "0123456789"))
    for other in (("1.234568", "0123456789"), ("1.234567", "0123456780")):
        assert masked(stored) != masked(drawn.format("m400a68c425", "C0_0_caf009600d", *other))
    assert masked(stored) != masked(stored.replace("axes_1", "axes_2"))


# ---------------------------------------------------------------------- the site


def test_site_has_no_repository_links_unless_the_environment_names_one():
    settings = {"title": "T", "html": {"use_edit_page_button": True, "favicon": "f"}, "repository": {"url": "x"}}
    assert configure(settings, {}) == {"title": "T", "html": {"favicon": "f"}}
    assert configure(settings, {"GITHUB_SERVER_URL": "https://example.org", "GITHUB_REPOSITORY": "a/b"}) == {
        "title": "T",
        "html": {"favicon": "f"},
    }


def test_site_links_to_the_repository_that_the_environment_names():
    environment = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "a/b", "BOOK_URL": "https://c/"}
    environment |= {"GITHUB_REF": "refs/pull/1/merge", "GITHUB_REF_NAME": "1/merge"}
    settings = configure({"title": "T"}, environment)
    assert settings["repository"] == {"url": "https://github.com/a/b", "branch": "main", "path_to_book": ""}
    assert settings["html"]["use_edit_page_button"]
    assert settings["html"]["baseurl"] == "https://c/"
    assert settings["launch_buttons"]["binderhub_url"]
    assert settings["launch_buttons"]["colab_url"] == "https://colab.research.google.com"


def test_config_is_written_only_when_it_changes(tiny):
    assert write_config(Book(tiny), tiny / "_build/_config.yml")
    assert not write_config(Book(tiny), tiny / "_build/_config.yml")


def test_wrong_jupyter_book_is_refused(tiny, monkeypatch):
    monkeypatch.setattr("book.site.version", lambda name: "2.1.7")
    with pytest.raises(BookError, match=r"jupyter-book 2\.1\.7 is another program"):
        write_config(Book(tiny), tiny / "_build/_config.yml")


def test_mend_removes_thebe_and_edits_the_text():
    page = (
        '<link rel="stylesheet" type="text/css" href="../_static/sphinx-thebe.css?v=4fa983c6" />'
        '<script>const THEBE_JS_URL = "https://example.org/thebe.js"; const thebe_selector = ".cell"</script>'
        '<script async="async" src="../_static/sphinx-thebe.js?v=c100c467"></script>'
        '<link rel="preload" as="font" type="font/woff2" crossorigin href="../_static/fa-solid-900.woff2" />'
        '<script src="../_static/vendor/fontawesome/6.5.2/js/all.min.js?digest=1"></script>'
        '<script>keep()</script><script type="text/x-thebe-config">\n{}\n</script>'
        "<script>kernelName = 'python3'</script>"
        '<a href="https://github.com/a/b/edit/main/chapters/mitchell.ipynb">edit</a>'
    )
    mended = '<script>keep()</script><a href="https://github.com/a/b/edit/main/chapters/mitchell.md">edit</a>'
    assert mend(page) == mended
    assert mend(mended) == mended


def test_figures_lead_to_their_pictures_and_wide_ones_are_marked(tmp_path):
    (tmp_path / "wide.svg").write_text('<svg width="613.3pt" height="260pt"></svg>')
    (tmp_path / "narrow.svg").write_text('<svg width="300pt" height="260pt"></svg>')
    page = "".join(
        f'<figure id="f">\n<img alt="a" src="{name}" /></figure>' for name in ("wide.svg", "narrow.svg", "x.png")
    )
    framed = frame_figures(page, tmp_path)
    assert '<a class="figure-image figure-wide" href="wide.svg"><img alt="a" src="wide.svg" /></a>' in framed
    assert '<a class="figure-image" href="narrow.svg"><img alt="a" src="narrow.svg" /></a>' in framed
    assert '<a class="figure-image" href="x.png">' in framed
    assert frame_figures(framed, tmp_path) == framed


def test_the_download_button_offers_notebook_and_text():
    page = (
        '<ul><li><a href="../_sources/chapters/x.ipynb" target="_blank" title="Download source file">'
        "<span>.ipynb</span></a></li><li>pdf</li></ul>"
    )
    offered = offer_text(page)
    assert '<a href="../_sources/chapters/x.ipynb" download title="Download the notebook"><span>.ipynb<' in offered
    assert '<a href="../_sources/chapters/x.md" download title="Download the text"><span>.md<' in offered
    assert offer_text(offered) == offered


@pytest.mark.parametrize(
    "element",
    [
        '<script src="https://e.org/x.js"></script>',
        '<link rel="stylesheet" href="//e.org/x.css">',
        '<link rel="preconnect" href="https://e.org">',
        '<img src="http://e.org/x.png">',
        '<img srcset="a.png 1x, https://e.org/b.png 2x">',
        '<iframe src="https://e.org"></iframe>',
        '<svg><image href="https://e.org/x.png"></image></svg>',
        "<style>@import 'https://e.org/x.css'</style>",
        '<p style="background: url(https://e.org/x.png)"></p>',
        "<script>import('https://e.org/x.js')</script>",
    ],
)
def test_what_loads_from_elsewhere_is_found(element):
    assert len(loaded_elsewhere(element)) == 1
    assert "e.org" in loaded_elsewhere(element)[0]


@pytest.mark.parametrize(
    "element",
    [
        '<a href="https://e.org">link</a>',
        '<link rel="canonical" href="https://e.org/page.html">',
        '<meta property="og:image" content="https://e.org/x.png">',
        '<img src="../_images/x.svg"><img src="data:image/png;base64,AAAA">',
        '<script>document.createElementNS("http://www.w3.org/2000/svg", "svg")</script>',
    ],
)
def test_what_is_not_loaded_is_allowed(element):
    assert loaded_elsewhere(element) == []


def built_page(root: Path, figures: int) -> None:
    """Write pages as Sphinx would, with the outputs of the tiny chapter, as few or as many figures as asked."""
    cell = '<div class="cell"><div class="cell_output"><div class="output text_plain">x</div></div></div>'
    figure = '<div class="cell"><div class="cell_output"><img src="x.svg" alt="a line"></div></div>'
    pages = root / "_build/html/chapters"
    pages.mkdir(parents=True)
    (pages / "mitchell.html").write_text(cell * 3 + figure * figures)
    (pages / "ledger.html").write_text(cell)
    (root / "_build/html/index.html").write_text("")


def test_finish_accepts_a_whole_site_and_removes_left_over_pages(tiny, monkeypatch):
    built_page(tiny, figures=1)
    (tiny / "_build/html/chapters/gone.html").write_text("")
    monkeypatch.chdir(tiny)
    assert main(["finish", "_build/html"]) == 0
    assert not (tiny / "_build/html/chapters/gone.html").exists()


def test_finish_finds_missing_outputs_and_pages(tiny):
    built_page(tiny, figures=0)
    (tiny / "_build/html/chapters/ledger.html").unlink()
    problems = finish(Book(tiny), tiny / "_build/html")
    assert any("ledger.html: missing" in problem for problem in problems)
    assert any("shows the outputs of 3 code cells, its notebook has 4" in problem for problem in problems)
    assert any("shows 0 figures, its notebook has 1" in problem for problem in problems)


def test_finish_finds_broken_links(tiny):
    built_page(tiny, figures=1)
    addresses = ["mitchell.html#here", "#there", "gone.html", "ledger.html#nowhere", "https://e.org/y", "mailto:a@b"]
    links = "".join(f'<a href="{address}">x</a>' for address in addresses)
    page = tiny / "_build/html/chapters/mitchell.html"
    page.write_text(page.read_text() + links + '<p id="here">x</p><p id="there">x</p>')
    found = [problem for problem in finish(Book(tiny), tiny / "_build/html") if "links to" in problem]
    assert len(found) == 2
    assert "gone.html, which does not exist" in found[0]
    assert "ledger.html#nowhere, a place" in found[1]


def test_finish_writes_a_sitemap_and_citations_where_the_address_is_known(tiny, monkeypatch):
    built_page(tiny, figures=1)
    page = tiny / "_build/html/chapters/mitchell.html"
    page.write_text("<head></head>" + page.read_text())
    (tiny / "_config.yml").write_text("title: Tiny\nauthor: An Author\n")
    assert finish(Book(tiny), tiny / "_build/html") == []
    assert not (tiny / "_build/html/sitemap.xml").exists()
    monkeypatch.setenv("BOOK_URL", "https://e.org/book/")
    assert finish(Book(tiny), tiny / "_build/html") == []
    sitemap = (tiny / "_build/html/sitemap.xml").read_text()
    assert "<loc>https://e.org/book/chapters/mitchell.html</loc>" in sitemap
    assert (
        page.read_text().count('<meta name="citation_title" content="A tiny chapter (Executable Explainers)" />') == 1
    )
    assert '<meta name="citation_author" content="An Author" />' in page.read_text()
