"""The built site in a real browser: maths, console, requests, width on a phone, contrast, search, from a folder too.

Needs ``make book`` before, and a Chromium; without one every test here is skipped.
"""

from __future__ import annotations

import functools
import gzip
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT
from playwright.sync_api import Browser, Page, sync_playwright
from pypdf import PdfReader

from book.catalogue import PLANNED
from book.pages import Book
from book.pdf import ARGUMENTS, BROWSERS, write_pdf
from book.site import html_pages

SITE = ROOT / "_build" / "html"
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
PAGES = [page.name for page in Book(ROOT).pages]
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
MAX_PAGE_BYTES = 2_500_000
# For each page with claims a word that readers may look for.
SEARCHED = {
    "flooding": "curvature",
    "imbalance": "focal",
    "mitchell": "logarithm",
    "realformer": "residual",
    "matching": "judge",
    "summarization": "rouge",
    "sampling": "metropolis",
    "bioword": "fly",
    "transformer": "rotary",
}
# What axe finds in the theme and in MathJax, which are not the book's to mend.
NOT_OURS = ["[class^='mjx']", "mjx-container", ".search-button__wrapper", "#pst-back-to-top"]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium found; get one with: apt-get install chromium, or: playwright install chromium",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve the site as a plain web server would."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    assert (SITE / "index.html").exists(), "no built site; `make book` builds it"
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Visit:
    """A page that was opened, and what happened while it was."""

    def __init__(self, browser: Browser, url: str, *, size: str = "desk", theme: str = "light"):
        width, height = SIZES[size]
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.responses = []
        self.page.on("response", lambda response: self.responses.append(response))
        self.page.goto(url)
        self.page.wait_for_function("!window.MathJax || !MathJax.startup || !MathJax.startup.promise || "
                                    "MathJax.startup.promise.then(() => true)")  # fmt: skip

    def bytes(self) -> int:
        """Return what a server that compresses text, as most do, sends for the page."""
        self.page.wait_for_load_state("networkidle")
        bodies = [(response.url.partition("?")[0], response.body()) for response in self.responses if response.ok]
        packed = (".html", ".js", ".css", ".svg")
        return sum(len(gzip.compress(body, 6)) if url.endswith(packed) else len(body) for url, body in bodies)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *exception) -> None:
        self.context.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_page_opens_cleanly(browser, address, name, size):
    with Visit(browser, f"{address}/chapters/{name}.html", size=size) as visit:
        page = visit.page
        assert visit.errors == []
        assert [url for url in visit.requests if not url.startswith((address, "data:", "blob:"))] == []
        assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
        formulas = page.locator(".math").count()
        assert page.locator("mjx-container").count() >= formulas
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
        for image in page.locator("main img").all():
            alt = image.get_attribute("alt") or ""
            assert len(alt) >= 20, image.evaluate("i => i.outerHTML.slice(0, 200)")
            assert "{glue" not in alt
        if size == "desk":
            assert visit.bytes() < MAX_PAGE_BYTES
            check_keyboard(page)
        else:
            check_figures(page)


