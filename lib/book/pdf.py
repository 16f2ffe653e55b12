"""``python -m book pdf``: the whole book as one PDF, printed page by page by a Chromium from the built site."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml
from playwright.sync_api import Error, sync_playwright
from pypdf import PdfReader, PdfWriter

from book.pages import Book, BookError
from book.rules import toc_files

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# As root, and in containers, Chromium runs only without its sandbox; the rest keeps it from calling home.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update"]  # fmt: skip
SCALE = 0.75  # the letters of the site are made for a screen; on paper they are 9 points high
_FOOTER = (
    '<div style="width:100%;font-size:8px;color:#5a616b;text-align:center">'
    '<span class="title"></span> &middot; <span class="pageNumber"></span></div>'
)
# A page of paper has no folds: what unfolds on the site is printed unfolded, except long code.
_UNFOLD = "document.querySelectorAll('details:not(.hide):not(.toggle-details)').forEach(fold => { fold.open = true })"


def find_browser() -> str:
    """Return the path of a Chromium; raise BookError where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise BookError(f"no browser found ({', '.join(BROWSERS)}); on Debian: apt-get install chromium")
    return found


def write_pdf(book: Book, site: Path, output: Path, names: Sequence[str] | None = None) -> int:
    """Print pages, by default those of ``_toc.yml`` in its order, into one file with bookmarks; return its length.

    Raises
    ------
    BookError
        If the site is not built, or no browser is found or starts.
    """
    if names is None:
        contents = yaml.safe_load((book.root / "_toc.yml").read_text(encoding="utf-8"))
        names = [Path(name).name for name in toc_files(contents)]
    missing = [name for name in names if not (site / "chapters" / f"{name}.html").exists()]
    if missing:
        raise BookError(f"no built page for {', '.join(missing)}; `make book` builds the site")
    writer = PdfWriter()
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        except Error as error:
            raise BookError(f"the browser does not start: {error.message.splitlines()[0]}") from None
        page = browser.new_page(color_scheme="light")
        for name in names:
            page.goto((site / "chapters" / f"{name}.html").resolve().as_uri())
            page.wait_for_function("!window.MathJax || MathJax.startup.promise.then(() => true)")
            page.evaluate(_UNFOLD)
            printed = page.pdf(
                format="A4",
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=_FOOTER,
                margin={"top": "16mm", "bottom": "18mm", "left": "14mm", "right": "14mm"},
                print_background=True,
                scale=SCALE,
            )
            first = len(writer.pages)
            writer.append(PdfReader(io.BytesIO(printed)), import_outline=False)
            writer.add_outline_item(title=book.page(name).title, page_number=first)
            print(f"{name:14} {len(writer.pages) - first} pages", flush=True)
        browser.close()
    writer.add_metadata({"/Title": "Executable Explainers"})
    output.parent.mkdir(parents=True, exist_ok=True)
    writer.write(output)
    return len(writer.pages)
