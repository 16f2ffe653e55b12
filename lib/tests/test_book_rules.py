"""The rules of the book, applied to this book: one test for each rule and page."""

from __future__ import annotations

import pytest
from conftest import ROOT

from book.pages import Book, Page
from book.rules import BOOK_RULES, PAGE_RULES

PAGES = Book(ROOT).pages


def test_there_are_pages():
    assert {"intro", "ledger", "references"} < {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize("rule", PAGE_RULES, ids=lambda rule: rule.__name__)
def test_page(rule, page: Page, book: Book):
    assert [*rule(page, book)] == []


@pytest.mark.parametrize("rule", BOOK_RULES, ids=lambda rule: rule.__name__)
def test_book(rule, book: Book):
    assert [*rule(book)] == []
