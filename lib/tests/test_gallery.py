"""The introduction's cards say what the chapters' own files say, and promise nothing that is not there."""

from __future__ import annotations

from bs4 import BeautifulSoup

from book.catalogue import PLANNED
from book.gallery import Gallery, Originals, Paths, cards
from book.pages import Book
from book.stamp import ingredients


def test_cards_read_text_and_notebook(tiny):
    by_name = {card.chapter.name: card for card in cards(tiny / "chapters")}
    card = by_name["mitchell"]
    assert (card.minutes, card.seconds, card.claims) == (2, 3, 2)
    assert card.alt == "A straight line from the origin to the point one, one."
    assert card.picture[0] == "image/svg+xml"
    assert by_name["flooding"].picture is None


def test_gallery_links_only_to_pages_that_exist(tiny):
    soup = BeautifulSoup(Gallery(tiny / "chapters")._repr_html_(), "html.parser")
    assert [link["href"] for link in soup.find_all("a")] == ["mitchell.html"]
    assert len(soup.select("li.gallery-card")) == len(PLANNED)
    assert soup.text.count("in preparation") == len(PLANNED) - 1
    assert all(len(image["alt"]) >= 20 for image in soup.find_all("img"))


def test_paths_name_every_chapter_and_its_field(tiny):
    soup = BeautifulSoup(Paths(tiny / "chapters")._repr_html_(), "html.parser")
    assert [link["href"] for link in soup.find_all("a")] == ["mitchell.html"]
    fields = [row.th.text for row in soup.find_all("tr")[1:] if row.th.text]
    assert len(fields) == len(set(fields)) == len({chapter.interest for chapter in PLANNED})


def test_originals_name_every_article_and_link_only_to_pages_that_exist(tiny):
    soup = BeautifulSoup(Originals(tiny / "chapters")._repr_html_(), "html.parser")
    addresses = [link["href"] for link in soup.select("td[lang=zh] a")]
    assert addresses == [chapter.article for chapter in PLANNED]
    assert [link["href"] for link in soup.select("td:first-child a")] == ["mitchell.html"]
    assert "14 Dec 2020" in soup.text
    assert len(repr(Originals(tiny / "chapters")).splitlines()) == len(PLANNED)


def test_a_page_with_the_gallery_is_stale_when_a_picture_changes(tiny):
    book = Book(tiny)
    ledger = book.page("ledger")
    ledger.written.metadata.explainers.reads = ["gallery"]
    before = ingredients(ledger, book)["reads"]["gallery"]
    notebook = tiny / "chapters/mitchell.ipynb"
    notebook.write_text(notebook.read_text().replace("A straight line", "A bent line"))
    assert ingredients(ledger, book)["reads"]["gallery"] != before
