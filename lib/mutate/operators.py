"""Small mistakes, made on purpose: every way in which :func:`mutants` can break one place of a Python source.

A mutant is one edit of the text (never a reprint of the syntax tree), so that its lines keep their numbers:

>>> for mutant in mutants("def half(x):\\n    return x / 2 + 1\\n"):
...     print(mutant)
2:11 arithmetic: return x / 2 + 1 -> return x * 2 + 1
2:11 arithmetic: return x / 2 + 1 -> return x / 2 - 1
2:15 number: return x / 2 + 1 -> return x / 3 + 1
2:19 number: return x / 2 + 1 -> return x / 2 + 0
2:19 number: return x / 2 + 1 -> return x / 2 + 2

Nothing is made of what no test should pin (see :func:`_is_left_alone`): docstrings and every other text, annotations,
the message of an error or a warning, f-strings (in Python 3.11 their parts have no place in the text), ``__repr__``,
``__all__``, parameters whose value is a choice (``LEFT_ALONE``), tolerances (numbers to 1e-6), the ``-1`` of
``reshape`` (NumPy takes any negative number), and functions that draw (parameters ``ax``, ``axes`` or ``fig``),
whose picture a person judges.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"), ast.BitXor: ("^", "&"),
}  # fmt: skip
COMPARISON = {
    ast.Lt: ("<", "<=", ">"), ast.LtE: ("<=", "<", ">="), ast.Gt: (">", ">=", "<"), ast.GtE: (">=", ">", "<="),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
}  # fmt: skip
_PAIRS = [
    ("max", "min"), ("any", "all"), ("argmax", "argmin"), ("floor", "ceil"), ("sum", "mean"), ("zeros", "ones"),
    ("maximum", "minimum"), ("amax", "amin"), ("triu", "tril"), ("zeros_like", "ones_like"), ("sin", "cos"),
    ("log2", "log"), ("cumsum", "cumprod"), ("nlargest", "nsmallest"), ("bisect_left", "bisect_right"),
    ("startswith", "endswith"), ("lstrip", "rstrip"), ("extend", "append"), ("union", "intersection"),
]  # fmt: skip
NAMES = {name: other for pair in _PAIRS for name, other in (pair, pair[::-1])} | {"expm1": "exp", "log1p": "log"}
del NAMES["mean"], NAMES["append"]  # a mean over no axis, an append of one thing: mistakes of another kind
DROPPED_METHODS = frozenset({"abs", "clone", "copy", "detach", "flip", "sort", "squeeze", "strip", "lower", "t"})
DROPPED_FUNCTIONS = frozenset({"abs", "sorted", "reversed", "set", "sqrt", "exp", "log", "log2", "square", "round"})
NO_GRADIENT = frozenset({"no_grad", "inference_mode"})
# A parameter of such a name is a choice, or changes nothing on the machine that runs the tests (UTF-8, one device).
LEFT_ALONE = frozenset({"seed", "random_state", "stacklevel", "dtype", "desc", "maxsize", "encoding", "device"})
TOLERANCE = 1e-6  # a number this small says how exact is exact enough
_TEXTS = (ast.JoinedStr, ast.List, ast.Tuple)


@dataclass(frozen=True)
class Mutant:
    """One edit: ``original[start:end]`` becomes ``replacement``. ``line`` counts from 1, ``column`` from 0."""

    operator: str
    line: int
    column: int
    start: int = field(repr=False)
    end: int = field(repr=False)
    replacement: str
    original: str = field(repr=False)

    @cached_property
    def source(self) -> str:
        """The whole source with the edit; lines that the edit took away come back as blank ones."""
        lost = self.original.count("\n", self.start, self.end) - self.replacement.count("\n")
        end = self._lines[1]
        rest = self.original[self.end : end] + "\n" * lost + self.original[end:]
        return self.original[: self.start] + self.replacement + rest

    @cached_property
    def before(self) -> str:
        """The lines that the edit touches, as they were, on one line."""
        return " ".join(self.original[slice(*self._lines)].split())

    @cached_property
    def after(self) -> str:
        """The same lines with the edit."""
        start, end = self._lines
        return " ".join((self.original[start : self.start] + self.replacement + self.original[self.end : end]).split())

    @property
    def _lines(self) -> tuple[int, int]:
        start = self.original.rfind("\n", 0, self.start) + 1
        end = self.original.find("\n", self.end)
        return start, len(self.original) if end < 0 else end

    def __str__(self) -> str:
        return f"{self.line}:{self.column} {self.operator}: {self.before} -> {self.after}"


def mutants(source: str, lines: Iterable[int] | None = None) -> list[Mutant]:
    """Return every mutant of a source, in the order of the text; with ``lines``, those that start on one of them.

    Each parses, and none has the syntax tree of the original.

    Raises
    ------
    SyntaxError
        If the source does not parse (a cell with magics must be cleaned first).
    """
    wanted = None if lines is None else frozenset(lines)
    tree = ast.parse(source)
    text = _Text(source)
    found, seen = [], set()
    for part in _parts(tree):
        same = _tree(text, part)
        for node, edits in _visit(part, text):
            if wanted is not None and node.lineno not in wanted:
                continue
            for operator, start, end, replacement in edits:
                differs = _tree(text, part, start, end, replacement) not in (None, same)
                if differs and (start, end, replacement) not in seen:
                    seen.add((start, end, replacement))
                    found.append(Mutant(operator, node.lineno, text.column(node), start, end, replacement, source))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.column, mutant.start))


def _parts(node: ast.Module | ast.ClassDef) -> Iterator[ast.stmt]:
    """Yield the statements of a module and of its classes: pieces small enough to be parsed again for each edit."""
    for child in _children(node):
        if isinstance(child, ast.ClassDef):
            yield from _parts(child)
        elif isinstance(child, ast.stmt):
            yield child


def _tree(text: _Text, part: ast.stmt, start: int = 0, end: int = 0, replacement: str = "") -> str | None:
    """Return the syntax tree of one statement of the source with an edit in it, or None if it does not parse."""
    first = min([part.lineno, *(decorator.lineno for decorator in getattr(part, "decorator_list", []))])
    begin, stop = text.starts[first - 1], text.span(part)[1]
    edited = text.source[begin:start] + replacement + text.source[end:stop] if end else text.source[begin:stop]
    try:
        return ast.dump(ast.parse(f"if 1:\n{edited}" if edited[:1].isspace() else edited))
    except SyntaxError:
        return None


class _Text:
    """Places in a source: from a line and a column in UTF-8 bytes, as ``ast`` has them, to an index of the text."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines = source.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def index(self, line: int, offset: int) -> int:
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:offset].decode())

    def span(self, node: ast.AST) -> tuple[int, int]:
        return self.index(node.lineno, node.col_offset), self.index(node.end_lineno, node.end_col_offset)

    def column(self, node: ast.AST) -> int:
        return self.index(node.lineno, node.col_offset) - self.starts[node.lineno - 1]

    def of(self, node: ast.AST) -> str:
        return self.source[slice(*self.span(node))]

    def symbol(self, start: int, end: int, symbol: str) -> tuple[int, int]:
        """Return the span of an operator between its operands, past brackets and comments."""
        gap = re.sub(r"#[^\n]*", lambda match: " " * len(match[0]), self.source[start:end])
        pattern = r"\s+".join(re.escape(word) for word in symbol.split())
        match = re.search(pattern, gap)
        if match is None:
            raise LookupError(f"no {symbol!r} in {gap!r}")
        return start + match.start(), start + match.end()


