"""Text mutants: a number that differs in its last digit is noticed where the code has the right one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mutate.text import neighbour, slips, survivors

from book.pages import Book


@pytest.mark.parametrize(("number", "other"), [("0.19", "0.20"), ("1,299", "1300"), ("20", "21"), ("0.999", "1.000")])
def test_neighbour_differs_by_one_in_the_last_digit(number, other):
    assert neighbour(number) == other


def test_a_changed_setting_is_caught_and_a_changed_seed_passes(tiny):
    """The tiny chapter's code has the seeds 1 to 5 and the value 0.125."""
    page = tiny / "chapters/mitchell.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(
        text.replace("A figure and a value.", "A ratio of 0.125, with the seeds 4 and 5."), encoding="utf-8"
    )
    typed, passed = survivors(Book(tiny).page("mitchell"))
    assert typed == 3
    assert [number for number, *_ in passed] == ["4"]


def test_slips_in_worked_arithmetic_are_caught_unless_they_vanish_in_the_rounding(tiny):
    before, _ = slips(Book(tiny).page("mitchell"))
    page = tiny / "chapters/mitchell.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(
        text.replace("A figure and a value.", r"So $y = 9.75 - 4 = 5.75$ and $\log 400 = 5.99$."), encoding="utf-8"
    )
    changed, passed = slips(Book(tiny).page("mitchell"))
    assert changed == before + 5
    assert [(number, other) for number, other, _ in passed] == [("400", "401")]
