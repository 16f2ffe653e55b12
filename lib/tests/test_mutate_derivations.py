"""Derivation mutants and stability, on toy chapters: a weak claim and an unstable verdict must be found."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import FRONT_MATTER
from mutate import derivations, stability
from mutate.formulas import NotAFormula, scaled, slips

from book.pages import Book, Page
from book.run import run

CHAPTER = """
```{{code-cell}} ipython3
import time

import numpy as np
import sympy as sp
from explainers import verify

claims = verify.Ledger("mitchell")
x = sp.symbols("x", positive=True)
```

$$ (1 + x)^2 = 1 + 2x + x^2 $$ (eq-mitchell-square)

```{{code-cell}} ipython3
{claim}
```

```{{code-cell}} ipython3
claims
```
"""

STRONG = """\
stated = 1 + 2 * x + x**2
claims.proved("eq-mitchell-square", (1 + x) ** 2, stated, counterfeit=1 + x**2)"""

# At x = 1 alone, with a tolerance of a half, an exponent makes no difference and a sign is half hidden.
WEAK = """\
at = np.array([1.0])
stated = 1 + 2 * at + at**2
claims.numeric("eq-mitchell-square", (1 + at) ** 2, stated, atol=0.5, counterfeit=1 + at)"""

BOUND = """\
p = np.linspace(0, 1, 11)
claims.exhaustive("eq-mitchell-square", (1 + p) ** 2 <= 2 * (1 + p), counterfeit=(1 + p) ** 2 <= 1 + p)"""

HOUR = "print(time.localtime(0).tm_hour)"
ZONED = (
    STRONG
    + """
