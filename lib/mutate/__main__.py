"""``python -m mutate library | derivations | text | stability``: each part says with ``--help`` what it takes."""

from __future__ import annotations

import importlib
import sys

PARTS = ("library", "derivations", "text", "stability")


def main(arguments: list[str]) -> int:
    """Run one part with the arguments after its name; return the exit status."""
    if not arguments or arguments[0] not in PARTS:
        print(f"usage: python -m mutate {{{','.join(PARTS)}}} [--help]", file=sys.stderr)
        return 2
    return importlib.import_module(f"mutate.{arguments[0]}").main(arguments[1:]) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
