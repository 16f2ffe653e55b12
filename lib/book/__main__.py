"""The command line of the book's tools."""

from __future__ import annotations

import argparse
import os
import sys

from book.pages import BookError, find_book


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except BookError as error:
        print(f"book: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from book.run import run

    return 1 if run(find_book(), options.chapter, options.force) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m book", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="re-execute the pages whose code, library or data changed")
    run.add_argument("chapter", nargs="*", help="a page's name; all pages if none is given")
    run.add_argument("--force", action="store_true", help="run even what is up to date")
    run.set_defaults(command=_run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
