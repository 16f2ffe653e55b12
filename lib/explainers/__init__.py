"""Executable Explainers: one module per chapter, and the shared modules that they call."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec

__version__ = "0.1.0"

# What every chapter needs; the full list, with versions, is requirements.txt.
_NEEDED = ("numpy", "scipy", "sympy", "sklearn", "torch", "matplotlib", "IPython")


def _check_environment(python: tuple[int, ...] = sys.version_info[:2], needed: Iterable[str] = _NEEDED) -> None:
    """Raise an ``ImportError`` of one sentence if this Python is too old or new, or a package is missing."""
    if not (3, 11) <= python < (3, 14):
        version = ".".join(map(str, python))
        raise ImportError(f"the book needs Python 3.11, 3.12 or 3.13, this is {version}; `make book` finds a right one")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the book needs {', '.join(missing)}, which this Python ({sys.executable}) does not have; "
            "`make book` installs everything into .venv, `pip install -r requirements.txt` into the Python you call"
        )


_check_environment()
