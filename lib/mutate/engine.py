"""Running mutants of one module against unit tests, each in a forked process of its own.

Two roads.  The *quick* one forks from a pytest session that has collected the tests of the module already: the child
gives the mutated code to the function objects that hold the original, and runs the tests that execute the line, the
fastest first, until one fails.  The *thorough* one forks from a process that has imported the third-party packages and
nothing else, while the mutant stands in the file (of the snapshot), where processes that a test starts find it too; the
child runs every test.  It is taken for what is not the body of a function (defaults, constants, classes), and again for
whatever survived the quick one, so that no survivor is owed to a cached value or to the choice of tests.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import inspect
import os
import pickle
import resource
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import coverage
import pytest

from mutate.operators import Mutant

FIXED = "fixture:"
# Assertions are left as they are: without rewriting the import is faster.
OPTIONS = [
    "-q",
    "-x",
    "--doctest-modules",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-p",
    "no:nbval",
    "-W",
    "ignore",
]


@dataclass
class Lines:
    """What the tests of a module took and which lines of it each executes."""

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[int, set[str]] = field(default_factory=dict)

    def of(self, lines: Iterable[int]) -> list[str]:
        """Return the tests that execute one of the lines, the fastest first."""
        found = set().union(*(self.tests.get(line, set()) for line in lines))
        return sorted(found, key=lambda test: (self.seconds.get(test, 0.0), test))


def in_child(action: Callable[[], Any], cpu: float) -> tuple[str, Any, float]:
    """Run an action in a fork, silent; return its fate (``done``, ``timeout`` or ``died``), its value, its CPU time.

    The limit is on CPU seconds, because a busy machine is not an endless loop; four times as much by the clock.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            os.close(read)
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu) + 1, int(cpu) + 3))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            quiet = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            value = pickle.dumps(action())
            with os.fdopen(write, "wb") as pipe:
                pipe.write(value)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    return _result(pid, read, cpu)


def _result(pid: int, read: int, cpu: float) -> tuple[str, Any, float]:
    def stop(*_: Any) -> None:
        os.killpg(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(4 * cpu) + 10)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    _, status, used = os.wait4(pid, 0)
    signal.alarm(0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it may have started
    seconds = used.ru_utime + used.ru_stime
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
        return "timeout", None, seconds
    return ("done", pickle.loads(data), seconds) if data else ("died", None, seconds)


# --- The tests, collected once ------------------------------------------------------------------------------------


class _Recorder:
    """A plugin that notes what failed first and how long each test took."""

    def __init__(self) -> None:
        self.failed: str | None = None
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.failed is None:
            self.failed = f"{report.nodeid} (import)"


class _Session:
    """A plugin that gives the collected tests to ``action`` instead of running them."""

    def __init__(self, action: Callable[[pytest.Session], None]) -> None:
        self.action = action

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise RuntimeError("the tests could not be collected")
        self.action(session)
        return True


def run_items(session: pytest.Session, names: list[str]) -> str | None:
    """Run the named tests in that order until one fails; return its name."""
    recorder = _Recorder()
    session.config.pluginmanager.register(recorder)
    items = {item.nodeid: item for item in session.items}
    chosen = [items[name] for name in names if name in items]
    for item, following in zip(chosen, [*chosen[1:], None]):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if recorder.failed:
            return recorder.failed
    return None


def trace(session: pytest.Session, source: Path) -> tuple[Lines, str | None]:
    """Run every collected test under coverage; return which test executes which line, and the first that fails.

    What a shared fixture executes counts for every test that asks for the fixture.
    """
    cover = coverage.Coverage(data_file=None, include=[str(source)], config_file=False)
    recorder = _Recorder()

    class Contexts:
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
            self.current = item.nodeid
            cover.switch_context(item.nodeid)
            return (yield)

        @pytest.hookimpl(wrapper=True)
        def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
            shared = fixturedef.scope != "function"
            if shared:
                cover.switch_context(FIXED + fixturedef.argname)
            try:
                return (yield)
            finally:
                if shared:
                    cover.switch_context(self.current)

    for plugin in (recorder, Contexts()):
        session.config.pluginmanager.register(plugin)
    cover.start()
    for item, following in zip(session.items, [*session.items[1:], None]):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    cover.stop()
    users = defaultdict(set)
    for item in session.items:
        for name in getattr(item, "fixturenames", []):
            users[FIXED + name].add(item.nodeid)
    contexts = cover.get_data().contexts_by_lineno(str(source))
    tests = {
        line: set().union(*(users[context] if context.startswith(FIXED) else {context} for context in found if context))
        for line, found in contexts.items()
    }
    return Lines(dict(recorder.seconds), tests), recorder.failed


# --- Where a mutant lies ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """The function whose body holds a mutant (None at the level of a module or class), and the lines to look up."""

    function: ast.FunctionDef | None
    lines: range


def place_of(tree: ast.Module, mutant: Mutant) -> Place:
    """Return the outermost function around a mutant and the lines of its statement.

    A mutant in a signature or a decorator lies outside of that function, and the lines are those of the body.
    """
    function, statement = None, None
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt) or not _first(node) <= mutant.line <= node.end_lineno:
            continue
        if isinstance(node, ast.FunctionDef) and function is None:
            if mutant.line < node.body[0].lineno:
                return Place(None, range(node.body[0].lineno, node.end_lineno + 1))
            function = node
        statement = node
    if statement is None:
        return Place(None, range(mutant.line, mutant.line + 1))
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if body and mutant.line < body[0].lineno else statement.end_lineno
    return Place(function, range(statement.lineno, max(last, statement.lineno) + 1))


