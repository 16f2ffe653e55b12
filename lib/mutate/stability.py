"""``python -m mutate stability``: run every notebook under several settings, and report each verdict that changes.

A setting is what another machine, or another person on it, has differently: the number of threads, the instructions
that the processor offers, the seed of Python's hashes, the folder, the locale, the time zone, the network.  Compared
are the claims of the page's ledger, and every output that nbval compares, with those of the stored notebook (of a stale
notebook: with those of the setting ``here``).  None may change.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbformat import NotebookNode

import book.execute
from book.doctor import SANITIZE, compare, sanitize_patterns
from book.ledger import chapter_ledger
from book.pages import Book, Page, code_cells, find_book

REPORT = Path("_build", "stability.json")
ODD_FOLDER = "a folder, elsewhere ü"
CLOSED_PORT = "http://127.0.0.1:9"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# Put first on PYTHONPATH where no network namespace can be made: every connection but to this machine is refused.
_NO_SOCKETS = """
import socket

def refuse(connect):
    def method(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(101, f"no network: {address}")
        return connect(self, address)
    return method

socket.socket.connect, socket.socket.connect_ex = map(refuse, (socket.socket.connect, socket.socket.connect_ex))
"""


@dataclass(frozen=True)
class Setting:
    """A way in which a run differs from the one that made the stored outputs."""

    name: str
    says: str
    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    folder: str = "book"
    offline: bool = False


def _locale() -> str:
    """Return a German locale if there is one, else the plain one of C."""
    with contextlib.suppress(OSError):
        names = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
        return next((name for name in names if name.startswith("de_DE.") and "8" in name), "C")
    return "C"


def _instructions(torch: str, mkl: str, openblas: str, onednn: str, numpy: Iterable[str]) -> dict[str, str]:
    """Return the environment in which every numerical library keeps to the instructions of an older processor."""
    cpu = np._core._multiarray_umath  # NumPy objects to names that this processor, or this build, does not have
    without = [name for name in cpu.__cpu_dispatch__ if cpu.__cpu_features__[name] and name not in numpy]
    return {
        "ATEN_CPU_CAPABILITY": torch,
        "MKL_CBWR": mkl,
        "OPENBLAS_CORETYPE": openblas,
        "ONEDNN_MAX_CPU_ISA": onednn,
        **({"NPY_DISABLE_CPU_FEATURES": " ".join(without)} if without else {}),
    }


@cache
def settings() -> dict[str, Setting]:
    """Return the settings by name. ``elsewhere`` is all of those that do not touch arithmetic, at once."""
    locale, zone = _locale(), "Asia/Shanghai" if Path("/usr/share/zoneinfo/Asia/Shanghai").exists() else "CST-8"
    hashes, words, clock = {"PYTHONHASHSEED": "20201214"}, {"LC_ALL": locale, "LANG": locale}, {"TZ": zone}
    found = [
        Setting("here", "as `make run` runs it"),
        Setting("threads-2", "two threads for the numerical libraries", threads=2),
        Setting("aten-default", "torch without vector instructions", {"ATEN_CPU_CAPABILITY": "default"}),
        Setting("aten-avx2", "torch with AVX2 only", {"ATEN_CPU_CAPABILITY": "avx2"}),
        Setting("avx2", "every library with AVX2 only", _instructions("avx2", "AVX2", "Haswell", "AVX2", ["X86_V3"])),
        Setting("sse", "every library without AVX", _instructions("default", "COMPATIBLE", "Nehalem", "SSE41", [])),
        Setting("hash-seed", "another seed of Python's hashes", hashes),
        Setting("folder", f"in a folder named {ODD_FOLDER!r}", folder=ODD_FOLDER),
        Setting("locale", f"LC_ALL={locale}", words),
        Setting("time-zone", f"TZ={zone}", clock),
        Setting("offline", "no network", offline=True),
        Setting("elsewhere", "the last five at once", {**hashes, **words, **clock}, folder=ODD_FOLDER, offline=True),
    ]
    return {setting.name: setting for setting in found}


QUICK = ("threads-2", "avx2", "sse", "elsewhere")


@dataclass
class Outcome:
    """What one page did under one setting. ``claims`` and ``outputs`` hold a sentence for each difference."""

    page: str
    setting: str
    seconds: float
    claims: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def same(self) -> bool:
        return not (self.claims or self.outputs or self.failure)

    def __str__(self) -> str:
        if self.same:
            return "same"
        if self.failure:
            return "A CLAIM BROKE" if "ClaimFailed" in self.failure else "FAILED"
        return f"{len(self.claims)} claims, {len(self.outputs)} outputs"


# ---------------------------------------------------------------------- one run


def run_under(page: Page, setting: Setting) -> tuple[NotebookNode | None, str, float]:
    """Run a copy of the page in a process of its own; return the notebook, the failure in words, and the seconds."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary, setting.folder)
        shutil.copytree(page.chapters, root / "chapters", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
        result = Path(temporary, "result.ipynb")
        command = [sys.executable, "-m", "mutate.stability", "--worker", page.name, str(root), str(result)]
        done = subprocess.run(
            [*_prefix(setting), *command, "--threads", str(setting.threads)],
            env=_environment(setting, Path(temporary)),
            cwd=root,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
        notebook = nbformat.read(result, as_version=4) if result.exists() else None
    failure = "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"status {done.returncode}"
    return notebook, failure, time.perf_counter() - start


@cache
def can_unshare() -> bool:
    """Return whether this machine lets us make a network namespace in which only this machine is reached."""
    with contextlib.suppress(OSError):
        return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    return False


_UNSHARE = ("unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


def _prefix(setting: Setting) -> Iterable[str]:
    return _UNSHARE if setting.offline and can_unshare() else ()


def _environment(setting: Setting, temporary: Path) -> dict[str, str]:
    library = str(Path(__file__).resolve().parents[1])
    path = [library, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **setting.environment}
    if setting.offline:
        (temporary / "no_sockets").mkdir()
        (temporary / "no_sockets" / "sitecustomize.py").write_text(_NO_SOCKETS, encoding="utf-8")
        path.insert(0, str(temporary / "no_sockets"))
        environment |= dict.fromkeys(_PROXIES, CLOSED_PORT)
    return {**environment, "PYTHONPATH": os.pathsep.join(path)}


def _worker(name: str, root: Path, result: Path, threads: int) -> int:
    """Execute a page in a process whose environment is the setting's; write the notebook as far as it got."""
    book.execute.THREADS = dict.fromkeys(book.execute.THREADS, str(threads))
    page = Page(name, root / "chapters")
    try:
        notebook, status = book.execute.execute(page.written, page.chapters, name), 0
    except book.execute.RunFailed as error:
        print(error)
        notebook, status = error.notebook, 1
    nbformat.write(notebook, result)
    return status


# ---------------------------------------------------------------------- the comparison


def differences(page: Page, setting: Setting, reference: NotebookNode, sanitize: Path) -> Outcome:
    """Run a page under a setting and compare it with a reference."""
    notebook, failure, seconds = run_under(page, setting)
    outcome = Outcome(page.name, setting.name, round(seconds, 1), failure=failure)
    if notebook is not None and not failure:
        outcome.claims = changed_claims(reference, notebook)
        patterns = sanitize_patterns(sanitize)
        outcome.outputs = [f"code cell {number}: {what}" for number, what in compare(reference, notebook, patterns)]
    return outcome


def changed_claims(reference: NotebookNode, here: NotebookNode) -> list[str]:
    """Return a sentence for each claim that one of two runs does not hold, or holds in other words."""
    old, new = (_claims(notebook) for notebook in (reference, here))
    changed = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
    names = {(label, part): f"{label} ({part})" if part else label for label, part in changed}
    return [f"{names[key]}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}" for key in changed]


def _claims(notebook: NotebookNode) -> dict[tuple[str, str], Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.ipynb")
        nbformat.write(notebook, path)
        ledger = chapter_ledger(path) or {"claims": []}
    return {(claim["label"], claim.get("part") or ""): claim for claim in ledger["claims"]}


def is_fresh(page: Page) -> bool:
    """Return whether the stored notebook has the cells of the text."""
    if page.executed is None:
        return False
    return [c.source for c in code_cells(page.executed)] == [c.source for c in code_cells(page.written)]


def check(book_: Book, names: list[str], chosen: list[str], workers: int = 1) -> list[Outcome]:
    """Run the pages under the chosen settings; print a line for each run, and return what they did."""
    pages = [book_.page(name) for name in names] or book_.pages
    sanitize = book_.root / SANITIZE
    references: dict[str, NotebookNode] = {}
    outcomes: list[Outcome] = []
    for page in pages:
        if is_fresh(page):
            references[page.name] = page.executed
            continue
        notebook, failure, seconds = run_under(page, settings()["here"])
        print(f"{page.name:14} stale: compared with a run of now, not with the stored outputs", flush=True)
        if failure or notebook is None:
            outcomes.append(Outcome(page.name, "here", round(seconds, 1), failure=failure or "no notebook"))
        else:
            references[page.name] = notebook
    tasks = [(page, settings()[name]) for name in chosen for page in pages if page.name in references]
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(differences, page, setting, references[page.name], sanitize) for page, setting in tasks]
        for job in jobs:
            outcome = job.result()
            outcomes.append(outcome)
            print(f"{outcome.page:14} {outcome.setting:13} {outcome.seconds:6.1f} s  {outcome}", flush=True)
    return outcomes


# ---------------------------------------------------------------------- the report


def table(outcomes: list[Outcome]) -> str:
    """Return one row per page and one column per setting, and below it each difference."""
    names = list(dict.fromkeys(outcome.setting for outcome in outcomes))
    pages = list(dict.fromkeys(outcome.page for outcome in outcomes))
    cells = {(outcome.page, outcome.setting): str(outcome) for outcome in outcomes}
    rows = [["page", *names], *([page, *(cells.get((page, name), "-") for name in names)] for page in pages)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names) + 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    for outcome in outcomes:
        lines += [f"{outcome.page} under {outcome.setting}: claim {words}" for words in outcome.claims]
        lines += [f"{outcome.page} under {outcome.setting}: {words}" for words in outcome.outputs]
        if outcome.failure:
            lines.append(f"{outcome.page} under {outcome.setting}: {outcome.failure}")
    return "\n".join(lines)


def _store(path: Path, outcomes: list[Outcome]) -> None:
    path.parent.mkdir(exist_ok=True)
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for outcome in outcomes:
        stored.setdefault(outcome.page, {})[outcome.setting] = asdict(replace(outcome))
    path.write_text(json.dumps(stored, indent=1, ensure_ascii=False), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mutate stability", description=__doc__)
    parser.add_argument("chapter", nargs="*", help="a page's name; all pages if none is given")
    parser.add_argument(
        "--setting", action="append", choices=list(settings()), help="may be given several times (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, which cover all but BLAS")
    parser.add_argument("--workers", type=int, default=1, help="notebooks at a time (default: 1)")
    parser.add_argument("--worker", nargs=3, metavar=("PAGE", "ROOT", "RESULT"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the subcommand; return 1 if anything changed."""
    options = _parser().parse_args(arguments)
    if options.worker:
        name, root, result = options.worker
        return _worker(name, Path(root), Path(result), options.threads)
    start, book_ = time.perf_counter(), find_book()
    chosen = options.setting or list(QUICK if options.quick else settings())
    if any(settings()[name].offline for name in chosen):
        print(f"no network by {'a network namespace' if can_unshare() else 'refused sockets and closed proxies'}")
    outcomes = check(book_, options.chapter, chosen, options.workers)
    _store(book_.root / REPORT, outcomes)
    print(table(outcomes))
    changed = sum(not outcome.same for outcome in outcomes)
    print(f"{changed} of {len(outcomes)} runs differ; {time.perf_counter() - start:.0f} s")
    return int(changed > 0)


if __name__ == "__main__":
    sys.exit(main())
