"""``python -m mutate derivations``: break the formula of each labelled equation, and count what its claim rejects.

A page is run statement by statement in one process.  At each statement that holds a part of a formula the process
forks: a child runs the statement with one slip (see :mod:`mutate.formulas`) and then what leads from there to the
claim.  If the claim raises ``ClaimFailed`` the slip is rejected; if it is filed, the slip survived.

The formula of a claim is the side that stands for the equation: ``rhs`` of ``proved``, ``expected`` or the bound of
``numeric``, the verdicts of ``exhaustive``, the p-value of ``statistical``; with the names it refers to, as long as
the other side of the claim does not refer to them too (those are inputs).  If that side holds little but numbers, the
other side is broken as well.  The counterfeit stays as it is.

A slip that loosens an inequality at every input tried counts for nothing, as it makes a weaker statement, which is
true; nor do the slips that ``equivalent_derivations.toml`` lists, each with the reason why it changes nothing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import dis
import io
import json
import os
import pickle
import re
import resource
import select
import signal
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from book.catalogue import APPENDICES, PLANNED
from book.execute import THREADS
from book.pages import Book, Page, code_cells, find_book, parse_code
from explainers.verify import page_labels
from mutate.formulas import ORDER, SCALE, NotAFormula, Orders, Slip, scaled, slips

PAGES = (*(chapter.name for chapter in PLANNED), *APPENDICES, "intro")
CAP = 12  # mutants per label
ENOUGH = 4  # with fewer than that in the formula, the other side of the claim is broken too
SECONDS = 20.0  # of processor time per mutant
REPORT = Path("_build", "derivations.json")
EQUIVALENT = Path(__file__).with_name("equivalent_derivations.toml")


# How a mutant ended. The first three are rejections; "equivalent" and "weaker" do not count.
ENDS = ("claim", "error", "time", "survived", "equivalent", "weaker")
_FORMULA_SIDE = {"proved": ("rhs", 2, "lhs", 1), "numeric": ("expected", 2, "measured", 1)}
_SINGLE = {"exhaustive": ("outcome", 1), "statistical": ("p_value", 1), "experiment": ("effects", 1)}
_BOUNDS = ("at_most", "at_least", "equals")
_MODULES = frozenset({"np", "sp", "torch", "F", "nn", "stats", "scipy", "copy", "optimize", "itertools", *PAGES})
_HARMLESS = frozenset({"print", "display", "plots", "plt", "verify", "claims", "setup", "savefig", "show"})


# ---------------------------------------------------------------------- a page as a list of statements


@dataclass(frozen=True)
class Names:
    """The global names that a piece of code reads and writes."""

    reads: frozenset[str]
    writes: frozenset[str]


def names_of(node: ast.AST) -> Names:
    """Return the names that a statement or an expression reads and writes, those inside its functions included.

    >>> names_of(ast.parse("b = [a * i for i in range(3)]").body[0]).writes
    frozenset({'b'})
    """
    if isinstance(node, ast.expr):
        code = compile(ast.Expression(_loaded(node)), "cell", "eval")
    else:
        code = compile(ast.Module([node], type_ignores=[]), "cell", "exec")
    reads, writes = set(), set()
    for instruction in _instructions(code):
        if instruction.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            reads.add(instruction.argval)
        elif instruction.opname in ("STORE_NAME", "STORE_GLOBAL"):
            writes.add(instruction.argval)
    if isinstance(node, ast.For):
        reads -= _set_before_read(node)
    return Names(frozenset(reads), frozenset(writes))


def _set_before_read(loop: ast.For) -> set[str]:
    """Return the names that a loop sets itself: its variables, and what its body assigns before it reads it."""
    own = {name.id for name in ast.walk(loop.target) if isinstance(name, ast.Name)}
    read = {name.id for name in ast.walk(loop.iter) if isinstance(name, ast.Name)}
    for statement in _simple(loop.body):
        if isinstance(statement, ast.For):
            own |= {name.id for name in ast.walk(statement.target) if isinstance(name, ast.Name)}
            read |= {name.id for name in ast.walk(statement.iter) if isinstance(name, ast.Name)}
            continue
        names = [name for name in ast.walk(statement) if isinstance(name, ast.Name)]
        read |= {name.id for name in names if isinstance(name.ctx, ast.Load)}
        if isinstance(statement, ast.Assign):
            own |= {name.id for name in names if isinstance(name.ctx, ast.Store)} - (read - own)
    return own


def _simple(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.For):
            yield from _simple(statement.body)


def _loaded(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Starred) else node


def _instructions(code) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            yield from _instructions(constant)


def touched(node: ast.stmt) -> frozenset[str]:
    """Return the names of objects that a statement may change in place.

    >>> sorted(touched(ast.parse("rows.append(a); won[0] = b").body[0]))
    ['rows']
    """
    found: set[str] = set()
    for inner in _outside_functions(node):
        if isinstance(inner, (ast.Subscript, ast.Attribute)) and isinstance(inner.ctx, ast.Store):
            found.add(_base(inner))
        if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Call):
            call = inner.value
            if _base(call.func) in _HARMLESS:
                continue
            function_of_module = isinstance(call.func, ast.Name) or _base(call.func) in _MODULES
            changed = call.args if function_of_module else [call.func]
            found |= {n.id for part in changed for n in ast.walk(part) if isinstance(n, ast.Name)}
    for inner in _outside_functions(node):  # for rows in (first, second): rows.append(...)
        if isinstance(inner, ast.For) and found & {n.id for n in ast.walk(inner.target) if isinstance(n, ast.Name)}:
            found |= {n.id for n in ast.walk(inner.iter) if isinstance(n, ast.Name)}
    return frozenset(found - {""} - _MODULES)


def _parts_for(node: ast.stmt, names: set[str] | frozenset[str]) -> list[ast.AST]:
    """Return the parts of a statement that give the named variables their values: of ``a, b = 1, 2`` only one."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Tuple):
        targets, value = node.targets[0].elts, node.value
        if isinstance(value, ast.Tuple) and len(value.elts) == len(targets):
            wanted = [v for t, v in zip(targets, value.elts) if isinstance(t, ast.Name) and t.id in names]
            return wanted or [node]
    if isinstance(node, ast.For):
        return _statements_for(node, names) or [node]
    return [node]