def _first(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def codes(code: CodeType) -> dict[tuple[str, int], CodeType]:
    """Return the code objects of the functions in a module's code, by qualified name and first line."""
    found = {}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & inspect.CO_NEWLOCALS:
                found[constant.co_qualname, constant.co_firstlineno] = constant
            else:  # the body of a class
                found.update(codes(constant))
    return found


def functions_of(path: Path) -> dict[tuple[str, int], list[FunctionType]]:
    """Return the living functions that were defined in a file, by qualified name and first line."""
    found = defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename == str(path):
            found[thing.__code__.co_qualname, thing.__code__.co_firstlineno].append(thing)
    return found


def patch(functions: dict[tuple[str, int], list[FunctionType]], path: Path, mutant: Mutant) -> bool:
    """Give the mutated code to the functions that hold the original; return whether a function changed."""
    old = codes(compile(mutant.original, str(path), "exec", dont_inherit=True))
    new = codes(compile(mutant.source, str(path), "exec", dont_inherit=True))
    changed = [key for key in new if key in old and new[key] != old[key]]
    if len(new) != len(old) or not changed:
        return False
    for key in changed:
        if not functions.get(key):
            return False
        for function in functions[key]:
            if function.__code__.co_freevars != new[key].co_freevars:
                return False
            function.__code__ = new[key]
    return True


# --- The thorough road --------------------------------------------------------------------------------------------


class _FastestFirst(_Recorder):
    def __init__(self, known: dict[str, float]) -> None:
        super().__init__()
        self.known = known

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.known.get(item.nodeid, 0.0))


def run_all(files: list[Path], seconds: dict[str, float]) -> str | None:
    """Import the library as it lies there and run all the tests of the files until one fails; return its name."""
    if any(module.split(".")[0] == "explainers" for module in sys.modules):
        raise RuntimeError("the library was imported before the mutant took its place")
    recorder = _FastestFirst(seconds)
    status = pytest.main([*OPTIONS, *map(str, files)], plugins=[recorder])
    return recorder.failed or (None if status == 0 else f"pytest stopped with {status}")


def collect(files: list[Path], action: Callable[[pytest.Session], None]) -> int:
    """Collect the tests of the files and call ``action`` with the session."""
    return int(pytest.main([*OPTIONS, *map(str, files)], plugins=[_Session(action)]))


def warm(names: Iterable[str]) -> None:
    """Import packages, so that the forks need not."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:
            continue


def now() -> float:
    """Return the CPU seconds of this process and its finished children."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