Edit = tuple[str, int, int, str]


def _visit(node: ast.AST, text: _Text) -> Iterator[tuple[ast.AST, list[Edit]]]:
    """Yield the nodes that can be broken, each with its edits, and go down into all that is not left alone."""
    if edits := [*_EDITORS.get(type(node), _no_edits)(node, text)]:
        yield node, edits
    for child in [] if isinstance(node, ast.Raise) else _children(node):
        yield from _visit(child, text)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.arguments):
        yield from _defaults(node)
        return
    sizes = _is_call_of(node, "reshape", "view", "expand", "unflatten")
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_left_alone(child) and not (sizes and _is_minus_one(child)):
                yield child


def _is_minus_one(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and ast.unparse(node) == "-1"


def _defaults(given: ast.arguments) -> Iterator[ast.AST]:
    named = [*given.posonlyargs, *given.args]
    named = named[len(named) - len(given.defaults) :] + given.kwonlyargs
    for argument, default in zip(named, [*given.defaults, *given.kw_defaults]):
        if default is not None and argument.arg not in LEFT_ALONE:
            yield default


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name == "__repr__" or _draws(node)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _is_call_of(node.value, "warn")
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(target, ast.Name) and target.id in {"__all__", *LEFT_ALONE} for target in targets)
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
    if isinstance(node, ast.keyword):
        return node.arg in LEFT_ALONE
    return isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom)


def _draws(function: ast.FunctionDef) -> bool:
    given = function.args
    names = {argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)}
    return bool(names & {"ax", "axes", "fig"})


def _is_call_of(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and _called(node) in names


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _no_edits(node: ast.AST, text: _Text) -> Iterator[Edit]:
    return iter(())


def _binary(node: ast.BinOp, text: _Text) -> Iterator[Edit]:
    sides = (node.left, node.right)
    if type(node.op) not in ARITHMETIC or any(_is_text(side) for side in sides):
        return
    symbol, other = ARITHMETIC[type(node.op)]
    yield "arithmetic", *text.symbol(text.span(node.left)[1], text.span(node.right)[0], symbol), other


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, _TEXTS) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _augmented(node: ast.AugAssign, text: _Text) -> Iterator[Edit]:
    if type(node.op) in ARITHMETIC and not _is_text(node.value):
        symbol, other = ARITHMETIC[type(node.op)]
        place = text.symbol(text.span(node.target)[1], text.span(node.value)[0], f"{symbol}=")
        yield "arithmetic", *place, f"{other}="


