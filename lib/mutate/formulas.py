"""Mutants of formulas: the slips that a careful student makes in an equation, made on purpose in its code.

A sign, a factor 2, an exponent, a swapped index, swapped arguments, a changed constant, ``+`` for ``-``, ``*`` for
``/`` and "and" for "or".  What only says on which inputs a formula is tried is left alone: the arguments of ``range``,
``linspace``, random generators and the like, shapes, axes, seeds, tolerances and every text.

>>> statement = ast.parse("area = r**2 * 3").body[0]
>>> for slip in slips(statement, [statement.value]):
...     print(f"{slip.operator:9} {slip.before} -> {slip.after}")
factor    r ** 2 * 3 -> 2 * (r ** 2 * 3)
sign      r ** 2 * 3 -> -(r ** 2 * 3)
* /       r ** 2 * 3 -> r ** 2 / 3
exponent  r ** 2 * 3 -> r ** 3 * 3
constant  r ** 2 * 3 -> r ** 2 * 4
"""

from __future__ import annotations

import ast
import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ORDER = "__order__"  # the name under which :func:`Orders.compare` stands there
SCALE = "__slip__"  # the name under which :func:`scaled` stands in the namespace of a mutant
WIDTH = 90
TOLERANCE = 1e-4  # a number no larger than this is taken for one

_SWAPS = {
    ast.Add: (ast.Sub, "+ -"), ast.Sub: (ast.Add, "+ -"), ast.Mult: (ast.Div, "* /"), ast.Div: (ast.Mult, "* /"),
    ast.BitAnd: (ast.BitOr, "and or"), ast.BitOr: (ast.BitAnd, "and or"), ast.And: (ast.Or, "and or"),
    ast.Or: (ast.And, "and or"),
}  # fmt: skip


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Their arguments say which inputs are tried, or only how many numbers lie where.
_DOMAIN = _words_of(
    "range arange linspace logspace geomspace default_rng manual_seed Generator SeedSequence rand randn randint random "
    "normal standard_normal integers choice permutation dirichlet beta gamma multinomial uniform poisson binomial "
    "random_branches symbols Symbol Function zeros ones empty eye full_like reshape unflatten flatten view permute "
    "transpose swapaxes chunk split repeat_interleave tile expand to astype product combinations permutations "
    "meshgrid set print display topk pairwise enumerate zip glue getattr isinstance train_test_split "
    "figure subplots inset_axes"
)
_AXES = _words_of(
    "sum mean std var max min amax amin argmax argmin softmax log_softmax logsumexp cumsum cumprod sort argsort stack "
    "cat concatenate unsqueeze squeeze gather scatter flip any all norm index_select sample"
)
_COMMUTATIVE = _words_of(
    "maximum minimum max min logaddexp isclose allclose logical_and logical_or gcd lcm "
    "multiply multiply_int relative_error equal array_equal allclose"
)
_KEYWORDS = _words_of(
    "says rejects part dim axis keepdim keepdims generator seed dtype size rtol atol cases key bounds method options "
    "minlength copy steps n_iter device rows restarts tol xtol xatol max_length reduction"
)


@dataclass(frozen=True)
class Slip:
    """One mutant of a statement. ``before`` and ``after`` show the part of it that changes."""

    operator: str
    before: str
    after: str
    statement: ast.stmt = field(repr=False, compare=False)


class Orders(ast.NodeTransformer):
    """Makes the comparisons ``a <= b`` of a statement record by how much they hold.

    A slip that widens this slack everywhere is a weaker statement; it follows from the true one and cannot be refuted.
    """

    SIGNS = {ast.Lt: 1, ast.LtE: 1, ast.Gt: -1, ast.GtE: -1}  # noqa: RUF012

    def __init__(self) -> None:
        self.slacks: list[Any] = []

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        return node if node.arg == "counterfeit" else self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) > 1 or type(node.ops[0]) not in self.SIGNS:
            return node
        operator = ast.Constant(type(node.ops[0]).__name__)
        return ast.Call(ast.Name(ORDER, ast.Load()), [node.left, operator, node.comparators[0]], [])

    def compare(self, left, operator: str, right):
        """Compare two values and record the slack, as far as they are numbers."""
        compare = {"Lt": lambda: left < right, "LtE": lambda: left <= right, "Gt": lambda: left > right}
        verdict = compare.get(operator, lambda: left >= right)()
        sign = -1 if operator.startswith("G") else 1
        with contextlib.suppress(Exception):
            plain = [v.detach().numpy() if hasattr(v, "detach") else v for v in (left, right)]
            if len(self.slacks) < 20_000:
                self.slacks.append(np.asarray(sign * (plain[1] - plain[0]), dtype=float))
        return verdict


class NotAFormula(Exception):
    """A factor or a sign was put on something that is no number."""


