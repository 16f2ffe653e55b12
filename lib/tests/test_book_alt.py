"""Alternative texts quote what the run has glued, on the page and on the introduction's cards."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import nbformat
import pytest
from docutils import nodes
from docutils.utils import new_document

from book import alt
from book.gallery import cards
from book.prose import glued, quote

QUOTING = "The line ends at {glue:text}`mitchell-end`, above {glue:text}`mitchell-low`."


def record(name: str, words: str) -> nbformat.NotebookNode:
    """Return the output that `verify.glue` leaves in a notebook."""
    prefix = "application/papermill.record/"
    return nbformat.v4.new_output(
        "display_data",
        {f"{prefix}text/plain": repr(words)},
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
    )


@pytest.fixture
def notebook(tmp_path):
    cells = [
        nbformat.v4.new_markdown_cell("text"),
        nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="words")]),
        nbformat.v4.new_code_cell(
            "2", outputs=[record("mitchell-end", "measured 0.98"), record("mitchell-low", "1/9")]
        ),
    ]
    path = tmp_path / "mitchell.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def app_of(path) -> SimpleNamespace:
    return SimpleNamespace(env=SimpleNamespace(docname="chapters/mitchell", doc2path=lambda name: str(path)))


def page(*texts: str) -> nodes.document:
    document = new_document("page")
    document.extend(nodes.figure("", nodes.image(uri="x.svg", alt=text)) for text in texts)
    document.append(nodes.image(uri="y.svg"))
    return document


def test_glued_words_are_read_without_the_mark_of_what_is_measured(notebook):
    words = glued(nbformat.read(notebook, as_version=4))
    assert words == {"mitchell-end": "0.98", "mitchell-low": "1/9"}
    assert quote(QUOTING, words) == "The line ends at 0.98, above 1/9."
    with pytest.raises(KeyError, match="mitchell-low"):
        quote(QUOTING, {"mitchell-end": "0.98"})


def test_the_extension_puts_the_words_into_every_image(notebook):
    document = page(QUOTING, "No number.")
    alt._quote_in(app_of(notebook), document)
    texts = [image.get("alt") for image in document.findall(nodes.image)]
    assert texts == ["The line ends at 0.98, above 1/9.", "No number.", None]


@pytest.mark.parametrize("suffix", [".ipynb", ".md"])
def test_a_missing_word_is_a_warning_which_stops_the_build(notebook, suffix, monkeypatch):
    monkeypatch.setattr(alt.logging, "getLogger", logging.getLogger)
    monkeypatch.setattr(
        logging.Logger, "warning", lambda self, text, key, location: found.append((text % key, location))
    )
    found = []
    path = notebook if suffix == ".ipynb" else notebook.with_suffix(suffix)
    alt._quote_in(app_of(path), page("It has {glue:text}`mitchell-gone`."))
    assert found == [
        ("the alternative text quotes 'mitchell-gone', which this page does not glue", "chapters/mitchell")
    ]


def test_pages_without_quotations_are_not_read():
    alt._quote_in(SimpleNamespace(), page("No number."))


def test_the_extension_is_registered():
    connected = {}
    assert alt.setup(SimpleNamespace(connect=connected.__setitem__))["parallel_read_safe"]
    assert connected == {"doctree-read": alt._quote_in}


def test_cards_quote_too(tiny):
    path = tiny / "chapters/mitchell.ipynb"
    stored = nbformat.read(path, as_version=4)
    figure = next(cell for cell in stored.cells if "mystnb" in cell.metadata)
    figure.metadata.mystnb.image.alt = QUOTING
    figure.outputs += [record("mitchell-end", "0.98"), record("mitchell-low", "1/9")]
    nbformat.write(stored, path)
    card = next(card for card in cards(tiny / "chapters") if card.chapter.name == "mitchell")
    assert card.alt == "The line ends at 0.98, above 1/9."
