"""A Sphinx extension: alternative texts quote the run, by ``{glue:text}`` in ``mystnb.image.alt``.

MyST reads an alternative text as bare words. Here the words that the page's own run has glued are put in, so that a
number told to those who cannot see the figure is as measured as any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from book.prose import GLUE, glued, quote


def _quote_in(app: Sphinx, doctree: nodes.document) -> None:
    images = [image for image in doctree.findall(nodes.image) if GLUE.search(image.get("alt", ""))]
    if not images:
        return
    path = Path(app.env.doc2path(app.env.docname))
    words = glued(nbformat.read(path, as_version=4)) if path.suffix == ".ipynb" else {}
    for image in images:
        try:
            image["alt"] = quote(image["alt"], words)
        except KeyError as error:
            logging.getLogger(__name__).warning(
                "the alternative text quotes %s, which this page does not glue", error, location=app.env.docname
            )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("doctree-read", _quote_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