claims.exhaustive("eq-mitchell-square", time.localtime(0).tm_hour, cases=1, at_most=23, counterfeit=-1,
                  says=f"hour {time.localtime(0).tm_hour}", part="hour")"""
)


def chapter(folder: Path, claim: str) -> Page:
    chapters = folder / "chapters"
    chapters.mkdir(parents=True, exist_ok=True)
    front = FRONT_MATTER + "  minutes_to_read: 2\n  run_seconds: 3\n---\n\n# A toy\n"
    (chapters / "mitchell.md").write_text(front + CHAPTER.format(claim=claim), encoding="utf-8")
    return Page("mitchell", chapters)


def broken(page: Page, **options) -> dict[tuple[str, str], str]:
    """Return how each mutant of a page ended."""
    status, report = derivations.in_child(lambda: derivations.run_page(page, cap=0, **options))
    assert status == "done"
    assert not report["notes"]
    return {(result["before"], result["after"]): result["end"] for result in report["results"]}


# ---------------------------------------------------------------------- slips


def test_slips_are_the_mistakes_that_were_asked_for():
    statement = ast.parse("y = -a[i, j] * b / f(u, v) ** 2 + np.arange(7)").body[0]
    found = {(slip.operator, slip.after) for slip in slips(statement, [statement])}
    line = "-a[i, j] * b / f(u, v) ** 2 + np.arange(7)"
    for operator, after in [
        ("factor", f"2 * ({line})"),
        ("sign", f"-({line})"),
        ("sign", line.replace("-a", "a")),
        ("+ -", line.replace("+", "-")),
        ("* /", line.replace("* b", "/ b")),
        ("* /", line.replace("/ f", "* f")),
        ("exponent", line.replace("** 2", "** 3")),
        ("index", line.replace("i, j", "j, i")),
        ("arguments", line.replace("u, v", "v, u")),
    ]:
        assert (operator, after) in found
    assert not any("np.arange(8)" in after for _, after in found)  # which inputs are tried is not the formula


def test_texts_tolerances_and_seeds_are_left_alone():
    statement = ast.parse("y = f(3, says='2 * x', rtol=1e-3, seed=4, dim=1)").body[0]
    constants = [slip.after for slip in slips(statement, [statement]) if slip.operator == "constant"]
    assert constants == ["f(4, says='2 * x', rtol=0.001, seed=4, dim=1)"]


def test_a_sign_on_something_that_is_no_number_is_no_slip():
    for value in (True, "text", None, {"a": 1}, len):
        with pytest.raises(NotAFormula):
            scaled(value, -1)


def test_the_cap_takes_every_kind_of_slip_in_turn():
    program = derivations.Program([f"x = 1\n{STRONG}"])
    (claim,) = derivations.claim_calls(program)
    found = derivations.candidates(program, claim)
    kinds = {candidate.slip.operator for candidate in found}
    assert {c.slip.operator for c in derivations.choose(found, len(kinds))} == kinds
    assert derivations.choose(found, 0) != derivations.choose(found, 3) == derivations.choose(found, 0)[:3]


# ---------------------------------------------------------------------- what a formula is made of


def test_names_of_both_sides_are_inputs_and_stay():
    program = derivations.Program(
        ["a = 3 * 2", "left = a + 1", "right = 1 + a", "claims.proved('eq-a-b', left, right)"]
    )
    (claim,) = derivations.claim_calls(program)
    found = {program.statements[c.at].cell for c in derivations.candidates(program, claim)}
    assert found == {3, 4}


def test_a_formula_is_followed_into_functions_and_through_changes_in_place():
    program = derivations.Program(
        ["def f(v):\n    return v * 2", "rows = []\nrows.append(f(3))", "other = 5", "claims.proved('eq-a-b', 6, rows)"]
    )
    needed = program.closure(ast.parse("rows", mode="eval").body, len(program.statements) - 1)
    assert [ast.unparse(program.statements[at].node).split("(")[0] for at in sorted(needed)] == [
        "def f", "rows = []", "rows.append",
    ]  # fmt: skip


# ---------------------------------------------------------------------- running them


def test_a_strong_claim_rejects_every_mutant(tmp_path):
    ends = broken(chapter(tmp_path, STRONG))
    assert len(ends) >= 8
    assert set(ends.values()) == {"claim"}


def test_a_claim_that_lets_a_mutant_pass_is_reported(tmp_path):
    ends = broken(chapter(tmp_path, WEAK))
    assert ends["1 + 2 * at + at ** 2", "1 + 2 * at + at ** 3"] == "survived"  # 1 to any power is 1
    assert ends["1 + 2 * at + at ** 2", "1 - 2 * at + at ** 2"] == "claim"


def test_a_slip_is_rejected_if_one_claim_of_the_label_rejects_it(tmp_path):
    slip = "1 + 2 * at + at ** 2", "1 + 2 * at - at ** 2"  # 2 in place of 4
    weak = WEAK.replace("atol=0.5, counterfeit=1 + at", 'atol=3, counterfeit=9 * at, part="first"')
    assert broken(chapter(tmp_path, weak))[slip] == "survived"
    second = 'claims.numeric("eq-mitchell-square", stated, 3 + at, atol=1e-9, counterfeit=at, part="second")'
    assert broken(chapter(tmp_path, f"{weak}\n{second}"))[slip] == "claim"


def test_a_looser_bound_is_no_mutant_but_a_tighter_one_is(tmp_path):
    ends = broken(chapter(tmp_path, BOUND))
    line = "(1 + p) ** 2 <= 2 * (1 + p)"
    assert ends[line, line.replace("<= 2 *", "<= 3 *")] == "weaker"
    assert ends[line, line.replace("<= 2 *", "<= 2 /")] == "claim"


def test_a_mutant_that_does_not_end_is_stopped(tmp_path):
    slow = "def stated(n):\n    while n:\n        n = n - 1\n    return 1 + 2 * x + x**2\n"
    claim = slow + 'claims.proved("eq-mitchell-square", (1 + x) ** 2, stated(4), counterfeit=1 + x**2)'
    ends = broken(chapter(tmp_path, claim), seconds=1)
    assert ends["n - 1", "n + 1"] == "time"


def test_the_command_reports_a_survivor_and_stores_it(tmp_path, capsys):
    chapter(tmp_path, WEAK)
    options = argparse.Namespace(chapter=[], cap=0, seconds=20, label=None, list=False)
    assert derivations.run(options, Book(tmp_path)) == 1
    shown = capsys.readouterr().out
    assert "eq-mitchell-square (cell 2, numeric): 1 + 2 * at + at ** 2  ->  1 + 2 * at + at ** 3" in shown
    stored = json.loads((tmp_path / derivations.REPORT).read_text(encoding="utf-8"))["mitchell"]
    assert "survived" in {result["end"] for result in stored["results"]}


def test_an_equivalent_mutant_needs_a_listed_reason(tmp_path, monkeypatch):
    listed = tmp_path / "equivalent.toml"
    listed.write_text(
        '[[equivalent]]\nlabel = "eq-mitchell-square"\nbefore = "1 + 2 * at + at ** 2"\n'
        'after = "1 + 2 * at + at ** 3"\nreason = "a toy"\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(derivations, "EQUIVALENT", listed)
    ends = broken(chapter(tmp_path, WEAK))
    assert ends["1 + 2 * at + at ** 2", "1 + 2 * at + at ** 3"] == "equivalent"


def test_equivalent_mutants_of_the_book_name_labels_that_exist(book):
    labels = {label for page in book.pages for label in derivations.page_labels(page.text)}
    entries = derivations.equivalent_entries()
    unknown = [e["label"] for e in entries if not any(re.fullmatch(e["label"], label) for label in labels)]
    assert unknown == []
    assert all(len(entry["reason"].split()) >= 3 for entry in entries)


# ---------------------------------------------------------------------- stability


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Book:
    """A book of one chapter whose ledger holds the hour of the epoch, run in UTC."""
    root = tmp_path_factory.mktemp("stability")
    chapter(root, ZONED)
    sanitize = root / stability.SANITIZE
    sanitize.parent.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("nbval_sanitize.cfg"), sanitize)
    (root / "requirements.txt").write_text("numpy==2.4.6\n", encoding="utf-8")
    (root / "lib/explainers").mkdir()
    (root / "lib/explainers/__init__.py").write_text("", encoding="utf-8")
    for name in ("verify", "mitchell"):
        (root / f"lib/explainers/{name}.py").write_text("", encoding="utf-8")
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    try:
        assert run(Book(root), []) == 0
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    return Book(root)


def test_a_verdict_that_depends_on_the_time_zone_is_found(toy, monkeypatch, capsys):
    monkeypatch.setenv("TZ", "UTC")
    same, moved = stability.check(toy, [], ["hash-seed", "time-zone"])
    assert same.same
    assert not moved.same
    assert any("hour 0" in words and "hour 8" in words for words in moved.claims)
    assert moved.outputs
    assert "mitchell under time-zone: claim eq-mitchell-square (hour)" in stability.table([same, moved])


def test_settings_reach_the_kernel(tmp_path):
    probe = "import os, socket\n" + STRONG + "\nprint(os.environ['OMP_NUM_THREADS'], os.getcwd())"
    page = chapter(tmp_path, probe)
    seen, failure, _ = stability.run_under(page, stability.Setting("x", "", threads=2, folder=stability.ODD_FOLDER))
    assert failure == ""
    words = next(output.text for cell in seen.cells for output in cell.get("outputs", []) if "text" in output)
    assert words.startswith("2 ")
    assert stability.ODD_FOLDER in words


@pytest.mark.parametrize("namespace", [True, False])
def test_offline_means_that_no_other_machine_is_reached(tmp_path, monkeypatch, namespace):
    if namespace and not stability.can_unshare():
        pytest.skip("no network namespaces here")
    monkeypatch.setattr(stability, "can_unshare", lambda: namespace)
    probe = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=20)\n" + STRONG
    _, failure, _ = stability.run_under(chapter(tmp_path, probe), stability.settings()["offline"])
    assert "OSError" in failure
    assert "timed out" not in failure


def test_a_broken_claim_is_told_from_another_failure():
    assert str(stability.Outcome("a", "here", 1.0, failure="ClaimFailed: eq-a-b")) == "A CLAIM BROKE"
    assert str(stability.Outcome("a", "here", 1.0, failure="NameError: x")) == "FAILED"
    assert str(stability.Outcome("a", "here", 1.0)) == "same"