def _comparison(node: ast.Compare, text: _Text) -> Iterator[Edit]:
    left = node.left
    for operator, right in zip(node.ops, node.comparators):
        symbol, *others = COMPARISON[type(operator)]
        place = text.symbol(text.span(left)[1], text.span(right)[0], symbol)
        for other in others:
            yield "comparison", *place, other
        left = right


def _boolean(node: ast.BoolOp, text: _Text) -> Iterator[Edit]:
    symbol, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
    for left, right in zip(node.values, node.values[1:]):
        yield "boolean", *text.symbol(text.span(left)[1], text.span(right)[0], symbol), other


def _unary(node: ast.UnaryOp, text: _Text) -> Iterator[Edit]:
    if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        operand = text.of(node.operand)
        bare = isinstance(node.operand, ast.Name | ast.Constant | ast.Call | ast.Attribute | ast.Subscript)
        yield "unary", *text.span(node), operand if bare else f"({operand})"


def _constant(node: ast.Constant, text: _Text) -> Iterator[Edit]:
    value, place = node.value, text.span(node)
    if isinstance(value, bool):
        yield "truth", *place, str(not value)
    elif isinstance(value, int):
        yield "number", *place, {0: "1", 1: "0"}.get(value, str(value + 1))
        if value == 1:
            yield "number", *place, "2"
    elif isinstance(value, float) and not 0 < value <= TOLERANCE:
        yield "number", *place, repr(2 * value) if value else "1.0"


def _call(node: ast.Call, text: _Text) -> Iterator[Edit]:
    name, (start, end) = _called(node), text.span(node)
    if name in NAMES and not (isinstance(node.func, ast.Name) and name == "sum"):  # Python has no mean
        stop = text.span(node.func)[1]
        yield "name", stop - len(name), stop, NAMES[name]
    method = isinstance(node.func, ast.Attribute)
    if method and name in DROPPED_METHODS and not (node.args and name in ("sort", "round")):
        yield "dropped call", text.span(node.func.value)[1], end, ""
    if name in DROPPED_FUNCTIONS and len(node.args) == 1:
        yield "dropped call", start, end, f"({text.of(node.args[0])})"
    for keyword in node.keywords:
        if keyword.arg and keyword.arg not in LEFT_ALONE:
            yield "dropped argument", *_with_comma(keyword, text), ""


def _with_comma(node: ast.AST, text: _Text) -> tuple[int, int]:
    """Return the span of an argument with the comma before it, or else the one after it."""
    start, end = text.span(node)
    if before := re.search(r",\s*$", text.source[:start]):
        return before.start(), end
    after = re.match(r"\s*,?[ \t]*", text.source[end:])
    return start, end + after.end()


def _condition(node: ast.If | ast.While | ast.IfExp, text: _Text) -> Iterator[Edit]:
    if not isinstance(node.test, ast.Compare) and not isinstance(getattr(node.test, "op", None), ast.Not):
        yield "condition", *text.span(node.test), f"(not ({text.of(node.test)}))"


def _comprehension(node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, text: _Text) -> Iterator[Edit]:
    for generator in node.generators:
        for test in generator.ifs:
            yield "condition", *text.span(test), "True"


def _deleted(node: ast.stmt, text: _Text) -> Iterator[Edit]:
    yield "deleted statement", *text.span(node), "pass"


def _expression(node: ast.Expr, text: _Text) -> Iterator[Edit]:
    if isinstance(node.value, ast.Call):
        yield from _deleted(node, text)


def _jump(node: ast.Break | ast.Continue, text: _Text) -> Iterator[Edit]:
    yield "jump", *text.span(node), "continue" if isinstance(node, ast.Break) else "break"


def _with(node: ast.With, text: _Text) -> Iterator[Edit]:
    for item in node.items:
        if _is_call_of(item.context_expr, *NO_GRADIENT):
            yield "gradient", *text.span(item.context_expr), "__import__('contextlib').nullcontext()"


def _function(node: ast.FunctionDef, text: _Text) -> Iterator[Edit]:
    for decorator in node.decorator_list:
        if _is_call_of(decorator, *NO_GRADIENT):
            yield "gradient", *text.span(decorator), "(lambda function: function)"


_EDITORS = {
    ast.BinOp: _binary, ast.AugAssign: _augmented, ast.Compare: _comparison, ast.BoolOp: _boolean,
    ast.UnaryOp: _unary, ast.Constant: _constant, ast.Call: _call, ast.If: _condition, ast.While: _condition,
    ast.IfExp: _condition, ast.Raise: _deleted, ast.Expr: _expression, ast.Break: _jump, ast.Continue: _jump,
    ast.With: _with, ast.FunctionDef: _function,
    ast.ListComp: _comprehension, ast.SetComp: _comprehension, ast.DictComp: _comprehension,
    ast.GeneratorExp: _comprehension,
}  # fmt: skip