def scaled(value, factor: int):
    """Return ``factor`` times a number, an array, or every number of a list.

    >>> scaled([1, (2, 3)], -1)
    [-1, (-2, -3)]
    """
    if isinstance(value, (list, tuple)):
        return type(value)([scaled(item, factor) for item in value])
    if value is None or isinstance(value, (bool, str, dict, set)) or str(getattr(value, "dtype", "")).endswith("bool"):
        raise NotAFormula(type(value).__name__)
    if not hasattr(value, "__mul__"):
        raise NotAFormula(type(value).__name__)
    return factor * value


def slips(statement: ast.stmt, roots: Iterable[ast.AST], scale: bool = True, coarse: bool = False) -> list[Slip]:
    """Return every mutant of a statement inside the given parts of it, in a fixed order, each text once.

    Without ``scale`` no factor or sign is put on a whole formula: what is claimed to vanish vanishes with it too.
    With ``coarse`` an integer of 20 and more is doubled, not raised by one: no measurement tells 40,000 from 40,001.
    """
    index = {id(node): position for position, node in enumerate(ast.walk(statement))}
    parents = {id(child): node for node in ast.walk(statement) for child in ast.iter_child_nodes(node)}
    found: dict[str, Slip] = {}
    for root in roots:
        for operator, node, edit in [*(_on_whole(root) if scale else ()), *_inside(root, coarse)]:
            mutated = copy.deepcopy(statement)
            target = list(ast.walk(mutated))[index[id(node)]]
            changed = ast.fix_missing_locations(_Replace(target, edit(target)).visit(mutated))
            before, after = _context(node, parents, edit)
            found.setdefault(ast.unparse(changed), Slip(operator, before, after, changed))
    found.pop(ast.unparse(statement), None)
    return list(found.values())


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, new: ast.AST):
        self.target, self.new = target, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.target else super().generic_visit(node)


# ---------------------------------------------------------------------- where a factor or a sign can slip


def _on_whole(root: ast.AST) -> Iterator[tuple]:
    for node in _wholes(root):
        yield "factor", node, lambda new: _call_scaled(new, 2)
        yield "sign", node, lambda new: _call_scaled(new, -1)