def _statements_for(loop: ast.For, names: set[str] | frozenset[str]) -> list[ast.AST]:
    """Return the statements in a loop of plain statements that the values of the named variables come from."""
    inner = [statement for statement in _simple(loop.body) if not isinstance(statement, ast.For)]
    if not all(isinstance(statement, (ast.Assign, ast.AugAssign, ast.Expr)) for statement in inner):
        return []
    wanted, chosen = set(names), []
    while more := [s for s in inner if s not in chosen and (names_of(s).writes | touched(s)) & wanted]:
        chosen += more
        wanted |= frozenset().union(*(names_of(statement).reads for statement in more))
    return [statement for statement in inner if statement in chosen]


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            yield from _outside_functions(child)


def _base(node: ast.AST) -> str:
    while not isinstance(node, ast.Name):
        node = getattr(node, "value", None) or getattr(node, "func", None)
        if node is None:
            return ""
    return node.id


@dataclass(frozen=True)
class Statement:
    """One statement of the code cell number ``cell`` (counted from 1)."""

    cell: int
    node: ast.stmt

    @cached_property
    def names(self) -> Names:
        return names_of(self.node)

    @cached_property
    def touches(self) -> frozenset[str]:
        return touched(self.node)


class Program:
    """The statements of a page in the order of execution, and which of them a piece of code depends on."""

    def __init__(self, cells: list[str]):
        self.statements = [
            Statement(number, node) for number, cell in enumerate(cells, 1) for node in parse_code(cell).body
        ]

    def closure(self, node: ast.AST, at: int) -> dict[int, tuple[int, frozenset[str]]]:
        """Map each statement before ``at`` that an expression depends on to its distance, and the names it is for."""
        found: dict[int, tuple[int, frozenset[str]]] = {}
        own = self.statements[at].names.writes if isinstance(self.statements[at].node, (ast.For, ast.With)) else set()
        todo = [(name, at, 1) for name in sorted(names_of(node).reads - own)]
        done = set()
        while todo:
            name, before, distance = todo.pop(0)
            if (name, before) in done:
                continue
            done.add((name, before))
            for position in self._defining(name, before):
                known = found.get(position, (distance, frozenset()))
                found[position] = known[0], known[1] | {name}
                node = self.statements[position].node
                # A function reads its names when it is called, so later definitions count too.
                place = at if isinstance(node, ast.FunctionDef) else position
                reads = frozenset().union(*(names_of(part).reads for part in _parts_for(node, {name})))
                if isinstance(node, ast.For):
                    loops = [inner for inner in ast.walk(node) if isinstance(inner, ast.For)]
                    reads = reads.union(*(names_of(loop.iter).reads for loop in loops)) - _set_before_read(node)
                todo += [(read, place, distance + 1) for read in sorted(reads - ({name} if place == at else set()))]
        return found

    def _defining(self, name: str, before: int) -> list[int]:
        found = []
        for position in range(before - 1, -1, -1):
            statement = self.statements[position]
            if name in statement.names.writes:
                return [position, *found]
            if name in statement.touches:
                found.append(position)
        return []  # a builtin


