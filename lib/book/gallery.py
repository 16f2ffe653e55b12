"""The chapters as cards, and by field of interest: what the introduction shows of them."""

from __future__ import annotations

import base64
import html
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext

from book.catalogue import PLANNED, Chapter
from book.ledger import chapter_ledger
from book.prose import glued, quote

_IN_PREPARATION = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 160"><g fill="none" stroke="#7d8590" stroke-width="3">'
    '<path d="M20 130h280M40 140V20" opacity=".6"/>'
    '<path d="M40 120C110 120 130 40 180 40s60 60 110 60" stroke-dasharray="7 7"/></g></svg>'
)
# Coordinates of a thumbnail need no six digits; the rest of an SVG stays as it is.
_PATH = re.compile(r' d="[^"]*"')
_LONG_NUMBER = re.compile(r"(\d\.\d)\d+")


@dataclass(frozen=True)
class Card:
    """What is known of a chapter; without a page all but ``chapter`` is None or 0."""

    chapter: Chapter
    picture: tuple[str, str] | None = None  # MIME type and content: SVG as text, PNG in base64
    alt: str = ""
    minutes: int | None = None
    seconds: int | None = None
    claims: int = 0


def cards(chapters: Path | str = ".") -> list[Card]:
    """Return a card for each planned chapter, in reading order, from the texts and executed notebooks in a folder."""
    return [_card(chapter, Path(chapters)) for chapter in PLANNED]


class Gallery:
    """The chapters as cards, as HTML and as plain text; by default those of the working directory."""

    def __init__(self, chapters: Path | str = "."):
        self.cards = cards(chapters)

    def __repr__(self) -> str:
        return "\n".join(f"{card.chapter.title}: {card.chapter.question} ({_state(card)})" for card in self.cards)

    def _repr_html_(self) -> str:
        return f'<ul class="gallery">{"".join(map(_card_html, self.cards))}</ul>'


class Paths:
    """The chapters by field of interest, with what a reader needs for each."""

    def __init__(self, chapters: Path | str = "."):
        self.fields: dict[str, list[Card]] = defaultdict(list)
        for card in cards(chapters):
            self.fields[card.chapter.interest].append(card)

    def __repr__(self) -> str:
        return "\n".join(
            f"{field}: {card.chapter.title} (needs {card.chapter.needs})"
            for field, found in self.fields.items()
            for card in found
        )

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{title}</th>' for title in ("if you care for", "read", "you need"))
        rows = "".join(
            f'<tr><th scope="row">{field if at == 0 else ""}</th><td>{_title(card)}</td>'
            f"<td>{html.escape(card.chapter.needs)}{_after(card)}</td></tr>"
            for field, found in self.fields.items()
            for at, card in enumerate(found)
        )
        return f'<table class="paths"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


class Originals:
    """The articles that the chapters re-derive: their Chinese titles, with address and date, beside the chapters."""

    def __init__(self, chapters: Path | str = "."):
        self.cards = cards(chapters)

    def __repr__(self) -> str:
        return "\n".join(
            f"{card.chapter.title}: {card.chapter.original} ({card.chapter.published}, {card.chapter.article})"
            for card in self.cards
        )

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{title}</th>' for title in ("chapter", "article", "published"))
        rows = "".join(
            f'<tr><td>{_title(card)}</td><td lang="zh"><a href="{card.chapter.article}">'
            f"{html.escape(card.chapter.original)}</a></td>"
            f"<td>{card.chapter.published.day} {card.chapter.published:%b %Y}</td></tr>"
            for card in self.cards
        )
        return f'<table class="paths"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _card(chapter: Chapter, folder: Path) -> Card:
    text, notebook = folder / f"{chapter.name}.md", folder / f"{chapter.name}.ipynb"
    if not (text.exists() and notebook.exists()):
        return Card(chapter)
    settings = jupytext.read(text).metadata.get("explainers", {})
    ledger = chapter_ledger(notebook)
    picture, alt = _first_figure(json.loads(notebook.read_text(encoding="utf-8")))
    return Card(
        chapter,
        picture,
        alt,
        settings.get("minutes_to_read"),
        settings.get("run_seconds"),
        len(ledger["claims"]) if ledger else 0,
    )


def _first_figure(notebook: dict[str, Any]) -> tuple[tuple[str, str] | None, str]:
    """Return the first figure of an executed notebook and its alternative text."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for mime in ("image/svg+xml", "image/png"):
                if mime in data:
                    content = data[mime] if isinstance(data[mime], str) else "".join(data[mime])
                    alt = quote(cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", ""), glued(notebook))
                    return (mime, _lighter(content) if mime == "image/svg+xml" else content), alt
    return None, ""


def _lighter(svg: str) -> str:
    """Return an SVG whose paths have one decimal; half the bytes, and no difference at a card's size.

    >>> _lighter('<path d="M 1.234567 2.5" transform="scale(0.015625)"/>')
    '<path d="M 1.2 2.5" transform="scale(0.015625)"/>'
    """
    return _PATH.sub(lambda match: _LONG_NUMBER.sub(r"\1", match.group()), svg)


def _card_html(card: Card) -> str:
    kind, content = card.picture or ("image/svg+xml", _IN_PREPARATION)
    encoded = base64.b64encode(content.encode()).decode() if kind == "image/svg+xml" else content.replace("\n", "")
    alt = html.escape(card.alt or "a dashed curve: this chapter has no figure yet", quote=True)
    picture = f'<img class="gallery-picture" src="data:{kind};base64,{encoded}" alt="{alt}" loading="lazy">'
    return (
        f'<li class="gallery-card{"" if card.minutes else " gallery-card-to-come"}">{picture}'
        f'<span class="gallery-title">{_title(card)}</span>'
        f'<span class="gallery-question">{html.escape(card.chapter.question)}</span>'
        f'<span class="gallery-facts">{_state(card)}</span></li>'
    )


def _title(card: Card) -> str:
    title = html.escape(card.chapter.title)
    return f'<a href="{card.chapter.name}.html">{title}</a>' if card.minutes else title


def _after(card: Card) -> str:
    links = ", ".join(f'<a href="{name}.html">the page on the {name}</a>' for name in card.chapter.after)
    return f" (see {links})" if links and card.minutes else ""


def _state(card: Card) -> str:
    if not card.minutes:
        return "in preparation"
    return f"{card.minutes} min to read, {card.seconds} s to run, {card.claims} claims"
