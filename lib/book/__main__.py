"""The command line of the book's tools."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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


def _check(options: argparse.Namespace) -> int:
    from book.rules import check

    book = find_book()
    problems = check(book)
    for problem in problems:
        print(problem)
    pages = f"{len(book.pages)} page{'' if len(book.pages) == 1 else 's'}"
    print(f"{len(problems)} problems on {pages}" if problems else f"{pages}: every rule of the book holds")
    return 1 if problems else 0


def _doctor(options: argparse.Namespace) -> int:
    from book.doctor import doctor

    return 1 if doctor(find_book(), options.chapter) else 0


def _validate(options: argparse.Namespace) -> int:
    from book.validate import validate

    return validate(find_book(), options.chapter, options.workers, options.force)


def _config(options: argparse.Namespace) -> int:
    from book.site import write_config

    write_config(find_book(), options.output)
    return 0


def _pdf(options: argparse.Namespace) -> int:
    from book.pdf import write_pdf

    count = write_pdf(find_book(), options.site, options.output)
    print(f"{options.output}: {count} pages, {options.output.stat().st_size / 1e6:.1f} MB")
    return 0


def _finish(options: argparse.Namespace) -> int:
    from book.rules import pair_in_sync, stamp_current
    from book.site import finish

    book = find_book()
    problems = finish(book, options.site)
    for problem in problems:
        print(problem)
    for note in (note for page in book.pages for rule in (pair_in_sync, stamp_current) for note in rule(page, book)):
        print(f"note, the site shows what is stored: {note}")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m book", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="re-execute the pages whose code, library or data changed")
    run.add_argument("chapter", nargs="*", help="a page's name; all pages if none is given")
    run.add_argument("--force", action="store_true", help="run even what is up to date")
    run.set_defaults(command=_run)

    check = commands.add_parser("check", help="apply the book's rules, without running anything")
    check.set_defaults(command=_check)

    validate = commands.add_parser("validate", help="re-run the notebooks and compare every output (nbval)")
    validate.add_argument("chapter", nargs="*", help="a page's name; all pages if none is given")
    validate.add_argument("--workers", type=int, default=2, help="notebooks at a time (default: 2)")
    validate.add_argument("--force", action="store_true", help="run even what passed here before, unchanged")
    validate.set_defaults(command=_validate)

    doctor = commands.add_parser("doctor", help="run a chapter here and say what differs from the stored outputs")
    doctor.add_argument("chapter", help="a page's name")
    doctor.set_defaults(command=_doctor)

    config = commands.add_parser("config", help="write the site's configuration, with the repository if it is known")
    config.add_argument("output", type=Path, help="the file to write")
    config.set_defaults(command=_config)

    pdf = commands.add_parser("pdf", help="print the built site into one PDF")
    pdf.add_argument("site", type=Path, help="the folder of the built pages")
    pdf.add_argument("output", type=Path, help="the file to write")
    pdf.set_defaults(command=_pdf)

    finish = commands.add_parser("finish", help="make the built site independent of other hosts, and verify it")
    finish.add_argument("site", type=Path, help="the folder of the built pages")
    finish.set_defaults(command=_finish)
    return parser


if __name__ == "__main__":
    sys.exit(main())
