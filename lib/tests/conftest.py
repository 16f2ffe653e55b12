"""What several test files share: one thread for the numerical libraries, and a tiny book to break."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before anything imports NumPy or torch

from book.pages import Book  # noqa: E402
from book.run import run  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]

FRONT_MATTER = """\
---
jupytext:
  formats: ipynb,md:myst
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
explainers:
"""

CHAPTER = (
    FRONT_MATTER
    + """\
  minutes_to_read: 2
  run_seconds: 3
---

# A tiny chapter

It reads in 2 minutes and runs in about 3 seconds {cite}`someone2020`.

$$ 1 + 1 = 2 $$ (eq-mitchell-sum)

```{code-cell} ipython3
:tags: [hide-input]

import matplotlib.pyplot as plt
from explainers import mitchell, plots, verify

plots.setup()
claims = verify.Ledger("mitchell")
claims.proved("eq-mitchell-sum", 1 + 1, 2, counterfeit=3)
```

(obs-mitchell-line)=
A figure and a value.

```{code-cell} ipython3
---
mystnb:
  image:
    alt: A straight line from the origin to the point one, one.
  figure:
    name: fig-mitchell-line
    caption: A line.
---
fig, ax = plots.figure("mitchell-line")
_ = ax.plot([0, 1])
```

```{code-cell} ipython3
claims.experiment("obs-mitchell-line", [1, 2, 3, 4, 5], at_least=0, says="the seeds agree")
print("measured", 0.125)
```

```{code-cell} ipython3
claims
```
"""
)

LEDGER = (
    FRONT_MATTER
    + """\
  run_seconds: 1
  reads: [ledgers]
---

# The ledger

```{code-cell} ipython3
from book.ledger import BookLedger

BookLedger()
```
"""
)

FILES = {
    "chapters/mitchell.md": CHAPTER,
    "chapters/ledger.md": LEDGER,
    "chapters/references.bib": "@book{someone2020, author = {One, Some}, title = {A Book}, year = {2020}}\n",
    "_toc.yml": "format: jb-book\nroot: chapters/ledger\nchapters:\n- file: chapters/mitchell\n",
    "_config.yml": "title: Tiny\n",
    "requirements.txt": "numpy==2.4.6\n",
    # The modules that are hashed; those that run are the installed ones.
    "lib/explainers/__init__.py": "",
    "lib/explainers/mitchell.py": "def product():\n    from .shared import constant\n    return constant\n",
    "lib/explainers/shared.py": "constant = 2\n",
    "lib/explainers/plots.py": "",
    "lib/explainers/verify.py": "",
    "lib/explainers/flooding.py": "",
    "lib/explainers/assets/mitchell_adder.html": "<p>one</p>",
    "lib/explainers/assets/flooding_plot.html": "<p>two</p>",
    "lib/book/__init__.py": "",
    "lib/book/ledger.py": "import explainers.verify\n",
}


@pytest.fixture(scope="session")
def book() -> Book:
    """The book that this repository holds."""
    return Book(ROOT)


@pytest.fixture(scope="session")
def executed_tiny_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    sanitize = root / "lib/tests/nbval_sanitize.cfg"
    sanitize.parent.mkdir()
    shutil.copy(ROOT / "lib/tests/nbval_sanitize.cfg", sanitize)
    assert run(Book(root), []) == 0
    return root


@pytest.fixture
def tiny(executed_tiny_book: Path, tmp_path: Path) -> Path:
    """A copy of a tiny book of one chapter, executed, in which every rule holds; return its folder."""
    root = tmp_path / "book"
    shutil.copytree(executed_tiny_book, root)
    return root
