"""The website around jupyter-book: its configuration before the build, and what is mended and verified after it."""

from __future__ import annotations

import html
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

from book.pages import Book, BookError, Page, code_cells, displayed, tags

BINDER = "https://mybinder.org"
COLAB = "https://colab.research.google.com"
GITHUB = "https://github.com"

# What sphinx-thebe writes into every page, twice. Jupyter Book loads it without being asked; nothing here uses it.
_THEBE = [
    re.compile(r"<script>const THEBE_JS_URL.*?</script>\s*", re.DOTALL),
    re.compile(r"<script[^>]*\bsphinx-thebe\.js[^>]*>\s*</script>\s*"),
    re.compile(r"<link[^>]*\bsphinx-thebe\.css[^>]*>\s*"),
    re.compile(r"<script type=\"text/x-thebe-config\">.*?</script>\s*", re.DOTALL),
    re.compile(r"<script>kernelName = '[^']*'</script>\s*"),
]
# From a folder a browser may not preload a font, and says so in its console; the style sheet finds the fonts anyway.
_FONT_PRELOAD = re.compile(r"<link rel=\"preload\" as=\"font\"[^>]*>\s*")
# One and a half megabytes that draw the icons a second time; the style sheet and its fonts draw them already.
_ICON_SCRIPT = re.compile(r"<script[^>]*\bfontawesome/[^>]*/js/[^>]*>\s*</script>\s*")
_FIGURE = re.compile(r"(<figure\b[^>]*>\s*)(<img\b[^>]*\bsrc=\"([^\"]+)\"[^>]*>)")
_SVG_WIDTH = re.compile(r"<svg\b[^>]*\bwidth=\"([\d.]+)pt\"")
WIDE_POINTS = 420  # a figure of that width has letters too small to read when it is shrunk to a phone
_SOURCE_ITEM = re.compile(
    r"<li><a href=\"([^\"]*/_sources/chapters/[a-z0-9-]+)\.ipynb\" target=\"_blank\".*?</li>", re.DOTALL
)
_EDIT_NOTEBOOK = re.compile(r"(/edit/[^\"]*/chapters/[a-z0-9-]+)\.ipynb")
_LOADING_RELS = {"stylesheet", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "icon", "manifest"}
_ELSEWHERE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_CSS_ELSEWHERE = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)
_NAMESPACES = re.compile(r"https?://www\.w3\.org/")


# ---------------------------------------------------------------------- before the build


def write_config(book: Book, output: Path) -> bool:
    """Write ``_config.yml`` with what only the place of the build knows; return whether the file changed.

    Raises
    ------
    BookError
        If the Jupyter Book that is installed is not version 1, the one that reads this file.
    """
    installed = version("jupyter-book")
    if not installed.startswith("1."):
        raise BookError(f"jupyter-book {installed} is another program than version 1; install requirements.txt")
    settings = yaml.safe_load((book.root / "_config.yml").read_text(encoding="utf-8"))
    text = yaml.safe_dump(configure(settings, os.environ), sort_keys=False, allow_unicode=True)
    if output.exists() and output.read_text(encoding="utf-8") == text:
        return False
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    return True