# ---------------------------------------------------------------------- claims and their formulas


@dataclass(frozen=True)
class ClaimCall:
    """A call such as ``claims.proved("eq-...", ...)`` in the statement number ``at``."""

    at: int
    kind: str
    label: str  # a regular expression if the label is an f-string
    call: ast.Call = field(repr=False)

    def argument(self, name: str, place: int | None = None) -> ast.expr | None:
        """Return an argument by keyword or by place (the label has place 0)."""
        for keyword in self.call.keywords:
            if keyword.arg == name:
                return keyword.value
        if place is not None and place < len(self.call.args):
            return self.call.args[place]
        return None


def claim_calls(program: Program) -> list[ClaimCall]:
    """Return the claims that name an equation, in order."""
    kinds = {*_FORMULA_SIDE, *_SINGLE}
    found = []
    for at, statement in enumerate(program.statements):
        for node in ast.walk(statement.node):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in kinds:
                label = node.args[0] if node.args else None
                pattern = _label_pattern(label)
                if pattern and pattern.startswith("eq-"):
                    found.append(ClaimCall(at, node.func.attr, pattern, node))
    exact = {claim.label for claim in found if claim.kind != "experiment"}
    return [claim for claim in found if claim.kind != "experiment" or claim.label not in exact]


def _label_pattern(node: ast.expr | None) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "[a-z0-9-]+" for part in node.values)
    return None


@dataclass(frozen=True)
class Candidate:
    """A slip in the statement number ``at``, ``distance`` definitions away from the claim."""

    claim: ClaimCall
    at: int
    distance: int
    slip: Slip


def candidates(program: Program, claim: ClaimCall) -> list[Candidate]:
    """Return every mutant of a claim's formula."""
    if claim.kind in _SINGLE:
        return _of_single(program, claim)
    name, place, other_name, other_place = _FORMULA_SIDE[claim.kind]
    formula, other = claim.argument(name, place), claim.argument(other_name, other_place)
    if formula is None:  # a bound
        bounds = [b for b in map(claim.argument, _BOUNDS) if b is not None]
        found = [c for bound in bounds for c in _of_side(program, claim, bound, [other])]
        return found + _of_side(program, claim, other, bounds)
    found = _of_side(program, claim, formula, [other])
    if sum(c.slip.operator != "constant" for c in found) < ENOUGH:
        found += _of_side(program, claim, other, [formula])
    return found


