"""Numbers in the text that nothing would notice being wrong are found; settings, quotations and glued ones are not."""

from __future__ import annotations

import pytest

from book.pages import Book
from book.prose import unsupported_numbers


def change(root, old: str, new: str) -> None:
    page = root / "chapters/mitchell.md"
    text = page.read_text(encoding="utf-8")
    assert text.count(old) == 1
    page.write_text(text.replace(old, new), encoding="utf-8")


def found(root, sentence: str) -> list[str]:
    change(root, "A figure and a value.", sentence)
    return [number for number, _ in unsupported_numbers(Book(root).page("mitchell"))]


@pytest.mark.parametrize(
    ("sentence", "numbers"),
    [
        ("The accuracy is 0.873.", ["0.873"]),
        ("It wins 4.4 times as often, a gain of 12 %.", ["4.4", "12"]),
        ("Seven seeds, a ratio of 1,234 to 1.", ["1,234"]),
        ("| 99.5 % | in a table |", ["99.5"]),
    ],
)
def test_typed_results_are_found(tiny, sentence, numbers):
    assert found(tiny, sentence) == numbers


@pytest.mark.parametrize(
    "sentence",
    [
        "The accuracy is {glue:text}`mitchell-accuracy`.",
        "The accuracy is 0.873, {eq}`eq-mitchell-sum`.",
        "The accuracy is 0.873, [obs-mitchell-line](obs-mitchell-line).",
        "The accuracy is 0.873 in the paper {cite}`someone2020`.",
        'A reader writes "an accuracy of 0.873".',
        "With $x = 0.125$ as the ratio.",
        r"With $x = 7.5 - \frac12 = 7.0$ as the ratio.",
        "It has 873 parameters.",
        "It runs in about 3 seconds.",
        "The seeds are 1, 2, 3, 4 and 5.",
        "A ratio of 500 % or of 5.",
    ],
)
def test_what_has_a_source_is_not(tiny, sentence):
    assert found(tiny, sentence) == []


def test_measured_outputs_are_no_source(tiny):
    """The stored output prints 0.125 behind the word measured, which no test compares."""
    assert found(tiny, "The ratio is 0.125.") == []  # but the code prints the literal 0.125
    change(tiny, 'print("measured", 0.125)', 'print("measured", 1 / 8)')
    assert [number for number, _ in unsupported_numbers(Book(tiny).page("mitchell"))] == ["0.125"]