def configure(settings: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings with the links to the repository that the environment names, or with none.

    On GitHub ``GITHUB_SERVER_URL`` and ``GITHUB_REPOSITORY`` say where the sources are, which gives every page its
    "repository", "edit", "issue", Binder and Colab buttons. ``BOOK_URL`` is the address at which the site is published.
    """
    settings = {key: value for key, value in deepcopy(settings).items() if key not in ("repository", "launch_buttons")}
    site = {key: value for key, value in (settings.get("html") or {}).items() if not key.endswith("_button")}
    server, repository = environment.get("GITHUB_SERVER_URL"), environment.get("GITHUB_REPOSITORY")
    if server == GITHUB and repository:
        on_branch = environment.get("GITHUB_REF", "").startswith("refs/heads/")
        branch = environment.get("GITHUB_REF_NAME", "main") if on_branch else "main"
        settings["repository"] = {"url": f"{server}/{repository}", "branch": branch, "path_to_book": ""}
        settings["launch_buttons"] = {"notebook_interface": "jupyterlab", "binderhub_url": BINDER, "colab_url": COLAB}
        site |= {f"use_{name}_button": True for name in ("repository", "edit_page", "issues")}
    if address := environment.get("BOOK_URL"):
        site["baseurl"] = address
        options = settings.setdefault("sphinx", {}).setdefault("config", {})
        options |= {"ogp_site_url": address, "ogp_image": address.rstrip("/") + "/_static/card.png"}
    return {**settings, "html": site}


# ---------------------------------------------------------------------- after the build


def finish(book: Book, site: Path) -> list[str]:
    """Mend the built pages and return what is still wrong with the site."""
    if not site.is_dir():
        raise BookError(f"no built site at {site}; `make book` builds it")
    settings = yaml.safe_load((book.root / "_config.yml").read_text(encoding="utf-8"))
    authors = [settings["author"]] if "author" in settings else []
    for path in html_pages(site):
        if path.parent.name == "chapters" and path.stem not in {page.name for page in book.pages}:
            path.unlink()  # left over from a page that is gone
            continue
        text = path.read_text(encoding="utf-8")
        mended = mend(text)
        if path.parent.name == "chapters":
            mended = offer_text(frame_figures(mended, path.parent))
            sources = site / "_sources" / "chapters"
            sources.mkdir(parents=True, exist_ok=True)
            shutil.copy(book.page(path.stem).source, sources)
            mended = cite(mended, book.page(path.stem), authors)
        if mended != text:
            path.write_text(mended, encoding="utf-8")
    for unused in ("_static/sphinx-thebe.*", "_static/vendor/fontawesome/*/js/*"):
        for path in site.glob(unused):
            path.unlink()
    if address := os.environ.get("BOOK_URL"):
        write_sitemap(site, address)
    return [*verify(book, site)]


def cite(text: str, page: Page, authors: Iterable[str]) -> str:
    """Return a page with the tags that reference managers read.

    They say the title, the authors and the year; the address is that of the page itself.
    """
    title = f"{page.title} (Executable Explainers)"
    tags = [("citation_title", title), *(("citation_author", author) for author in authors)]
    tags += [("citation_publication_date", "2026"), ("citation_language", "en")]
    words = "".join(f'<meta name="{name}" content="{html.escape(value, quote=True)}" />\n' for name, value in tags)
    return text if "citation_title" in text else text.replace("</head>", words + "</head>", 1)


def write_sitemap(site: Path, address: str) -> None:
    """Write ``sitemap.xml``, which tells search engines the pages of a site whose address is known."""
    urls = [f"{address.rstrip('/')}/{path.relative_to(site).as_posix()}" for path in html_pages(site)]
    entries = "".join(f"<url><loc>{html.escape(url)}</loc></url>" for url in urls)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    (site / "sitemap.xml").write_text(f"{head}{entries}</urlset>\n", encoding="utf-8")


def html_pages(site: Path) -> list[Path]:
    """Return the pages of a built site; what lies in ``_static`` and the like are parts of pages."""
    return [path for path in sorted(site.rglob("*.html")) if not path.relative_to(site).parts[0].startswith("_")]


def mend(text: str) -> str:
    """Return a page without sphinx-thebe and second loads of icons; its link "edit" leads to the text people edit.

    >>> mend('<p>x</p><script async="async" src="_static/sphinx-thebe.js?v=1"></script>')
    '<p>x</p>'
    """
    for pattern in (*_THEBE, _FONT_PRELOAD, _ICON_SCRIPT):
        text = pattern.sub("", text)
    # a list may hold nothing but list items, and docutils puts links between the entries
    text = text.replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    return _EDIT_NOTEBOOK.sub(r"\1.md", text)


def frame_figures(text: str, folder: Path) -> str:
    """Return a page in which every figure links to its picture, to be looked at alone, and wide ones are marked.

    On a phone the style sheet lets what is marked scroll in its own box, at a size at which it can be read.
    """

    def framed(match: re.Match[str]) -> str:
        before, image, source = match.groups()
        kind = "figure-image figure-wide" if _is_wide(folder / source) else "figure-image"
        return f'{before}<a class="{kind}" href="{source}">{image}</a>'

    return _FIGURE.sub(framed, text)


def offer_text(text: str) -> str:
    """Return a page whose download button offers the text that people edit beside the notebook, both to be saved."""

    def both(match: re.Match[str]) -> str:
        item = match.group().replace('target="_blank"', "download")
        words = item.replace(".ipynb", ".md").replace("Download source file", "Download the text")
        return item.replace("Download source file", "Download the notebook") + words

    return _SOURCE_ITEM.sub(both, text)


def _is_wide(picture: Path) -> bool:
    if picture.suffix != ".svg" or not picture.is_file():
        return False
    width = _SVG_WIDTH.search(picture.read_text(encoding="utf-8")[:2000])
    return width is not None and float(width.group(1)) > WIDE_POINTS


def verify(book: Book, site: Path) -> Iterator[str]:
    """Yield what is wrong: pages that are missing, outputs that are missing, anything loaded from another host."""
    for page in book.pages:
        path = site / "chapters" / f"{page.name}.html"
        if not path.exists():
            yield f"{path}: missing; is chapters/{page.name} in _toc.yml?"
        elif page.executed is not None:
            yield from _outputs_arrived(page, path)
    if not (site / "index.html").exists():
        yield f"{site / 'index.html'}: missing"
    yield from broken_links(site)
    for path in html_pages(site):
        text = path.read_text(encoding="utf-8")
        yield from (f"{path}: loads {address} from another host" for address in loaded_elsewhere(text))
        if "THEBE_JS_URL" in text or "sphinx-thebe" in text:
            yield f"{path}: still refers to sphinx-thebe"
    for path in sorted(site.rglob("*.css")):
        for address in _CSS_ELSEWHERE.findall(path.read_text(encoding="utf-8", errors="replace")):
            yield f"{path}: loads {address} from another host"


def broken_links(site: Path) -> Iterator[str]:
    """Yield each link within the site whose page, file or place on a page does not exist."""
    pages = {
        path.resolve(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in html_pages(site)
    }
    places = {path: {str(tag["id"]) for tag in soup.find_all(id=True)} for path, soup in pages.items()}
    for path, soup in pages.items():
        for href in dict.fromkeys(str(link["href"]) for link in soup.find_all("a", href=True)):
            parts = urlsplit(href)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{path}: links to {href}, which does not exist"
            elif target in places and parts.fragment and unquote(parts.fragment) not in places[target]:
                yield f"{path}: links to {href}, a place that the page does not have"


def loaded_elsewhere(text: str) -> list[str]:
    """Return the addresses on other hosts that opening a page would ask for.

    >>> loaded_elsewhere('<a href="https://example.org">a link is not loaded</a>')
    []
    >>> loaded_elsewhere('<script src="//example.org/x.js"></script>')
    ['//example.org/x.js']
    """
    soup = BeautifulSoup(text, "html.parser")
    return list(dict.fromkeys(address for element in soup.find_all(True) for address in _loads(element)))


def _loads(element: Tag) -> Iterator[str]:
    """Yield what one element loads from another host."""
    candidates: list[str] = []
    if element.name == "link":
        rels = {rel.lower() for rel in element.get("rel") or []}
        candidates += [str(element.get("href", ""))] if rels & _LOADING_RELS else []
    elif element.name in ("image", "use"):
        candidates += [str(element.get("href", "")), str(element.get("xlink:href", ""))]
    else:
        candidates += [str(element.get(name, "")) for name in ("src", "data", "poster")]
        candidates += [part.strip() for part in str(element.get("srcset", "")).split(",")]
    yield from (address for address in candidates if _ELSEWHERE.match(address))
    yield from _CSS_ELSEWHERE.findall(str(element.get("style", "")))
    if element.name == "style":
        yield from _CSS_ELSEWHERE.findall(element.text)
    if element.name == "script" and not element.get("src") and element.get("type") != "application/ld+json":
        yield from re.findall(r"https?://[^\s'\"`<>\\]+", _NAMESPACES.sub("", element.text))


def _outputs_arrived(page: Page, path: Path) -> Iterator[str]:
    """Yield what a built page lacks of its notebook's outputs."""
    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    shown = soup.select("div.cell div.cell_output")
    images = [image for output in shown for image in output.find_all("img")]
    figures = [image for image in images if not image.find_parent(class_="text_html")]
    cells = [cell for cell in code_cells(page.executed) if not {"remove-cell", "remove-output"} & set(tags(cell))]
    expected = sum(any(_visible(output) for output in cell.outputs) for cell in cells)
    expected_figures = sum("image/png" in data or "image/svg+xml" in data for cell in cells for data in displayed(cell))
    found = sum(bool(output.get_text(strip=True) or output.find(["img", "svg", "canvas"])) for output in shown)
    if found != expected:
        yield f"{path}: shows the outputs of {found} code cells, its notebook has {expected}"
    if len(figures) != expected_figures:
        yield f"{path}: shows {len(figures)} figures, its notebook has {expected_figures}"


def _visible(output: Mapping[str, Any]) -> bool:
    """Return whether a page shows an output; what is only stored for the text to quote is not shown by itself."""
    data = output.get("data")
    return data is None or any(not kind.startswith("application/papermill.record") for kind in data)