def check_keyboard(page: Page) -> None:
    """Tab reaches links, folds, buttons and sliders, shows where it is, and Enter unfolds a fold."""
    # Of a group that arrow keys move in, Tab reaches one.
    grouped = "x.parentElement.querySelector('[tabindex=\"0\"]')"
    unreached = f"x.tabIndex < 0 && x.checkVisibility() && !{grouped}"
    skipped = f"e => e.filter(x => {unreached}).map(x => x.outerHTML.slice(0, 160))"
    controls = "main a[href], main button, main input, main select, main summary, main [onclick]"
    assert page.locator(controls).evaluate_all(skipped) == []
    places = []
    for _ in range(12):
        page.keyboard.press("Tab")
        places.append(page.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
        outline = "(s => s.outlineStyle !== 'none' || s.boxShadow !== 'none')(getComputedStyle(document.activeElement))"
        assert page.evaluate(outline), f"the focus cannot be seen at {places[-1]}"
    assert len(set(places)) >= 10
    fold = page.query_selector("main details:not([open]) > summary")
    if fold is not None:
        fold.focus()
        page.keyboard.press("Enter")
        assert fold.evaluate("s => s.parentElement.open")


def check_figures(page: Page) -> None:
    """A figure keeps more than half of its drawn size, in a box that scrolls, and leads to its picture alone."""
    for image in page.locator("main figure img").all():
        scale = image.evaluate("i => i.getBoundingClientRect().width / i.naturalWidth")
        assert scale >= 0.55, image.get_attribute("src")
        assert image.evaluate("i => i.parentElement.href === i.src")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible(browser, address, name, theme):
    """Axe finds no serious violation; among its rules is a contrast of 4.5:1 for text."""
    with Visit(browser, f"{address}/chapters/{name}.html", theme=theme) as visit:  # the theme follows the system
        assert visit.page.evaluate("document.documentElement.dataset.theme") == theme
        options = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa"]}}
        context = {"exclude": [[selector] for selector in NOT_OURS]}
        results = Axe().run(visit.page, context=context, options=options).response
        serious = [v for v in results["violations"] if v["impact"] in ("serious", "critical")]
        found = [(v["id"], node["html"][:160], node["failureSummary"][:200]) for v in serious for node in v["nodes"]]
        assert found == []


@pytest.mark.parametrize("name", PAGES)
def test_page_opens_from_a_folder(browser, name):
    with Visit(browser, (SITE / "chapters" / f"{name}.html").as_uri()) as visit:
        assert visit.errors == []
        assert [url for url in visit.requests if not url.startswith(("file:", "data:", "blob:"))] == []
        assert visit.page.locator("mjx-merror").count() == 0


def test_index_leads_to_the_introduction(browser, address):
    with Visit(browser, address) as visit:
        visit.page.wait_for_url("**/chapters/intro.html")
        assert visit.page.locator(".gallery-card").count() == 8
        linked = [link.get_attribute("href") for link in visit.page.locator(".gallery-card a").all()]
        assert linked == [f"{chapter.name}.html" for chapter in PLANNED if chapter.name in PAGES]


@pytest.mark.parametrize(("name", "term"), SEARCHED.items())
def test_search_finds_a_term_of_every_chapter(browser, address, name, term):
    with Visit(browser, f"{address}/search.html?q={term}") as visit:
        visit.page.wait_for_selector(f"#search-results li a[href*='{name}.html']")
        assert visit.errors == []


def test_every_ledger_link_leads_to_a_place(browser, address):
    """A link of the ledger scrolls to the equation it names (the built files are checked link by link elsewhere)."""
    with Visit(browser, f"{address}/chapters/ledger.html") as visit:
        visit.page.locator("a.claim-label").first.click()
        visit.page.wait_for_load_state()
        fragment = visit.page.evaluate("decodeURIComponent(location.hash.slice(1))")
        assert visit.page.locator(f"[id='{fragment}']").count() == 1


def test_notebook_and_text_can_be_saved(browser, address):
    with Visit(browser, f"{address}/chapters/mitchell.html") as visit:
        for suffix in (".ipynb", ".md"):
            visit.page.locator(".dropdown-download-buttons > button").click()
            with visit.page.expect_download() as download:
                visit.page.locator(f".dropdown-download-buttons a[href$='mitchell{suffix}']").click()
            assert download.value.path().read_bytes() == (ROOT / "chapters" / f"mitchell{suffix}").read_bytes()


def test_theme_can_be_switched(browser, address):
    with Visit(browser, f"{address}/chapters/intro.html") as visit:
        visit.page.locator("button.theme-switch-button").first.click()
        assert visit.page.evaluate("document.documentElement.dataset.mode") != "light"


def test_the_pdf_has_every_page_and_its_bookmark(tmp_path):
    """On one page of the site, as the whole takes a while: the browser prints it, maths and all."""
    book = Book(ROOT)
    arguments = (book, SITE, tmp_path / "book.pdf", ["intro", "references"])
    with ThreadPoolExecutor(1) as thread:  # Playwright allows one browser driver a thread, and the fixture has ours
        count = thread.submit(write_pdf, *arguments).result()
    reader = PdfReader(tmp_path / "book.pdf")
    assert count == len(reader.pages) >= 3
    assert [item.title for item in reader.outline] == ["Executable Explainers", "References"]
    assert "What stands below an equation" in "".join(page.extract_text() for page in reader.pages)


def test_no_page_is_forgotten():
    built = {path.stem for path in html_pages(SITE) if path.parent.name == "chapters"}
    assert built == {*PAGES}
    assert all(Path(SITE, "chapters", f"{name}.html").stat().st_size > 5_000 for name in PAGES)
