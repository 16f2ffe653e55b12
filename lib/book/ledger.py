"""The ledger of the whole book, collected from the executed notebooks, and how it looks on a page.

Used by the pages ``ledger`` and ``intro``, whose notebooks run in the folder ``chapters``.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from book.catalogue import APPENDICES, PLANNED
from explainers.verify import KINDS, LEDGER_MIME, anchor


@dataclass(frozen=True)
class Record:
    """One claim of one chapter, as its executed notebook holds it."""

    chapter: str
    label: str
    part: str | None
    kind: str
    says: str
    rejects: str | None

    @property
    def address(self) -> str:
        """The place of the labelled equation or observation, from another page of the site."""
        return f"{self.chapter}.html#{anchor(self.label)}"


def chapter_ledger(notebook: Path) -> dict[str, Any] | None:
    """Return the last ledger that an executed notebook shows, or None if it shows none."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    ledgers = [output["data"][LEDGER_MIME] for output in outputs if LEDGER_MIME in output.get("data", {})]
    return ledgers[-1] if ledgers else None


def collect(chapters: Path | str = ".") -> list[dict[str, Any]]:
    """Return the ledger of each executed chapter and appendix in the folder, in reading order."""
    names = [*(chapter.name for chapter in PLANNED), *APPENDICES]
    notebooks = [Path(chapters) / f"{name}.ipynb" for name in names]
    ledgers = [chapter_ledger(path) for path in notebooks if path.exists()]
    return [ledger for ledger in ledgers if ledger is not None]


def records(chapters: Path | str = ".") -> list[Record]:
    """Return every claim of the book, in reading order."""
    return [
        Record(ledger["chapter"], **{key: claim.get(key) for key in ("label", "part", "kind", "says", "rejects")})
        for ledger in collect(chapters)
        for claim in ledger["claims"]
    ]


class BookLedger:
    """The claims of the book as one table; shows itself as HTML and as plain text.

    Parameters
    ----------
    claims
        The claims to show; by default all of the executed notebooks in the working directory.
    """

    def __init__(self, claims: Iterable[Record] | None = None):
        self.claims = list(records() if claims is None else claims)

    def __len__(self) -> int:
        return len(self.claims)

    @property
    def chapters(self) -> list[str]:
        """The names of the chapters that have claims, in order."""
        return list(dict.fromkeys(claim.chapter for claim in self.claims))

    def counts(self) -> dict[str, int]:
        """Return the number of claims of each kind, from the strongest kind of evidence to the weakest."""
        found = Counter(claim.kind for claim in self.claims)
        return {kind: found[kind] for kind in KINDS}

    @property
    def counterfeits(self) -> int:
        """The number of claims whose check was seen to reject a counterfeit."""
        return sum(claim.rejects is not None for claim in self.claims)

    def summary(self) -> str:
        """Return one sentence: how many claims, of which kinds, on how many pages, how many counterfeits."""
        kinds = ", ".join(f"{number} {kind}" for kind, number in self.counts().items() if number)
        claims, chapters = _count(len(self), "claim"), _count(len(self.chapters), "page")
        return f"{claims} in {chapters} ({kinds or 'none'}); {_count(self.counterfeits, 'counterfeit')} caught."

    def __repr__(self) -> str:
        lines = []
        for claim in self.claims:
            name = f"{claim.label} ({claim.part})" if claim.part else claim.label
            words = [f"✓ {name}", claim.kind, claim.says, *([f"rejects {claim.rejects}"] if claim.rejects else [])]
            lines.append(" · ".join(words))
        return "\n".join([*lines, self.summary()])

    def _repr_html_(self) -> str:
        tables = "".join(_table(name, [c for c in self.claims if c.chapter == name]) for name in self.chapters)
        return f'<div class="claims">{_kind_counts(self.counts())}{tables}<p>{html.escape(self.summary())}</p></div>'


def _kind_counts(counts: dict[str, int]) -> str:
    items = "".join(f"<li>{_kind(kind)} <strong>{number}</strong></li>" for kind, number in counts.items())
    return f'<ul class="claims-counts">{items}</ul>'


def _table(chapter: str, claims: list[Record]) -> str:
    title = next((planned.title for planned in PLANNED if planned.name == chapter), chapter)
    caption = f'<caption><a href="{chapter}.html">{html.escape(title)}</a>: {_count(len(claims), "claim")}</caption>'
    head = '<thead><tr><th scope="col">claim</th><th scope="col">what was established</th></tr></thead>'
    rows = "".join(_row(claim) for claim in claims)
    return f'<table class="claims-table">{caption}{head}<tbody>{rows}</tbody></table>'


def _row(claim: Record) -> str:
    link = f'<a class="claim-label" href="{claim.address}">{claim.label}</a>'
    part = f"{html.escape(claim.part)}: " if claim.part else ""
    rejects = (
        f' <span class="claim-rejects">rejects {html.escape(claim.rejects)}</span>' if claim.rejects is not None else ""
    )
    says = f'<span class="claim-says">{part}{html.escape(claim.says)}</span>{rejects}'
    mark = '<span class="claim-mark">✓</span>'
    return f'<tr class="claim"><td>{mark} {link} {_kind(claim.kind)}</td><td>{says}</td></tr>'


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _kind(kind: str) -> str:
    return f'<span class="claim-kind claim-kind-{kind}">{kind}</span>'
