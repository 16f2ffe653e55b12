"""``python -m mutate text [PAGE ...]``: change each number of the text and count what the rules of the book notice.

A number is glued from the run, so that it cannot be changed by hand; or stands in a sentence that refers to a claim; or
is typed. Each typed number beside a telling word, in a caption or in an alternative text (see :mod:`book.prose`), and
each number of worked arithmetic in a formula, is changed by one in its last digit, which is the mistake that is hardest
to see, and the rule is asked whether it still knows the number, or whether the formula still holds.
"""

from __future__ import annotations

import argparse
import re

from book.arithmetic import statements
from book.pages import Page, find_book
from book.prose import figure_numbers, is_known, known_numbers, typed_numbers, worked_statements
from book.rules import CHAPTERS

_GLUED = re.compile(r"\{glue:text\}`")
_LITERAL = re.compile(r"\d+(?:\.\d+)?")


def neighbour(number: str) -> str:
    """Return the number with one more in its last digit.

    >>> neighbour("0.19"), neighbour("1,299"), neighbour("20")
    ('0.20', '1300', '21')
    """
    digits = len(number.partition(".")[2])
    return f"{float(number.replace(',', '')) + 10.0**-digits:.{digits}f}"


def survivors(page: Page) -> tuple[int, list[tuple[str, str, str]]]:
    """Return how many typed numbers were changed, and those whose neighbour would pass, with it and the sentence."""
    known = set(known_numbers(page))
    typed = [*typed_numbers(page), *figure_numbers(page)]
    passed = [(number, neighbour(number), sentence) for number, sentence in typed if is_known(neighbour(number), known)]
    return len(typed), passed


def slips(page: Page) -> tuple[int, list[tuple[str, str, str]]]:
    """Return how many numbers of worked arithmetic were changed, and those whose neighbour makes as good a formula."""
    changed, passed = 0, []
    for text in sorted({statement.text for statement in worked_statements(page)}):
        for match in _LITERAL.finditer(text):
            other = neighbour(match.group())
            mutant = list(statements(text[: match.start()] + other + text[match.end() :]))
            changed += 1
            if mutant and all(statement.holds for statement in mutant):
                passed.append((match.group(), other, text))
    return changed, passed


def main(arguments: list[str]) -> int:
    """Print a line for each chapter, and each change that passed."""
    parser = argparse.ArgumentParser(prog="python -m mutate text", description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="names of chapters; all by default")
    names = parser.parse_args(arguments).pages or CHAPTERS
    book = find_book()
    print(f"{'page':14} {'glued':>6} {'typed':>6} {'caught':>7} {'worked':>7} {'caught':>7}")
    for name in names:
        page = book.page(name)
        (typed, passed), (worked, missed) = survivors(page), slips(page)
        counts = f"{typed:6} {typed - len(passed):7} {worked:7} {worked - len(missed):7}"
        print(f"{name:14} {len(_GLUED.findall(page.text)):6} {counts}")
        for number, other, sentence in passed + missed:
            print(f"    {number} -> {other} passes: {sentence[:110]}")
    return 0