def _of_single(program: Program, claim: ClaimCall) -> list[Candidate]:
    outcome = claim.argument(*_SINGLE[claim.kind])
    bounds = [b for b in map(claim.argument, _BOUNDS) if b is not None]
    found = [c for bound in bounds for c in _of_side(program, claim, bound, [outcome])]
    if claim.kind == "exhaustive" and bounds and any(c.slip.operator != "constant" for c in found):
        return found
    for sides in _comparisons(outcome):
        for number, side in enumerate(sides):
            others = [*sides[:number], *sides[number + 1 :]]
            scale = claim.kind != "statistical"  # twice a p-value is no formula
            found += _of_side(program, claim, side, others, scale)
    return found


def _comparisons(node: ast.expr) -> list[list[ast.expr]]:
    """Return the sides of each comparison, or the arguments of a test: what both sides refer to is their input."""
    if isinstance(node, ast.Compare):
        return [[node.left, *node.comparators]]
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        return [*_comparisons(node.left), *_comparisons(node.right)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:  # (a == b).ravel()
        return _comparisons(node.func.value)
    if isinstance(node, ast.Call) and len(node.args) > 1:
        return [list(node.args)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:  # p_value(expected)
        return [[node.func, *node.args]]
    return [[node]]


def _of_side(
    program: Program, claim: ClaimCall, side: ast.expr, others: list[ast.expr], scale: bool = True
) -> list[Candidate]:
    statement = program.statements[claim.at].node
    shared: dict[int, frozenset[str]] = {}
    for other in others:
        for at, (_, names) in program.closure(other, claim.at).items():
            shared[at] = shared.get(at, frozenset()) | names
    coarse = claim.kind not in ("proved", "exhaustive")
    shared_names = frozenset().union(*(names_of(other).reads for other in others)) if others else frozenset()
    roots = [side, *_definitions_inside(statement, side, shared_names)]
    scale = scale and not (others and all(map(_is_zero, others)))
    found = [Candidate(claim, claim.at, 0, slip) for slip in slips(statement, roots, scale, coarse)]
    closure = program.closure(side, claim.at)
    for at, (distance, names) in sorted(closure.items(), key=lambda item: (item[1][0], -item[0])):
        node = program.statements[at].node
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.FunctionDef, ast.For)):
            inputs = _parts_for(node, shared[at]) if at in shared else []
            parts = [part for part in _parts_for(node, names) if part not in inputs]
            made = slips(node, parts, scale or distance > 1, coarse) if node not in inputs else []
            found += [Candidate(claim, at, distance, slip) for slip in made]
    return found