def _wholes(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions that stand for a whole formula: elements of lists, returned values, sides of ``==``."""
    if isinstance(node, (ast.FunctionDef, ast.For, ast.While, ast.If, ast.With)):
        for child in (*node.body, *getattr(node, "orelse", ())):
            yield from _wholes(child)
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.NamedExpr)):
        yield from _wholes(node.value) if node.value else ()
    elif isinstance(node, (ast.List, ast.Tuple)):
        for item in node.elts:
            yield from _wholes(item)
    elif isinstance(node, (ast.ListComp, ast.GeneratorExp)):
        yield from _wholes(node.elt)
    elif isinstance(node, (ast.DictComp, ast.Starred)):
        yield from _wholes(node.value)
    elif isinstance(node, ast.Compare):
        yield from _wholes(node.comparators[0])
    elif isinstance(node, ast.Lambda):
        yield from _wholes(node.body)
    elif isinstance(node, ast.IfExp):
        yield from (*_wholes(node.body), *_wholes(node.orelse))
    elif isinstance(node, ast.Call) and _name(node.func) in _DOMAIN - {"astype", "to", "flatten", "view"}:
        return
    elif isinstance(node, ast.Call) and (_name(node.func) == "zeros_like" or ast.unparse(node) == "sp.Integer(0)"):
        return  # twice nothing
    elif isinstance(node, ast.Call) and _name(node.func) in {"list", "tuple", "array", "stack", "sorted"} and node.args:
        yield from _wholes(node.args[0])
    elif isinstance(node, ast.BinOp) and not isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        if isinstance(node.left, (ast.List, ast.Tuple)):  # [1] * 8
            yield from _wholes(node.left)
        else:
            yield node
    elif isinstance(node, (ast.Name, ast.Attribute, ast.Subscript, ast.Call)):
        yield node


def _call_scaled(node: ast.expr, factor: int) -> ast.expr:
    return ast.Call(ast.Name(SCALE, ast.Load()), [node, ast.Constant(factor)], [])


# ---------------------------------------------------------------------- what can slip inside


def _inside(node: ast.AST, coarse: bool) -> Iterator[tuple]:
    yield from _at(node, coarse)
    for child in _children(node):
        yield from _inside(child, coarse)


def _at(node: ast.AST, coarse: bool) -> Iterator[tuple]:
    """Yield (operator, node, edit) for the slips at one node."""
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op) if type(op) in _SWAPS:
            other, name = _SWAPS[type(op)]
            if not isinstance(getattr(node, "left", None), (ast.List, ast.JoinedStr)):
                yield name, node, lambda new: _with(new, op=other())
        case ast.BinOp(op=ast.MatMult(), left=left, right=right):
            yield "arguments", node, lambda new: _with(new, left=right, right=left)
        case ast.BinOp(op=ast.Pow(), right=power):
            if _number(power) is None:
                yield "exponent", node, lambda new: _with(new, right=ast.BinOp(new.right, ast.Add(), ast.Constant(1)))
            else:
                yield "exponent", node, lambda new: _with(new, right=_literal(_number(new.right) + 1))
        case ast.UnaryOp(op=ast.USub(), operand=operand) if _number(operand) is None:
            yield "sign", node, lambda new: new.operand
        case ast.Subscript(slice=ast.Tuple(elts=[ast.Name(a), ast.Name(b)])) if a != b:
            yield "index", node, lambda new: _with(new, slice=ast.Tuple(new.slice.elts[::-1], ast.Load()))
        case ast.Call(args=[first, second]) if _swappable(node, first, second):
            yield "arguments", node, lambda new: _with(new, args=new.args[::-1])
        case ast.Call(args=[_, _, _]) if _name(node.func) == "where":
            yield "arguments", node, lambda new: _with(new, args=[new.args[0], *new.args[:0:-1]])
    value = _number(node)
    if value is not None and not 0 < abs(value) <= TOLERANCE:
        yield "constant", node, lambda new: _literal(_changed(value, coarse))


def _children(node: ast.AST) -> list[ast.AST]:
    """The parts of a node in which a slip would change a formula."""
    match node:
        case ast.FunctionDef():
            return [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        case ast.Lambda():
            return [node.body]
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.NamedExpr() | ast.Return() | ast.Expr():
            return [node.value] if node.value else []
        case ast.For():
            return [*node.body, *node.orelse]
        case ast.BinOp(op=ast.Pow(), right=power) if _number(power) is not None:
            return [node.left]
        case ast.UnaryOp() if _number(node) is not None:
            return []
        case ast.comprehension():
            return node.ifs
        case ast.Slice() | ast.JoinedStr() | ast.ClassDef() | ast.Import() | ast.ImportFrom() | ast.Assert():
            return []
        case ast.Call():
            name, receiver = _name(node.func), [node.func.value] if isinstance(node.func, ast.Attribute) else []
            if name in _DOMAIN:
                return receiver
            arguments = [*node.args, *(k.value for k in node.keywords if k.arg not in _KEYWORDS)]
            if name in _AXES:
                arguments = [a for a in arguments if not isinstance(_number(a), int)]
            return [*receiver, *arguments]
    return list(ast.iter_child_nodes(node))


def _swappable(node: ast.Call, first: ast.expr, second: ast.expr) -> bool:
    name = _name(node.func)
    if name in _COMMUTATIVE | _DOMAIN | _AXES | {"Fraction", "diff", "subs", "Rational", "round", "full"}:
        return False
    plain = (ast.Name, ast.BinOp, ast.Constant, ast.Subscript, ast.Attribute, ast.UnaryOp)
    return isinstance(first, plain) and isinstance(second, plain) and ast.dump(first) != ast.dump(second)


def _changed(value: float, coarse: bool) -> float:
    if isinstance(value, float):
        return 1.5 * value or 1.0
    return 2 * value if coarse and abs(value) >= 20 else value + 1


def _number(node: ast.AST) -> int | float | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _number(node.operand)
        return None if value is None else -value
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return node.value
    return None


def _literal(value: float) -> ast.expr:
    if isinstance(value, float):
        value = float(f"{value:.15g}")
    return ast.UnaryOp(ast.USub(), ast.Constant(-value)) if value < 0 else ast.Constant(value)


def _name(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def _with(node: ast.AST, **changes) -> ast.AST:
    new = copy.copy(node)
    for name, value in changes.items():
        setattr(new, name, value)
    return new


# ---------------------------------------------------------------------- words


def _context(node: ast.AST, parents: dict[int, ast.AST], edit) -> tuple[str, str]:
    """Return a short surrounding expression, before and after."""
    around = node
    while isinstance(parents.get(id(around)), (ast.expr, ast.keyword)):
        parent = parents[id(around)]
        if isinstance(parent, (ast.List, ast.Tuple, ast.Lambda)) or len(ast.unparse(parent)) > WIDTH:
            break
        around = parent
    path = list(ast.walk(around))
    fresh = copy.deepcopy(around)
    target = list(ast.walk(fresh))[next(i for i, n in enumerate(path) if n is node)]
    after = _Replace(target, edit(copy.deepcopy(target))).visit(fresh)
    return _words(around), _words(after)


def _words(node: ast.AST) -> str:
    class Plain(ast.NodeTransformer):
        def visit_Call(self, call: ast.Call) -> ast.AST:
            self.generic_visit(call)
            if _name(call.func) != SCALE:
                return call
            inner, factor = ast.unparse(call.args[0]), ast.unparse(call.args[1])
            compound = isinstance(call.args[0], (ast.BinOp, ast.UnaryOp))
            inner = f"({inner})" if compound else inner
            return ast.Name(f"-{inner}" if factor == "-1" else f"{factor} * {inner}", ast.Load())

    return " ".join(ast.unparse(Plain().visit(copy.deepcopy(ast.fix_missing_locations(node)))).split())
