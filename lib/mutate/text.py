"""``python -m mutate text [PAGE ...]``: change each number of the text and count what the rules of the book notice.

A number is glued from the run, so that it cannot be changed by hand; or stands in a sentence that refers to a claim; or
is typed. Each typed number beside a telling word (see :mod:`book.prose`) is changed by one in its last digit, which is
the mistake that is hardest to see, and the rule is asked whether it still knows the number.
"""

from __future__ import annotations

import argparse
import re

from book.pages import Page, find_book
from book.prose import is_known, known_numbers, typed_numbers
from book.rules import CHAPTERS

_GLUED = re.compile(r"\{glue:text\}`")


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
    typed = list(typed_numbers(page))
    passed = [(number, neighbour(number), sentence) for number, sentence in typed if is_known(neighbour(number), known)]
    return len(typed), passed


def main(arguments: list[str]) -> int:
    """Print a line for each chapter, and each change that passed."""
    parser = argparse.ArgumentParser(prog="python -m mutate text", description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="names of chapters; all by default")
    names = parser.parse_args(arguments).pages or CHAPTERS
    book = find_book()
    print(f"{'page':14} {'glued':>6} {'typed':>6} {'caught':>7}")
    for name in names:
        page = book.page(name)
        typed, passed = survivors(page)
        print(f"{name:14} {len(_GLUED.findall(page.text)):6} {typed:6} {typed - len(passed):7}")
        for number, other, sentence in passed:
            print(f"    {number} -> {other} passes: {sentence[:110]}")
    return 0