def _is_zero(node: ast.expr) -> bool:
    if isinstance(node, (ast.List, ast.Tuple)):
        return all(map(_is_zero, node.elts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _is_zero(node.left) or _is_zero(node.right)
    if isinstance(node, ast.Call) and node.args:
        name = ast.unparse(node.func)
        return name.endswith(("zeros", "zeros_like")) or (name in ("sp.Integer", "Fraction") and _is_zero(node.args[0]))
    return isinstance(node, ast.Constant) and node.value == 0


def _definitions_inside(statement: ast.stmt, side: ast.expr, shared: frozenset[str]) -> list[ast.AST]:
    """Return assignments inside a loop around the claim that the side refers to."""
    wanted = names_of(side).reads - shared
    if not isinstance(statement, (ast.For, ast.With, ast.If)):
        return []
    assigned = [node for node in ast.walk(statement) if isinstance(node, ast.Assign)]
    return [node for node in assigned if any(isinstance(t, ast.Name) and t.id in wanted for t in node.targets)]


def choose(found: list[Candidate], cap: int) -> list[Candidate]:
    """Return at most ``cap`` mutants of one label: each claim and each kind of slip in turn, the nearest first."""
    queues: dict[tuple, list[Candidate]] = defaultdict(list)
    same: dict[tuple, list[Candidate]] = defaultdict(list)  # one slip, and every claim of the label that it reaches
    for candidate in found:
        same[_key(candidate)].append(candidate)
    for candidate in sorted((group[0] for group in same.values()), key=lambda c: c.distance):
        queues[id(candidate.claim.call), candidate.slip.operator].append(candidate)
    chosen: list[Candidate] = []
    while any(queues.values()) and (not cap or len(chosen) < cap):
        for queue in list(queues.values()):
            if queue and (not cap or len(chosen) < cap):
                chosen.append(queue.pop(0))
    return [twin for candidate in chosen for twin in same[_key(candidate)]]


def _key(candidate: Candidate) -> tuple[int, str]:
    return candidate.at, ast.unparse(candidate.slip.statement)


def merged(results: list[Result]) -> list[Result]:
    """Return one result per slip of a label, which is rejected if one of the label's claims rejects it."""
    best: dict[tuple, Result] = {}
    for result in results:
        key = (result.label, result.slip)
        if key not in best or ENDS.index(result.end) < ENDS.index(best[key].end):
            best[key] = result
    return list(best.values())


# ---------------------------------------------------------------------- running


@dataclass
class Result:
    """What became of one mutant."""

    label: str
    kind: str
    cell: int
    operator: str
    before: str
    after: str
    end: str
    why: str = ""
    slip: str = ""  # tells slips apart that have the same words


def in_child(action: Callable[[], Any], seconds: float | None = None) -> tuple[str, Any]:
    """Run an action in a forked process; return ``("done", value)``, or ``("time", None)`` or ``("died", status)``."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 1
        try:
            if seconds:
                _limit(seconds)
            value = pickle.dumps(action())
            with os.fdopen(write, "wb") as pipe:
                pipe.write(value)
            code = 0
        except BaseException as error:
            with contextlib.suppress(BaseException):
                print(f"mutate: {type(error).__name__}: {error}", file=sys.__stderr__)
        finally:
            os._exit(code)
    os.close(write)
    deadline = time.monotonic() + 10 * seconds if seconds else None
    chunks = []
    with os.fdopen(read, "rb") as pipe:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([pipe], [], [], left)[0]:
                os.kill(pid, signal.SIGKILL)
                break
            chunk = os.read(pipe.fileno(), 1 << 20)
            if not chunk:
                break
            chunks.append(chunk)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return ("time" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "died"), status
    return ("done", pickle.loads(b"".join(chunks))) if status == 0 else ("died", status)


def _limit(seconds: float) -> None:
    for what, soft in ((resource.RLIMIT_CPU, int(seconds) + 1), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + 4 * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))


class Session:
    """The namespace of a page that is being run."""

    def __init__(self) -> None:
        import matplotlib

        matplotlib.use("Agg")
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        self.shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
        self.space = self.shell.user_ns
        self.space[SCALE] = scaled

    def run(self, node: ast.stmt, orders: Orders | None = None) -> None:
        """Run one statement, silently; its comparisons are recorded in ``orders``."""
        if orders is not None:
            self.space[ORDER] = orders.compare
            node = ast.fix_missing_locations(orders.visit(copy.deepcopy(node)))
        code = compile(ast.Module([node], type_ignores=[]), "<cell>", "exec")
        with (
            self.shell.builtin_trap,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            exec(code, self.space)


class _Recorder:
    """Keeps the bounds and the formulas that claims are called with."""

    def __init__(self, kinds) -> None:
        from explainers import verify

        self.seen: list[dict[str, Any]] = []
        for kind in kinds:
            setattr(verify.Ledger, kind, self._wrapped(getattr(verify.Ledger, kind)))

    def _wrapped(self, check):
        def method(ledger, label, *args, **kwargs):
            values = {f"argument {n}": _plain(value) for n, value in enumerate(args)}
            values |= {key: _plain(value) for key, value in kwargs.items() if key != "counterfeit"}
            self.seen.append(values)
            return check(ledger, label, *args, **kwargs)

        return method


def _plain(value: Any) -> Any:
    """Return a value in a form that another process can compare."""
    import numpy as np

    if isinstance(value, str):
        return value
    with contextlib.suppress(Exception):
        array = np.asarray(value.detach() if hasattr(value, "detach") else value)
        if array.dtype != object and array.size < 1_000_000:
            return array
        if array.dtype == object:
            return np.asarray(array, dtype=float)
    return str(value)[:10_000]


def run_page(page: Page, cap: int = CAP, seconds: float = SECONDS, only: str | None = None) -> dict[str, Any]:
    """Run a page with every mutant of its formulas; return the report of the page."""
    start = time.perf_counter()
    program = Program([cell.source for cell in code_cells(page.written)])
    labels = [label for label in dict.fromkeys(page_labels(page.text)) if label.startswith("eq-")]
    by_label: dict[str, list[Candidate]] = defaultdict(list)
    for claim in claim_calls(program):
        if only is None or re.search(only, claim.label):
            by_label[claim.label] += candidates(program, claim)
    chosen = [candidate for found in by_label.values() for candidate in choose(found, cap)]
    results, notes = _execute(program, chosen, page, seconds)
    results = merged(results)
    known = _equivalent()
    for result in results:
        reason = known.get((result.label, result.before, result.after))
        if result.end == "survived" and reason:
            result.end, result.why = "equivalent", reason
    broken = {label for label in labels if any(re.fullmatch(result.label, label) for result in results)}
    return {
        "page": page.name,
        "labels": len(labels),
        "without_mutants": [label for label in labels if label not in broken] if only is None else [],
        "found": sum(map(len, by_label.values())),
        "results": [asdict(replace(result, slip="")) for result in results],
        "notes": notes,
        "seconds": round(time.perf_counter() - start, 1),
    }


def _execute(program: Program, chosen: list[Candidate], page: Page, seconds: float) -> tuple[list[Result], list[str]]:
    os.chdir(page.chapters)
    session = Session()
    recorder = _Recorder({*_FORMULA_SIDE, *_SINGLE})
    groups: dict[int, dict[int, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for candidate in chosen:
        groups[candidate.at][candidate.claim.at].append(candidate)
    results, notes = [], []
    last = max((c.claim.at for c in chosen), default=-1)
    for at, statement in enumerate(program.statements[: last + 1]):
        for goal, group in groups[at].items():
            results += _run_group(program, session, recorder, at, goal, group, seconds, notes)
        session.run(statement.node)
        recorder.seen.clear()
        if statement.cell != program.statements[min(at + 1, last)].cell:
            import matplotlib.pyplot as plt

            plt.close("all")
    return results, notes


def _run_group(program, session, recorder, at, goal, group, seconds, notes) -> list[Result]:
    """Run the mutants of one statement up to one claim, after a control run without a mutant."""
    sliced = _between(program, at, goal)
    for path in (sliced, list(range(at + 1, goal))):
        status, control = in_child(lambda path=path: _trial(program, session, recorder, None, at, path, goal), seconds)
        if status == "done" and control["end"] == "survived":
            break
    else:
        why = control["why"] if status == "done" else status
        place = f"code cell {program.statements[at].cell} to {program.statements[goal].cell}"
        notes.append(f"{group[0].claim.label}: {len(group)} mutants not run, the control failed ({place}): {why}")
        return []
    found = []
    for candidate in group:
        slip, claim = candidate.slip, candidate.claim
        status, outcome = in_child(
            lambda node=slip.statement: _trial(program, session, recorder, node, at, path, goal), seconds
        )
        if status != "done":
            outcome = {"end": "time" if status == "time" else "error", "why": f"{status} {outcome or ''}"}
        if outcome["end"] == "none":
            continue
        if outcome["end"] == "survived":
            outcome = _judge(outcome, control)
        cell = program.statements[at].cell
        found.append(
            Result(
                claim.label,
                claim.kind,
                cell,
                slip.operator,
                slip.before,
                slip.after,
                outcome["end"],
                outcome["why"],
                f"{at}: {ast.unparse(slip.statement)}",
            )
        )
    return found


def _between(program: Program, at: int, goal: int) -> list[int]:
    """Return the statements between two that the claim in the second depends on."""
    needed = program.closure(program.statements[goal].node, goal)
    return [position for position in sorted(needed) if at < position < goal]


def _trial(program, session, recorder, mutated, at, path, goal) -> dict[str, Any]:
    """Run a statement, or its mutant, then the path to the claim and the claim; runs in a child."""
    from explainers.verify import ClaimFailed

    recorder.seen.clear()
    orders = Orders()
    try:
        session.run(mutated or program.statements[at].node, orders)
        for position in path if at < goal else ():
            session.run(program.statements[position].node, orders)
        if at < goal:
            recorder.seen.clear()
            session.run(program.statements[goal].node, orders)
    except NotAFormula:
        return {"end": "none", "why": ""}
    except ClaimFailed as error:
        return {"end": "claim", "why": str(error)[:200]}
    except BaseException as error:
        return {"end": "error", "why": f"{type(error).__name__}: {error}"[:200]}
    return {"end": "survived", "why": "", "seen": recorder.seen, "slacks": orders.slacks}


def _judge(outcome: dict[str, Any], control: dict[str, Any]) -> dict[str, Any]:
    """Say of a mutant that was filed whether it only made a bound looser, and how far it moved the numbers."""
    moved, looser, other = 0.0, False, False
    for new, old in zip(outcome["seen"], control["seen"]):
        for key in {*new, *old}:
            change = _change(new.get(key), old.get(key))
            if not change:
                continue
            moved = max(moved, change)
            if key in ("at_most", "at_least"):
                looser |= bool((new[key] > old[key]) == (key == "at_most"))
            elif key in ("argument 0", "measured", "outcome", "effects") and _farther(new, old, key):
                looser = True
            else:
                other = True
    if not other and (looser or _slacker(outcome["slacks"], control["slacks"])):
        return {"end": "weaker", "why": "a looser bound follows from the stated one"}
    words = f"moves the claim's numbers by {moved:.2g}" if moved else "the same numbers at the inputs that are tried"
    return {"end": "survived", "why": words}


def _farther(new: dict[str, Any], old: dict[str, Any], key: str) -> bool:
    """Return whether a value that is held against one bound lies farther on its right side everywhere."""
    bounds = [bound for bound in ("at_most", "at_least") if bound in new]
    if len(bounds) != 1 or getattr(new[key], "shape", 0) != getattr(old[key], "shape", 1):
        return False
    gain = new[key] - old[key] if bounds == ["at_least"] else old[key] - new[key]
    return bool((gain >= 0).all())


def _slacker(new: list[Any], old: list[Any]) -> bool:
    """Return whether every recorded inequality holds by at least as much as without the slip, and one by more."""
    import numpy as np

    if len(new) != len(old) or any(a.shape != b.shape for a, b in zip(new, old)):
        return False
    with np.errstate(invalid="ignore"):  # infinity minus infinity, which is no gain
        gains = [np.nan_to_num(a - b, nan=0.0) for a, b in zip(new, old)]
    return all(np.all(gain >= 0) for gain in gains) and any(np.any(gain > 0) for gain in gains)


def _change(new: Any, old: Any) -> float:
    """Return the largest relative change of a value."""
    import numpy as np

    if type(new) is not type(old) or isinstance(new, str) or new.shape != old.shape or new.dtype.kind in "USO":
        return float(not (isinstance(new, str) and new == old))
    a, b = np.asarray(new, dtype=complex), np.asarray(old, dtype=complex)
    scale = np.abs(b).max() if b.size else 0.0
    return float(np.nan_to_num(np.abs(a - b).max() / (scale or 1.0), nan=1.0, posinf=1e300)) if b.size else 0.0


# ---------------------------------------------------------------------- the report


def equivalent_entries() -> list[dict[str, str]]:
    """Return the slips that are known to change nothing: label, before, after and reason."""
    if not EQUIVALENT.exists():
        return []
    return tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("equivalent", [])


def _equivalent() -> dict[tuple[str, str, str], str]:
    return {(entry["label"], entry["before"], entry["after"]): entry["reason"] for entry in equivalent_entries()}


def table(reports: list[dict[str, Any]]) -> str:
    """Return the scores by page, and below it each survivor."""
    head = ["page", "labels", "broken", "mutants", "by claim", "by error", "by time", "survived", "score", "equivalent"]
    lines = [head]
    for report in reports:
        lines.append([report["page"], *map(str, _row(report))])
    if len(reports) > 1:
        rows = [_row(report) for report in reports]
        sums = [sum(row[n] for row in rows) for n in (0, 1, 2, 3, 4, 5, 6)]
        score = f"{(sums[2] - sums[6]) / max(1, sums[2]):.1%}"
        lines.append(["all", *map(str, sums), score, str(sum(row[8] for row in rows))])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    words = [
        "  ".join(cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(line, widths)))
        for line in lines
    ]
    for report in reports:
        for result in report["results"]:
            if result["end"] == "survived":
                words.append(
                    f"{result['label']} (cell {result['cell']}, {result['kind']}): {result['before']}  ->  "
                    f"{result['after']}  [{result['why']}]"
                )
        words += [f"{report['page']}: no formula to break in {label}" for label in report["without_mutants"]]
        words += [f"{report['page']}: {note}" for note in report["notes"]]
    return "\n".join(words)


def _row(report: dict[str, Any]) -> list[Any]:
    ends = Counter(result["end"] for result in report["results"])
    mutants = ends["claim"] + ends["error"] + ends["time"] + ends["survived"]
    rejected = mutants - ends["survived"]
    score = f"{rejected / mutants:.1%}" if mutants else "-"
    broken = report["labels"] - len(report["without_mutants"])
    counts = [report["labels"], broken, mutants, *(ends[end] for end in ("claim", "error", "time", "survived"))]
    return [*counts, score, ends["equivalent"] + ends["weaker"]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument("chapter", nargs="*", help="a page's name; all pages with claims if none is given")
    parser.add_argument("--cap", type=int, default=CAP, help=f"mutants per label, 0 for all (default: {CAP})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="processor time per mutant (default: 20)")
    parser.add_argument("--label", help="only labels that this regular expression is found in")
    parser.add_argument("--list", action="store_true", help="print the mutants, run nothing")


def run(options: argparse.Namespace, book: Book | None = None) -> int:
    """Break the formulas of the pages; print and store the report; return 1 if a mutant survived."""
    book = book or find_book()
    os.environ.update(THREADS)
    names = options.chapter or [name for name in PAGES if (book.chapters / f"{name}.md").exists()]
    reports = []
    for name in names:
        page = book.page(name)
        if options.list:
            _print_list(page, options.cap)
            continue
        print(f"{page.name}: breaking its formulas ...", file=sys.stderr, flush=True)
        status, report = in_child(lambda page=page: run_page(page, options.cap, options.seconds, options.label))
        if status != "done":
            print(f"{page.name}: the run {status} (status {report})", file=sys.stderr)
            return 2
        reports.append(report)
        if options.label is None:
            _store(book.root / REPORT, report, options.cap)
    if reports:
        print(table(reports))
        print(f"at most {options.cap or 'any number of'} mutants per label; {sum(r['seconds'] for r in reports):.0f} s")
    return int(any(result["end"] == "survived" for report in reports for result in report["results"]))


def _store(path: Path, report: dict[str, Any], cap: int) -> None:
    path.parent.mkdir(exist_ok=True)
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stored[report["page"]] = {**report, "cap": cap}
    path.write_text(json.dumps(stored, indent=1, ensure_ascii=False), encoding="utf-8")


def _print_list(page: Page, cap: int) -> None:
    program = Program([cell.source for cell in code_cells(page.written)])
    by_label: dict[str, list[Candidate]] = defaultdict(list)
    for claim in claim_calls(program):
        by_label[claim.label] += candidates(program, claim)
    for label, found in by_label.items():
        print(f"{label}: {len(found)}")
        for candidate in choose(found, cap):
            slip = candidate.slip
            print(f"   {program.statements[candidate.at].cell:3} {slip.operator:9} {slip.before}  ->  {slip.after}")


def main(arguments: list[str] | None = None) -> int:
    """Run the subcommand by itself."""
    parser = argparse.ArgumentParser(prog="python -m mutate.derivations", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
